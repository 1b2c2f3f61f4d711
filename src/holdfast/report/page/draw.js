"use strict";
// Draws charts when they come into sight, and again when the theme, the width or the facts change.
(() => {
  const { byId, make } = Holdfast;
  const views = new Map(), widths = new Map();
  const REDRAW_MS = 150;

  function inks() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(`--${name}`).trim();
    return {
      ink: of("ink"), muted: of("muted"), line: of("line"), faint: of("faint"), accent: of("accent"), surface: of("surface"), onColor: of("on-accent"),
      ramp: ["ramp", "ramp-middle", "accent"].map(of), categories: [1, 2, 3, 4, 5, 6].map((number) => of(`c${number}`)),
    };
  }

  function config(ink) {
    const font = getComputedStyle(document.body).fontFamily;
    return {
      background: null, font, aria: false, view: { stroke: null },
      axis: { labelColor: ink.muted, titleColor: ink.muted, titleFontWeight: 400, gridColor: ink.line, domainColor: ink.faint, tickColor: ink.faint, labelFontSize: 11, titleFontSize: 11.5, labelFont: font, titleFont: font },
      axisX: { grid: false }, legend: { labelColor: ink.ink, labelFontSize: 11.5, labelFont: font, symbolStrokeWidth: 2 }, text: { font },
    };
  }

  // The tooltip is text, whatever a name holds.
  function tip(_handler, event, _item, value) {
    const box = byId("tip");
    if (value === null || value === undefined || value === "") { box.hidden = true; return; }
    box.textContent = String(value);
    box.hidden = false;
    const { width, height } = box.getBoundingClientRect();
    box.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 6))}px`;
    box.style.top = `${event.clientY + 16 + height > innerHeight ? event.clientY - height - 10 : event.clientY + 16}px`;
  }

  async function draw(id) {
    const host = byId(id);
    if (!host) return;
    const ink = inks(), chart = Holdfast.charts[id](ink);
    widths.set(id, host.clientWidth);
    views.get(id)?.finalize();
    views.delete(id);
    if (!chart?.spec) {
      host.replaceChildren(make("p", { className: "muted" }, chart?.text ?? "Nothing to show yet."));
      host.removeAttribute("role");
      host.removeAttribute("aria-label");
      return;
    }
    const target = make("div", { "aria-hidden": "true" }); // what it shows is told by its frame, and in tables
    host.replaceChildren(target);
    const { view } = await vegaEmbed(target, { autosize: { type: "fit-x", contains: "padding" }, ...chart.spec }, {
      ast: true, actions: false, defaultStyle: false, renderer: "svg", tooltip: tip, config: config(ink),
    });
    view.axes = chart.axes;
    views.set(id, view);
    host.setAttribute("role", "img");
    host.setAttribute("aria-label", chart.told);
    host.dataset.drawn = "yes";
    brushes[id]?.(host, view);
  }

  // A drag over a chart, as a rectangle in the chart's own pixels.
  function brush(host, view, done) {
    const svg = host.querySelector("svg");
    let start = null, box = null;
    const at = (event) => {
      const frame = svg.getBoundingClientRect(), [left, top] = view.origin();
      return [event.clientX - frame.left - left, event.clientY - frame.top - top];
    };
    svg.style.touchAction = "pan-y";
    svg.style.cursor = "crosshair";
    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      start = { at: at(event), x: event.clientX, y: event.clientY };
      svg.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    svg.addEventListener("pointermove", (event) => {
      if (!start) return;
      box ??= document.body.appendChild(make("div", { className: "brush" }));
      Object.assign(box.style, {
        left: `${Math.min(start.x, event.clientX)}px`, top: `${Math.min(start.y, event.clientY)}px`,
        width: `${Math.abs(event.clientX - start.x)}px`, height: `${Math.abs(event.clientY - start.y)}px`,
      });
    });
    const end = (event) => {
      box?.remove();
      box = null;
      if (!start) return;
      const from = start, to = at(event);
      start = null;
      if (event.type === "pointerup" && Math.abs(event.clientX - from.x) + Math.abs(event.clientY - from.y) > 8) {
        const sorted = [0, 1].map((axis) => [from.at[axis], to[axis]].sort((a, b) => a - b));
        done(...sorted);
      }
    };
    svg.addEventListener("pointerup", end);
    svg.addEventListener("pointercancel", end);
  }

  const short = (value) => Number(value.toPrecision(4));

  const brushes = {
    parallel: (host, view) => brush(host, view, ([left, right], [top, bottom]) => {
      const x = view.scale("x"), y = view.scale("y"), near = 14;
      view.axes.forEach((axis, step) => {
        const place = x(step);
        if (!axis.back || place < left - near || place > right + near) return;
        const [low, high] = [y.invert(bottom), y.invert(top)];
        Holdfast.setRange(axis.name, low <= 0 ? null : short(axis.back(Math.min(1, low))), high >= 1 ? null : short(axis.back(Math.max(0, high))));
      });
    }),
    scatter: (host, view) => brush(host, view, ([left, right], [top, bottom]) => {
      const { x, y } = Holdfast.chosen, across = view.scale("x"), up = view.scale("y");
      Holdfast.setRange(x, short(across.invert(left)), short(across.invert(right)));
      Holdfast.setRange(y, short(up.invert(bottom)), short(up.invert(top)));
    }),
  };

  Holdfast.redraw = (id) => (byId(id)?.dataset.drawn ? draw(id) : null);

  Holdfast.redrawAll = () => Promise.all(Object.keys(Holdfast.charts).map((id) => Holdfast.redraw(id)));

  // New filters are new data for the charts that are there; other columns are other axes.
  Holdfast.filterCharts = () => {
    const parallel = views.get("parallel");
    if (byId("parallel")?.dataset.drawn) {
      const axes = Holdfast.axes(), same = parallel?.axes?.map((axis) => axis.name).join("\n") === axes.map((axis) => axis.name).join("\n");
      if (same) parallel.data("rows", Holdfast.parallelRows(axes)).data("ranges", Holdfast.rangeRows(axes)).runAsync();
      else draw("parallel");
    }
    views.get("scatter")?.data("points", Holdfast.scatterRows()).runAsync();
  };

  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      seen.unobserve(entry.target);
      draw(entry.target.id);
    }
  }, { rootMargin: "300px" });

  Holdfast.watchCharts = () => {
    for (const id of Object.keys(Holdfast.charts)) {
      const host = byId(id);
      if (host && !host.dataset.drawn) seen.observe(host);
    }
  };

  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      for (const [id, width] of widths) if (byId(id) && byId(id).clientWidth !== width) Holdfast.redraw(id);
    }, REDRAW_MS);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => Holdfast.redrawAll());
  // paper is white, and shows what nobody has scrolled to
  const root = document.documentElement;
  let before;
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    for (const id of Object.keys(Holdfast.charts)) if (byId(id)) draw(id);
  });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    Holdfast.redrawAll();
  });
  Holdfast.watchCharts();
})();
