"use strict";
// Follows the server: where the repository has changed, the parts of the page that are different are put in place.
(() => {
  const { byId } = Holdfast;
  const parts = Holdfast.served;
  const parser = new DOMParser();
  let busy = false, again = false;

  async function fresh() {
    const response = await fetch(location.pathname, { cache: "no-store" });
    if (!response.ok) throw new Error(`${response.status}`);
    return parser.parseFromString(await response.text(), "text/html");
  }

  function replace(page) {
    const focus = document.activeElement?.id;
    const kept = [...document.querySelectorAll(".scroll[id]")].map((host) => [host.id, host.scrollLeft, host.scrollTop]);
    const open = [...document.querySelectorAll("details[id][open]")].map((one) => one.id);
    const { scrollX, scrollY } = window;
    for (const part of page.querySelectorAll("[data-live]")) {
      const here = byId(part.id);
      if (!here || parts.get(part.id) === part.innerHTML) continue;
      parts.set(part.id, part.innerHTML);
      here.replaceChildren(...part.cloneNode(true).childNodes);
    }
    Holdfast.build();
    for (const id of open) if (byId(id)) byId(id).open = true;
    for (const [id, left, top] of kept) byId(id)?.scrollTo(left, top);
    window.scrollTo(scrollX, scrollY);
    if (focus) byId(focus)?.focus({ preventScroll: true });
    Holdfast.redrawAll();
    Holdfast.watchCharts();
  }

  async function follow() {
    if (busy) { again = true; return; }
    busy = true;
    try {
      replace(await fresh());
      byId("live").textContent = `Brought up to date at ${new Date().toLocaleTimeString()}.`;
    } catch {
      byId("live").textContent = "The page could not be brought up to date; it is tried again with the next change.";
    }
    busy = false;
    if (again) { again = false; follow(); }
  }

  let state = document.documentElement.dataset.state, events = null;

  // A page that nobody sees holds no connection: a browser has six for one server, and there may be more tabs.
  function listen() {
    events?.close();
    events = null;
    if (document.visibilityState === "hidden") return;
    events = new EventSource("events");
    events.addEventListener("state", (event) => {
      if (state === event.data) byId("live").textContent = "Live: the page follows the repository.";
      else follow();
      state = event.data;
    });
    events.addEventListener("error", () => { byId("live").textContent = "The server has gone; `holdfast ui` brings it back."; });
  }

  document.addEventListener("visibilitychange", listen);
  listen();
})();
