"use strict";
// A model: its versions, and where each comes from.
(() => {
  const { byId, make, chosen, number, columnFormat } = Holdfast;
  const METRICS_SHOWN = 4;

  Holdfast.model = () => Holdfast.facts.models?.find((model) => model.id === chosen.model) ?? null;

  // the one that a candidate has to beat
  const label = (model, name) => make("span", { className: name === ("production" in model.aliases ? "production" : "current") ? "label champion" : "label" }, name);

  function facts(model) {
    const champion = model.versions.find((version) => version.name === model.champion);
    const pair = (name, ...content) => make("div", {}, make("dt", {}, name), make("dd", {}, ...content));
    const items = [pair("versions", String(model.versions.length))];
    if (champion) {
      items.push(pair("champion", champion.name), ...model.metrics.slice(0, METRICS_SHOWN)
        .filter((metric) => metric.name in champion.metrics)
        .map((metric) => pair(make("bdi", {}, metric.name), number(champion.metrics[metric.name]))));
      items.push(pair("size", Holdfast.bytes(champion.size)));
    }
    byId("model-facts").replaceChildren(
      model.description ? make("p", {}, make("bdi", {}, model.description)) : "", make("dl", { className: "facts" }, ...items));
  }

  function spans(model) {
    const rows = [...model.spans].reverse().map((span) => [
      span.label, span.version, span.start ? Holdfast.moment(span.start) : "not committed",
      span.end === null ? "now" : span.end ? Holdfast.moment(span.end) : "not committed", span.author, span.subject,
    ]);
    byId("timeline-table").replaceChildren(rows.length
      ? Holdfast.plainTable(["label", "version", "from (UTC)", "to", "by", "commit"], rows) : make("p", {}, "No label was set yet."));
  }

  function versions(model) {
    const metrics = model.metrics.slice(0, METRICS_SHOWN).map((metric) => {
      const format = columnFormat(model.versions.map((version) => version.metrics[metric.name]));
      return {
        key: `metric ${metric.name}`, label: metric.name, num: true, better: metric.better,
        value: (version) => version.metrics[metric.name], cell: (version) => format(version.metrics[metric.name]),
      };
    });
    const gate = model.versions.some((version) => version.gate);
    const columns = [
      {
        key: "version", label: "version", value: (version) => version.name,
        cell: (version) => make("button", {
          type: "button", className: "name", "aria-pressed": chosen.lineage === version.name,
          "aria-label": `${version.name}: where it comes from`, onclick: () => lineage(model, version, true),
        }, version.name),
      },
      {
        key: "labels", label: "labels", value: (version) => version.labels.join(" "),
        cell: (version) => make("span", {}, ...version.labels.map((name) => label(model, name)),
          version.deprecated === null ? "" : make("span", { className: "muted", title: version.deprecated }, "deprecated")),
      },
      { key: "date", label: "date", fit: "short", value: (version) => version.date, cell: (version) => version.date },
      ...metrics,
      { key: "size", label: "size", num: true, value: (version) => version.size, cell: (version) => Holdfast.bytes(version.size) },
      ...(gate ? [{
        key: "gate", label: "gate", fit: "short", value: (version) => version.gate,
        cell: (version) => version.gate + (version.against ? ` against ${version.against}` : ""),
      }] : []),
      { key: "run", label: "run", value: (version) => version.run, cell: (version) => make("bdi", {}, version.run) },
    ];
    byId("versions-count").textContent = `${Holdfast.plural(model.versions.length, "version")}; a version’s name shows where it comes from`;
    Holdfast.table(byId("versions"), {
      columns, rows: model.versions, sort: chosen.versions, again: () => versions(model), caption: `Versions of ${model.id}`,
      dress: (line, version) => { if (version.name === chosen.lineage) line.classList.add("picked"); },
    });
  }

  const shape = (name, attributes, ...children) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  // Columns of boxes, each box joined to all of the next column's: data, run, metrics, version, labels.
  function graph(columns, title) {
    const width = 1000, gap = 46, box = (width - gap * (columns.length - 1)) / columns.length, high = 46, space = 10;
    const tall = Math.max(...columns.map((column) => column.length)) * (high + space) - space;
    const place = (column, row) => {
      const free = tall - (columns[column].length * (high + space) - space);
      return [column * (box + gap), free / 2 + row * (high + space)];
    };
    const svg = shape("svg", { viewBox: `-1 -1 ${width + 2} ${tall + 2}`, role: "img", "aria-label": title });
    columns.forEach((column, c) => column.forEach((_, r) => columns[c + 1]?.forEach((__, s) => {
      const [x, y] = place(c, r), [u, v] = place(c + 1, s), from = [x + box, y + high / 2], to = [u, v + high / 2];
      const middle = (from[0] + to[0]) / 2;
      svg.append(shape("path", { d: `M${from} C${middle},${from[1]} ${middle},${to[1]} ${to}` }));
    })));
    const cut = (text, most) => (text.length > most ? `…${text.slice(1 - most)}` : text);
    columns.forEach((column, c) => column.forEach((node, r) => {
      const [x, y] = place(c, r);
      svg.append(shape("g", { class: node.main ? "main" : "" }, shape("title", {}, [node.text, node.note].filter(Boolean).join("\n")),
        shape("rect", { x, y, width: box, height: high, rx: 7 }),
        shape("text", { x: x + 11, y: y + (node.note ? 20 : 27) }, cut(node.text, 21)),
        shape("text", { x: x + 11, y: y + 36, class: "small" }, cut(node.note ?? "", 24))));
    }));
    return make("div", { className: "graph", tabIndex: 0, role: "group", "aria-label": title }, svg);
  }

  function lineage(model, version, byHand) {
    chosen.lineage = version.name;
    const { data, stages, more } = version.lineage;
    const files = data.map(([path, oid, size]) => ({ text: path, note: [size === null ? "" : Holdfast.bytes(size), oid].filter(Boolean).join(" · ") }));
    if (more) files.push({ text: Holdfast.plural(more, "more file") });
    const metrics = model.metrics.filter((metric) => metric.name in version.metrics);
    const columns = [
      files.length ? files : [{ text: "data not recorded", note: "no dvc.lock names it" }],
      [{ text: version.run || stages.at(-1) || "run not recorded", note: stages.join(" → ") || (version.rev ? `at ${version.rev}` : "") }],
      metrics.length ? metrics.slice(0, METRICS_SHOWN).map((metric) => ({ text: metric.name, note: number(version.metrics[metric.name]) }))
        : [{ text: "no metrics" }],
      [{ text: `${model.id.split("/").at(-1)}@${version.name}`, note: version.gate ? `gate: ${version.gate}` : version.date, main: true }],
      version.labels.length ? version.labels.map((name) => ({ text: name, note: "on it now" })) : [{ text: "no label" }],
    ];
    const list = (values) => values.join(", ");
    const step = (name, ...text) => make("li", {}, make("strong", {}, `${name}: `), make("bdi", {}, ...text));
    const params = Object.entries(version.params).map(([name, value]) => `${name}=${number(value)}`);
    const steps = make("ol", { className: "steps" },
      step("Data", files.length ? list(files.map((file) => (file.note ? `${file.text} (${file.note})` : file.text))) : "not recorded"),
      step("Run", [version.run, stages.length ? `stages ${stages.join(" → ")}` : "", version.rev ? `trained at ${version.rev}` : ""].filter(Boolean).join("; ") || "not recorded"),
      step("Params", list(params) || "none recorded"),
      step("Metrics", list(metrics.map((metric) => `${metric.name} ${number(version.metrics[metric.name])}`)) || "none recorded"),
      step("Version", `${model.id}@${version.name} of ${version.date}, ${Holdfast.bytes(version.size)} at ${version.path}, md5 ${version.oid}, weights ${version.weights}`
        + (version.commit ? `, registered in ${version.commit}` : "") + (version.gate ? `; gate: ${version.gate}${version.against ? ` against ${version.against}` : ""}` : "")
        + (version.overridden ? `; registered although the gate refused it: ${version.overridden}` : "")
        + (version.deprecated === null ? "" : `; deprecated: ${version.deprecated}`)),
      step("Labels", list(version.labels) || "none now"));
    const panel = byId("lineage");
    const title = `Lineage of ${model.id}@${version.name}`;
    panel.replaceChildren(
      make("div", { className: "panel-head" }, make("h3", { tabIndex: -1 }, title), make("button", {
        type: "button",
        onclick: () => {
          chosen.lineage = null;
          panel.hidden = true;
          versions(model);
          [...byId("versions").querySelectorAll("button.name")].find((button) => button.textContent === version.name)?.focus();
        },
      }, "Close")), graph(columns, `${title}, as in the list below`), steps);
    panel.hidden = false;
    versions(model);
    if (byHand) {
      panel.scrollIntoView({ block: "nearest" });
      panel.querySelector("h3").focus({ preventScroll: true });
    }
  }

  Holdfast.buildModels = () => {
    const models = Holdfast.facts.models;
    if (!models?.length || !byId("versions")) return;
    const newest = (model) => model.versions.at(-1)?.date ?? "";
    const known = models.some((model) => model.id === chosen.model);
    if (!known) chosen.model = models.reduce((a, b) => (newest(b) > newest(a) ? b : a)).id;
    const select = byId("model");
    select.value = chosen.model;
    byId("model-bar").hidden = false;
    select.onchange = () => {
      Object.assign(chosen, { model: select.value, lineage: null, progress: null });
      byId("lineage").hidden = true;
      build();
      Holdfast.redraw("timeline");
      Holdfast.redraw("progress");
    };
    build();
  };

  function build() {
    const model = Holdfast.model();
    facts(model);
    spans(model);
    versions(model);
    const names = model.metrics.map((metric) => metric.name);
    chosen.progress = Holdfast.options(byId("progress-metric"), names, chosen.progress, (name) => { chosen.progress = name; Holdfast.redraw("progress"); });
    const version = model.versions.find((one) => one.name === chosen.lineage);
    if (version) lineage(model, version, false);
  }
})();
