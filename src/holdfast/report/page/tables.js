"use strict";
// Tables that sort by their headers.
(() => {
  const { make, compare } = Holdfast;

  // columns: {key, label, num, value(row), cell(row)}; sort: {column, down}, changed in place; rowOf may dress a row.
  Holdfast.table = (host, { columns, rows, sort, again, dress = () => {}, first = columns[0].key, caption }) => {
    const by = sort && sort.column ? columns.find((column) => column.key === sort.column) : null;
    const ordered = by ? rows.map((row, place) => [row, place]).sort(
      ([a, i], [b, j]) => compare(by.value(a), by.value(b), sort.down) || i - j,
    ).map(([row]) => row) : rows;
    const heads = columns.map((column) => {
      const way = by === column ? (sort.down ? "descending" : "ascending") : "none";
      const button = make("button", {
        type: "button",
        onclick: () => {
          // numbers are looked at from the largest, unless less is better
          const down = by === column ? !sort.down : Boolean(column.num && column.better !== "min");
          Object.assign(sort, { column: column.key, down });
          again();
          host.querySelector(`th[data-key="${CSS.escape(column.key)}"] button`)?.focus();
        },
      }, make("bdi", {}, column.label));
      return make("th", { scope: "col", className: column.num ? "num" : "", "aria-sort": way, "data-key": column.key }, button);
    });
    const body = ordered.map((row) => {
      const cells = columns.map((column) => {
        const content = column.cell(row);
        const inner = content instanceof Node ? content : document.createTextNode(content ?? "");
        return column.key === first
          ? make("th", { scope: "row", className: "cell" }, inner)
          : make("td", { className: column.num ? "num" : `cell ${column.fit ?? ""}` }, inner);
      });
      const line = make("tr", {}, ...cells);
      dress(line, row);
      return line;
    });
    const { scrollTop, scrollLeft } = host;
    host.replaceChildren(make("table", {}, make("caption", { className: "sr" }, caption),
      make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body)));
    host.scrollTo(scrollLeft, scrollTop);
  };

  Holdfast.plainTable = (heads, rows) => make("table", { className: "plain" },
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((cell) => make("td", {}, make("bdi", {}, cell)))))));

  // Fills a select and keeps what was chosen, as long as it is there.
  Holdfast.options = (select, values, chosen, onchange) => {
    if (!select) return null;
    const value = values.includes(chosen) ? chosen : values[0] ?? null;
    select.replaceChildren(...values.map((name) => make("option", { value: name, selected: name === value }, name)));
    select.onchange = () => onchange(select.value);
    return value;
  };
})();
