"use strict";
// What each chart shows, as Vega and Vega-Lite have it; null where there is nothing to show.
(() => {
  const { byId, chosen, isNumber, number } = Holdfast;
  const AXES_MAX = 8;
  const COLOURS_MAX = 6;
  const DAY = 86400000;
  const ROOT = "\u0000"; // no file has such a name

  const lite = (rest) => ({ $schema: "https://vega.github.io/schema/vega-lite/v6.json", ...rest });
  const wide = (id) => Math.max(220, byId(id).clientWidth);

  function timeline(ink) {
    const model = Holdfast.model();
    if (!model?.spans.length) return null;
    const now = Date.parse(Holdfast.facts.moment);
    const time = (text, other) => (text ? Date.parse(text) : other);
    const starts = model.spans.map((span) => time(span.start, now));
    const from = Math.min(...starts), to = Math.max(now, ...starts) + DAY / 24;
    const rows = model.spans.map((span, place) => {
      const start = starts[place], end = span.end === null ? to : time(span.end, now);
      const share = (end - start) / Math.max(1, to - from);
      return {
        label: span.label, version: span.version, start, end, place: place % 2, text: share * wide("timeline") > 34 ? span.version : "",
        tip: [`${span.label}: ${span.version}`, `${span.start ? Holdfast.moment(span.start) : "not committed"} – ${span.end === null ? "now" : Holdfast.moment(span.end)}`,
          span.author && `${span.author}: ${span.subject}`].filter(Boolean).join("\n"),
      };
    });
    const labels = [...new Set(rows.map((row) => row.label))];
    const order = ["production", "current", ...labels.filter((name) => !["production", "current"].includes(name)).sort()].filter((name) => labels.includes(name));
    const y = { field: "label", type: "nominal", sort: order, title: null, scale: { paddingInner: 0.25, paddingOuter: 0.1 } };
    return {
      told: `${rows.length} spans of ${labels.length} labels; the table below lists them`,
      spec: lite({
        width: wide("timeline"), height: order.length * 34, data: { values: rows },
        layer: [
          {
            mark: { type: "bar", cornerRadius: 3, stroke: ink.surface, strokeWidth: 1 },
            encoding: {
              x: { field: "start", type: "temporal", title: null, scale: { type: "utc", nice: false } }, x2: { field: "end" },
              color: { field: "label", type: "nominal", legend: null, scale: { domain: order, range: ink.categories } },
              fillOpacity: { condition: { test: "datum.place == 0", value: 0.95 }, value: 0.72 }, tooltip: { field: "tip" },
            },
          },
          {
            mark: { type: "text", color: ink.onColor, fontSize: 11, fontWeight: 600 },
            encoding: { text: { field: "text" }, tooltip: { field: "tip" }, x: { field: "middle", type: "temporal", scale: { type: "utc", nice: false } } },
          },
        ],
        transform: [{ calculate: "(datum.start + datum.end) / 2", as: "middle" }],
        encoding: { y },
      }),
    };
  }

  function progress(ink) {
    const model = Holdfast.model();
    const metric = model?.metrics.find((one) => one.name === chosen.progress);
    if (!metric) return null;
    const were = new Set(model.spans.filter((span) => span.label === "production" || (span.label === "current" && !("production" in model.aliases))).map((span) => span.version));
    const rows = model.versions.filter((version) => metric.name in version.metrics).map((version) => ({
      version: Number(version.name.slice(1)), value: version.metrics[metric.name], champion: were.has(version.name),
      tip: [`${version.name} of ${version.date}`, `${metric.name} ${number(version.metrics[metric.name])}`, were.has(version.name) ? "was in production" : ""].filter(Boolean).join("\n"),
    }));
    if (rows.length < 2) return { told: `${metric.name} of one version`, spec: null, text: "One version alone has no course yet." };
    return {
      told: `${metric.name} of ${rows.length} versions; the table of versions has the figures`,
      spec: lite({
        width: wide("progress"), height: 190, data: { values: rows },
        encoding: {
          x: { field: "version", type: "quantitative", title: "version", axis: { format: "d", ...(rows.length <= 12 ? { values: rows.map((row) => row.version) } : { tickMinStep: 1 }) }, scale: { nice: false, padding: 8 } },
          y: { field: "value", type: "quantitative", title: null, scale: { zero: false, padding: 6 } },
        },
        layer: [
          { mark: { type: "line", color: ink.faint, strokeWidth: 1.5 } },
          {
            mark: { type: "point", filled: true },
            encoding: {
              color: { field: "champion", type: "nominal", title: null, scale: { domain: [true, false], range: [ink.accent, ink.faint] },
                legend: { labelExpr: "datum.value ? 'was in production' : 'was not'", orient: "top", direction: "horizontal" } },
              size: { condition: { test: "datum.champion", value: 55 }, value: 22 }, opacity: { value: 1 }, tooltip: { field: "tip" },
            },
          },
        ],
      }),
    };
  }

  // Where a value stands between the ends of its column: by its logarithm where that spans decades.
  function axisOf(column) {
    const values = Holdfast.facts.experiments.rows.map((row) => row.cells[column.place]);
    const numbers = values.filter(isNumber);
    if (numbers.length) {
      const least = Math.min(...numbers), most = Math.max(...numbers);
      const log = least > 0 && most / least >= 50 && column.kind === "param";
      const [low, high] = log ? [Math.log(least), Math.log(most)] : [least, most];
      const flat = high === low;
      return {
        ...column, log,
        at: (value) => (!isNumber(value) ? null : flat ? 0.5 : ((log ? Math.log(value) : value) - low) / (high - low)),
        // what is brushed to an end of the axis is open at it
        back: (share) => { const value = low + share * (high - low); return log ? Math.exp(value) : value; },
        ends: [number(least), number(most)],
      };
    }
    const names = [...new Set(values.filter((value) => value !== null).map(String))].sort();
    return {
      ...column, names, at: (value) => (value === null || value === undefined ? null : names.length < 2 ? 0.5 : names.indexOf(String(value)) / (names.length - 1)),
      back: null, ends: [names[0] ?? "", names.at(-1) ?? ""],
    };
  }

  Holdfast.axes = () => {
    const shown = Holdfast.shownColumns();
    // params to metrics, as causes to effects
    const ordered = [...shown.filter((column) => column.kind === "param"), ...shown.filter((column) => column.kind === "metric")];
    return ordered.slice(-AXES_MAX).map(axisOf);
  };

  const tipOf = (row, columns) => [row.name, ...columns.map((column) => `${column.name} ${number(row.cells[column.place])}`)].join("\n");

  // The metric that colours the lines.
  const mainAxis = (axes) => axes.find((axis) => axis.kind === "metric");

  // The rows of both charts of experiments, as the filters have them now.
  Holdfast.parallelRows = (axes) => { const main = mainAxis(axes); return Holdfast.facts.experiments.rows.flatMap((row, place) => {
    const on = Holdfast.passes(row), picked = chosen.picked.has(row.commit), tip = tipOf(row, axes);
    const tone = main?.back ? (main.better === "min" ? 1 - main.at(row.cells[main.place]) : main.at(row.cells[main.place])) : 1;
    return axes.map((axis, step) => ({ row: place, step, share: axis.at(row.cells[axis.place]), on, picked, tone, tip }));
  }); };

  Holdfast.rangeRows = (axes) => axes.flatMap((axis, step) => {
    const range = chosen.ranges[axis.name];
    if (!range || !axis.back) return [];
    const clip = (share) => Math.min(1, Math.max(0, share));
    return [{ step, low: range[0] === null ? 0 : clip(axis.at(range[0])), high: range[1] === null ? 1 : clip(axis.at(range[1])) }];
  });

  Holdfast.scatterRows = () => {
    const columns = Holdfast.experimentColumns();
    const x = columns.find((column) => column.name === chosen.x), y = columns.find((column) => column.name === chosen.y);
    return Holdfast.facts.experiments.rows.map((row) => ({
      x: row.cells[x.place], y: row.cells[y.place], on: Holdfast.passes(row), picked: chosen.picked.has(row.commit), base: !row.baseline,
      tip: tipOf(row, [x, y]),
    })).filter((row) => isNumber(row.x) && isNumber(row.y));
  };

  const wanted = () => Holdfast.facts.experiments?.rows.length && byId("parallel");

  function parallel(ink) {
    if (!wanted()) return null;
    const axes = Holdfast.axes();
    if (axes.length < 2) return { told: "two columns or more make a chart", spec: null, text: "Choose two columns or more." };
    const narrow = wide("parallel") < 560;
    const cut = (text) => (text.length > (narrow ? 9 : 16) ? `${text.slice(0, narrow ? 8 : 15)}…` : text);
    const heads = axes.map((axis, step) => ({ step, name: cut(narrow ? axis.name.split(/[.:]/).at(-1) : axis.name), tip: axis.name, low: cut(axis.ends[0]), high: cut(axis.ends[1]) }));
    const x = { field: "step", type: "quantitative", axis: null, scale: { domain: [0, axes.length - 1], padding: narrow ? 26 : 48, nice: false, zero: false } };
    const whole = { type: "quantitative", axis: null, scale: { domain: [0, 1], nice: false } };
    const y = { field: "share", ...whole }, at = (share) => ({ datum: share, ...whole });
    const lines = (test, mark) => ({
      data: { name: "rows" }, transform: [{ filter: test }], mark: { type: "line", interpolate: "linear", ...mark },
      encoding: { x, y, detail: { field: "row" }, tooltip: { field: "tip" } },
    });
    const main = mainAxis(axes);
    byId("parallel-note").textContent = `drag over an axis to filter${main ? `; the stronger the colour, the better ${main.name}` : ""}`;
    const toned = (layer) => ({ ...layer, encoding: { ...layer.encoding, color: {
      field: "tone", type: "quantitative", legend: null, scale: { domain: [0, 0.6, 1], range: ink.ramp, interpolate: "lab" },
    } } });
    return {
      told: `${axes.map((axis) => axis.name).join(", ")} of all experiments; the table below has the figures`, axes,
      spec: lite({
        width: wide("parallel"), height: narrow ? 250 : 315, padding: { top: 4, bottom: 4, left: 0, right: 0 }, autosize: { type: "fit", contains: "padding" },
        datasets: { rows: Holdfast.parallelRows(axes), ranges: Holdfast.rangeRows(axes) },
        layer: [
          lines("!datum.on && !datum.picked", { color: ink.faint, strokeWidth: 0.8, opacity: 0.3 }),
          toned(lines("datum.on && !datum.picked", { strokeWidth: 1.2, opacity: 0.6 })),
          { data: { values: heads }, mark: { type: "rule", color: ink.muted, strokeWidth: 1 }, encoding: { x, y: at(0), y2: { datum: 1 } } },
          { data: { name: "ranges" }, mark: { type: "rule", color: ink.accent, strokeWidth: 7, opacity: 0.55, strokeCap: "round" }, encoding: { x, y: { field: "low", ...whole }, y2: { field: "high" } } },
          lines("datum.picked", { color: ink.categories[1], strokeWidth: 2.4, opacity: 1 }),
          { data: { values: heads }, mark: { type: "text", dy: -22, fontWeight: 600, fontSize: 11.5, color: ink.ink }, encoding: { x, y: at(1), text: { field: "name" }, tooltip: { field: "tip" } } },
          { data: { values: heads }, mark: { type: "text", dy: -8, fontSize: 10.5, color: ink.muted }, encoding: { x, y: at(1), text: { field: "high" } } },
          { data: { values: heads }, mark: { type: "text", dy: 12, fontSize: 10.5, color: ink.muted }, encoding: { x, y: at(0), text: { field: "low" } } },
        ],
      }),
    };
  }

  function scatter(ink) {
    if (!wanted() || !chosen.x || !chosen.y) return null;
    const rows = Holdfast.scatterRows();
    if (!rows.length) return null;
    const columns = Holdfast.experimentColumns().filter((column) => [chosen.x, chosen.y].includes(column.name)).map(axisOf);
    const isLog = (name) => columns.find((column) => column.name === name).log;
    // the ends are those of all rows, so that a filter does not move the axes
    const scale = (name, values) => ({
      ...(isLog(name) ? { type: "log" } : { type: "linear", zero: false }), nice: false, padding: 12,
      domain: [Math.min(...values), Math.max(...values)],
    });
    const ticks = (name) => (isLog(name) ? { values: Array.from({ length: 25 }, (_, power) => 10 ** (power - 12)), format: "~g" } : {});
    const state = (test) => ({ data: { name: "points" }, transform: [{ filter: test }] });
    const at = {
      x: { field: "x", type: "quantitative", title: chosen.x, axis: ticks(chosen.x), scale: scale(chosen.x, rows.map((row) => row.x)) },
      y: { field: "y", type: "quantitative", title: chosen.y, axis: ticks(chosen.y), scale: scale(chosen.y, rows.map((row) => row.y)) }, tooltip: { field: "tip" },
    };
    return {
      told: `${chosen.y} against ${chosen.x} of ${rows.length} experiments; the table below has the figures`,
      spec: lite({
        width: wide("scatter"), height: 270, datasets: { points: rows },
        layer: [
          { ...state("!datum.on && !datum.picked"), mark: { type: "point", filled: true, color: ink.faint, size: 22, opacity: 0.6 }, encoding: at },
          { ...state("datum.on && !datum.picked && !datum.base"), mark: { type: "point", filled: true, color: ink.accent, size: 34, opacity: 0.75 }, encoding: at },
          { ...state("datum.on && datum.base"), mark: { type: "point", shape: "diamond", filled: false, color: ink.ink, strokeWidth: 2, size: 90, opacity: 1 }, encoding: at },
          { ...state("datum.picked"), mark: { type: "point", filled: true, color: ink.categories[1], size: 90, opacity: 1 }, encoding: at },
        ],
      }),
    };
  }

  function curves(ink) {
    const facts = Holdfast.facts.runs;
    if (!facts || !chosen.curve || !byId("curves")) return null;
    const runs = facts.runs.filter((run) => chosen.curve in run.curves);
    const several = (name) => new Set(runs.map((run) => run[name])).size;
    const few = runs.length <= COLOURS_MAX;
    // where all are of one class, their series tells more; what has more kinds than there are colours has one
    const by = ["kind", "series"].find((name) => several(name) > 1 && several(name) <= COLOURS_MAX) ?? null;
    const rows = runs.flatMap((run) => {
      const [places, values] = run.curves[chosen.curve];
      return places.map((epoch, place) => ({ run: run.path, kind: few ? run.path : by ? run[by] : "run", epoch, value: values[place], tip: `${run.path}\n${chosen.curve} ${number(values[place])} at ${epoch}` }));
    });
    if (!rows.length) return null;
    const kinds = [...new Set(rows.map((row) => row.kind))].sort();
    byId("curves-note").textContent = `${Holdfast.plural(runs.length, "run")}${few || !by ? "" : `, coloured by ${by === "kind" ? "class" : by}`}.`;
    return {
      told: `${chosen.curve} over the epochs of ${runs.length} runs`,
      spec: lite({
        width: wide("curves"), height: 260, data: { values: rows },
        encoding: {
          x: { field: "epoch", type: "quantitative", title: "epoch", axis: { tickMinStep: 1 }, scale: { zero: false, nice: false } },
          y: { field: "value", type: "quantitative", title: null, scale: { zero: false } },
          color: { field: "kind", type: "nominal", title: null, scale: { domain: kinds, range: ink.categories }, legend: !few && !by ? null : { orient: "bottom", columns: wide("curves") < 560 ? 1 : 3, labelLimit: 300, symbolType: "stroke" } },
        },
        layer: [
          { mark: { type: "line", strokeWidth: few ? 2 : 1.2, opacity: few ? 0.95 : Math.max(0.3, 0.9 - runs.length / 100) }, encoding: { detail: { field: "run" } } },
          { mark: { type: "point", filled: true, size: 40, opacity: 0 }, encoding: { tooltip: { field: "tip" } } },
        ],
      }),
    };
  }

  function treemap(ink) {
    const scan = Holdfast.facts.scan;
    if (!scan?.files || !scan.bytes || !byId("treemap")) return null;
    const families = scan.families.filter((family) => family.bytes > 0);
    const rows = [{ name: ROOT, parent: null }, ...families.map((family) => ({
      name: family.name, parent: ROOT, bytes: family.bytes, status: family.status,
      text: `${family.name.split("/").at(-1)}`, size: Holdfast.bytes(family.bytes), tip: `${family.name}\n${Holdfast.plural(family.files, "file")}, ${Holdfast.bytes(family.bytes)}\n${family.status}`,
    }))];
    if (scan.others.bytes) rows.push({ name: `${ROOT}others`, parent: ROOT, bytes: scan.others.bytes, status: "smaller ones", text: "smaller ones", size: Holdfast.bytes(scan.others.bytes), tip: `${scan.others.families} smaller families\n${Holdfast.bytes(scan.others.bytes)}` });
    const statuses = [...new Set(rows.slice(1).map((row) => row.status))].sort();
    const known = { registered: 0, primary: 2, secondary: 4, unreferenced: 1, backup: 3, cache: 5 };
    const height = 300;
    return {
      told: `${families.length} families, ${Holdfast.bytes(scan.bytes)}; the table below lists them`,
      spec: {
        $schema: "https://vega.github.io/schema/vega/v6.json", width: wide("treemap"), height, padding: 0, autosize: { type: "fit", contains: "padding" },
        data: [
          { name: "tree", values: rows, transform: [
            { type: "stratify", key: "name", parentKey: "parent" },
            { type: "treemap", field: "bytes", sort: { field: "value", order: "descending" }, round: true, method: "squarify", ratio: 1.5, paddingInner: 2, size: [{ signal: "width" }, { signal: "height" }] },
          ] },
          { name: "leaves", source: "tree", transform: [{ type: "filter", expr: "datum.parent !== null" }] },
        ],
        scales: [{ name: "color", type: "ordinal", domain: statuses, range: statuses.map((status) => (status in known ? ink.categories[known[status]] : ink.faint)) }],
        legends: [{ fill: "color", orient: "bottom", direction: "horizontal", columns: wide("treemap") < 420 ? 2 : 0, title: null, symbolType: "square" }],
        marks: [
          { type: "rect", from: { data: "leaves" }, encode: { enter: {
            x: { field: "x0" }, x2: { field: "x1" }, y: { field: "y0" }, y2: { field: "y1" }, fill: { scale: "color", field: "status" }, cornerRadius: { value: 3 }, tooltip: { field: "tip" },
          } } },
          ...[["text", 16, 600], ["size", 31, 400]].map(([field, down, weight]) => ({ type: "text", from: { data: "leaves" }, interactive: false, encode: { enter: {
            x: { field: "x0", offset: 7 }, y: { field: "y0", offset: down }, text: { signal: `datum.x1 - datum.x0 > 56 && datum.y1 - datum.y0 > ${down + 6} ? datum.${field} : ''` },
            limit: { signal: "datum.x1 - datum.x0 - 12" }, fill: { value: ink.onColor }, fontSize: { value: 11.5 }, fontWeight: { value: weight },
          } } })),
        ],
      },
    };
  }

  function totals(ink) {
    const plan = Holdfast.facts.plan;
    if (!plan?.totals.length || !byId("totals")) return null;
    const rows = plan.totals.filter((total) => total.objects).map((total) => ({
      reason: total.reason, bytes: total.bytes, fate: total.tier === "keep" ? "stays" : "could go", size: Holdfast.bytes(total.bytes),
      tip: `${total.reason}\n${Holdfast.plural(total.objects, "object")}, ${Holdfast.bytes(total.bytes)}`,
    }));
    const most = Math.max(1, ...rows.map((row) => row.bytes));
    return {
      told: `${rows.length} reasons; the table below has the figures`,
      spec: lite({
        width: wide("totals"), height: rows.length * 26, data: { values: rows },
        encoding: {
          y: { field: "reason", type: "nominal", sort: null, title: null, axis: { labelLimit: wide("totals") < 480 ? 110 : 240, domain: false, ticks: false, labelPadding: 8 } },
          x: { field: "bytes", type: "quantitative", title: null, axis: null, scale: { nice: false, domain: [0, most * (wide("totals") < 480 ? 1.6 : 1.15)] } },
          tooltip: { field: "tip" },
        },
        layer: [
          { mark: { type: "bar", cornerRadiusEnd: 3, height: 15 }, encoding: { color: { field: "fate", type: "nominal", title: null, scale: { domain: ["stays", "could go"], range: [ink.accent, ink.categories[1]] }, legend: { orient: "bottom", direction: "horizontal" } } } },
          { mark: { type: "text", align: "left", dx: 6, color: ink.muted }, encoding: { text: { field: "size" } } },
        ],
      }),
    };
  }

  Holdfast.charts = { timeline, progress, parallel, scatter, curves, treemap, totals };
})();
