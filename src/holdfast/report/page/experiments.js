"use strict";
// The table of experiments, and the filters that it shares with its charts.
(() => {
  const { byId, make, chosen, isNumber, number, columnFormat, compare } = Holdfast;
  const facts = () => Holdfast.facts.experiments;

  const value = (row, place) => row.cells[place];

  Holdfast.experimentColumns = () => facts().columns.map((column, place) => ({ ...column, place }));

  Holdfast.shownColumns = () => Holdfast.experimentColumns().filter((column) => chosen.columns.has(column.name));

  const numeric = (column) => facts().rows.some((row) => isNumber(value(row, column.place)));

  Holdfast.numericColumns = (columns) => columns.filter(numeric);

  // Whether a row passes all filters.
  Holdfast.passes = (row) => {
    const words = chosen.text.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) {
      const shown = Holdfast.shownColumns().map((column) => `${column.name}=${number(value(row, column.place))}`);
      const text = [row.name, row.commit, row.baseline, Holdfast.moment(row.date), ...shown].join(" ").toLowerCase();
      if (!words.every((word) => text.includes(word))) return false;
    }
    return Object.entries(chosen.ranges).every(([name, [least, most]]) => {
      const column = facts().columns.findIndex((one) => one.name === name);
      const found = value(row, column);
      return column < 0 || (isNumber(found) && (least === null || found >= least) && (most === null || found <= most));
    });
  };

  // Narrows a column, or frees it where both ends are null.
  Holdfast.setRange = (name, least, most) => {
    if (least === null && most === null) delete chosen.ranges[name];
    else chosen.ranges[name] = [least, most];
    show();
    ranges();
  };

  function menu() {
    const group = (kind, title) => {
      const boxes = Holdfast.experimentColumns().filter((column) => column.kind === kind).map((column) => make("label", {},
        make("input", {
          type: "checkbox", checked: chosen.columns.has(column.name),
          onchange: (event) => {
            if (event.target.checked) chosen.columns.add(column.name);
            else chosen.columns.delete(column.name);
            ranges();
            show();
          },
        }), make("bdi", {}, column.name)));
      return boxes.length ? make("fieldset", {}, make("legend", {}, title), ...boxes) : null;
    };
    byId("exp-columns").replaceChildren(...[group("metric", "Metrics"), group("param", "Params")].filter(Boolean));
  }

  function ranges() {
    const columns = Holdfast.numericColumns(Holdfast.shownColumns());
    const heads = ["", "at least", "at most"].map((text) => make("span", { className: "muted" }, text));
    byId("exp-ranges").replaceChildren(make("div", { className: "range", "aria-hidden": "true" }, ...heads), ...columns.map((column) => {
      const found = facts().rows.map((row) => value(row, column.place)).filter(isNumber);
      const ends = [Math.min(...found), Math.max(...found)];
      const box = (place, word) => make("input", {
        type: "number", step: "any", placeholder: number(ends[place]), value: chosen.ranges[column.name]?.[place] ?? "",
        "aria-label": `${word} ${column.name}`,
        onchange: (event) => {
          const ends = [...(chosen.ranges[column.name] ?? [null, null])];
          ends[place] = event.target.value === "" ? null : Number(event.target.value);
          if (ends[0] === null && ends[1] === null) delete chosen.ranges[column.name];
          else chosen.ranges[column.name] = ends;
          show();
        },
      });
      return make("div", { className: "range" }, make("span", {}, make("bdi", {}, column.name)), box(0, "Least"), box(1, "Most"));
    }));
  }

  function chips() {
    const items = Object.entries(chosen.ranges).map(([name, [least, most]]) => {
      const text = least === null ? `${name} ≤ ${number(most)}` : most === null ? `${name} ≥ ${number(least)}`
        : `${number(least)} ≤ ${name} ≤ ${number(most)}`;
      return make("li", {}, make("button", {
        type: "button", "aria-label": `Remove the filter ${text}`,
        onclick: () => { Holdfast.setRange(name, null, null); byId("exp-clear").focus(); },
      }, make("bdi", {}, text), " ×"));
    });
    byId("exp-chips").replaceChildren(...items);
  }

  function table(rows) {
    const bases = new Map(facts().rows.filter((row) => !row.baseline).map((row) => [row.commit, row]));
    const columns = [
      {
        key: "experiment", label: "experiment", value: (row) => row.name,
        cell: (row) => make("button", {
          type: "button", className: "name", "aria-pressed": chosen.picked.has(row.commit),
          title: "Mark it in the charts",
          onclick: (event) => {
            if (!chosen.picked.delete(row.commit)) chosen.picked.add(row.commit);
            const pressed = chosen.picked.has(row.commit);
            event.currentTarget.setAttribute("aria-pressed", pressed);
            event.currentTarget.closest("tr").classList.toggle("picked", pressed);
            Holdfast.filterCharts?.();
          },
        }, make("bdi", {}, row.name), row.baseline ? "" : make("span", { className: "muted" }, " baseline")),
      },
      ...Holdfast.shownColumns().map((column) => {
        const format = column.kind === "metric" ? columnFormat(facts().rows.map((row) => value(row, column.place))) : number;
        return {
          key: column.name, label: column.name, num: numeric(column), better: column.better,
          value: (row) => value(row, column.place),
          cell: (row) => {
            const found = value(row, column.place), base = bases.get(row.baseline);
            const delta = column.kind === "metric" && base
              ? Holdfast.delta(found, value(base, column.place), column.better, format) : null;
            if (delta) return make("span", {}, `${format(found)} `, delta);
            const empty = column.kind === "metric" && isNumber(found) ? make("span", { className: "delta" }) : null;
            return empty ? make("span", {}, `${format(found)} `, empty) : make("bdi", {}, format(found));
          },
        };
      }),
      { key: "date", label: "date (UTC)", fit: "short", value: (row) => row.date, cell: (row) => Holdfast.moment(row.date) },
      { key: "commit", label: "commit", value: (row) => row.commit, cell: (row) => make("code", {}, row.commit) },
    ];
    chosen.experiments ??= { column: null, down: false };
    Holdfast.table(byId("exp-table"), {
      columns, rows, sort: chosen.experiments, again: show, caption: "Experiments, their metrics against their baseline, their params",
      dress: (line, row) => {
        if (!row.baseline) line.classList.add("base");
        if (chosen.picked.has(row.commit)) line.classList.add("picked");
      },
    });
  }

  function show() {
    const rows = facts().rows.filter(Holdfast.passes);
    const all = facts().rows.filter((row) => row.baseline).length, left = rows.filter((row) => row.baseline).length;
    byId("exp-count").textContent = left === all ? Holdfast.plural(all, "experiment")
      : `${left.toLocaleString("en")} of ${Holdfast.plural(all, "experiment")}`;
    byId("exp-clear").disabled = !chosen.text && !Object.keys(chosen.ranges).length;
    chips();
    table(rows);
    Holdfast.filterCharts?.();
  }

  Holdfast.buildExperiments = () => {
    if (!facts()?.rows.length || !byId("exp-table")) return;
    const names = new Set(facts().columns.map((column) => column.name));
    chosen.columns ??= new Set(facts().columns.filter((column) => column.shown).map((column) => column.name));
    for (const name of Object.keys(chosen.ranges)) if (!names.has(name)) delete chosen.ranges[name];
    const text = byId("exp-text");
    text.value = chosen.text;
    text.oninput = () => { chosen.text = text.value; show(); };
    byId("exp-clear").onclick = () => {
      chosen.text = text.value = "";
      chosen.ranges = {};
      ranges();
      show();
      text.focus();
    };
    const numbers = Holdfast.numericColumns(Holdfast.experimentColumns());
    const metrics = numbers.filter((column) => column.kind === "metric");
    const params = numbers.filter((column) => column.kind === "param" && column.shown);
    const all = numbers.map((column) => column.name);
    chosen.x ??= (params[0] ?? metrics[1] ?? metrics[0])?.name;
    chosen.y ??= metrics[0]?.name ?? all[0];
    chosen.x = Holdfast.options(byId("scatter-x"), all, chosen.x, (name) => { chosen.x = name; Holdfast.redraw("scatter"); });
    chosen.y = Holdfast.options(byId("scatter-y"), all, chosen.y, (name) => { chosen.y = name; Holdfast.redraw("scatter"); });
    menu();
    ranges();
    show();
  };
})();
