// the theme's search has no name that a screen reader could say
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
