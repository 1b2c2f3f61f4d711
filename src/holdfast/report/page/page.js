"use strict";
// Puts the page together, before the charting library is even read.
(() => {
  const { byId, make, chosen, number } = Holdfast;
  const THEMES = ["system", "light", "dark"];

  function runs() {
    const facts = Holdfast.facts.runs;
    if (!facts?.runs.length || !byId("run-table")) return;
    chosen.curve = Holdfast.options(byId("curve-metric"), facts.metrics, chosen.curve, (name) => { chosen.curve = name; Holdfast.redraw("curves"); });
    const columns = [
      { key: "run", label: "run", value: (run) => run.path, cell: (run) => make("bdi", {}, run.path) },
      { key: "class", label: "class", value: (run) => run.kind, cell: (run) => run.kind },
      { key: "verdict", label: "verdict", value: (run) => run.verdict, cell: (run) => make("span", { title: run.why }, run.verdict) },
      { key: "metric", label: "metric", value: (run) => run.metric, cell: (run) => run.metric ?? "" },
      { key: "value", label: "value", num: true, value: (run) => run.value, cell: (run) => number(run.value) },
      { key: "epochs", label: "epochs", num: true, value: (run) => run.epochs, cell: (run) => String(run.epochs) },
      { key: "size", label: "size", num: true, value: (run) => run.size, cell: (run) => Holdfast.bytes(run.size) },
      { key: "started", label: "started", fit: "short", value: (run) => run.started, cell: (run) => Holdfast.moment(run.started) },
      { key: "why", label: "why", fit: "wide-cell", value: (run) => run.why, cell: (run) => make("bdi", {}, run.why) },
    ];
    Holdfast.table(byId("run-table"), { columns, rows: facts.runs, sort: chosen.runs, again: runs, caption: "Runs, and what to do with each" });
  }

  // A browser may refuse to remember anything for a file.
  function remembered(value) {
    try {
      if (value === undefined) return localStorage.getItem("holdfast-theme") ?? "system";
      localStorage.setItem("holdfast-theme", value);
    } catch { /* then it is chosen anew each time */ }
    return "system";
  }

  function theme(name) {
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    byId("theme").textContent = `Theme: ${name}`;
  }

  Holdfast.build = () => {
    Holdfast.facts = JSON.parse(byId("data").textContent);
    Holdfast.buildModels();
    Holdfast.buildExperiments();
    runs();
  };

  let now = THEMES.includes(remembered()) ? remembered() : "system";
  theme(now);
  byId("theme").hidden = false;
  byId("theme").addEventListener("click", () => {
    now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    theme(now);
    remembered(now);
    Holdfast.redrawAll?.();
  });
  // an open menu closes with Escape, and when the reader goes elsewhere
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
  document.addEventListener("pointerdown", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  // as the server wrote them, before anything is built into them
  Holdfast.served = new Map([...document.querySelectorAll("[data-live]")].map((part) => [part.id, part.innerHTML]));
  Holdfast.redraw = () => {};
  Holdfast.build();
})();
