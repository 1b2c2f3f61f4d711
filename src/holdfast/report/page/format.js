"use strict";
// What all parts of the page share: the facts, what the reader has chosen, and how values read.
const Holdfast = {
  facts: {},
  chosen: {
    model: null, progress: null, lineage: null, versions: { column: "version", down: true },
    text: "", ranges: {}, columns: null, picked: new Set(), x: null, y: null, experiments: null,
    runs: { column: "run", down: false }, curve: null,
  },
};

(() => {
  const collator = new Intl.Collator("en", { numeric: true });
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];

  Holdfast.byId = (id) => document.getElementById(id);

  // An element with attributes and children; texts stay texts, whatever is in them.
  Holdfast.make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || (value === false && !key.startsWith("aria-"))) continue;
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else if (key in element && key !== "list") element[key] = value;
      else element.setAttribute(key, value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
  };

  Holdfast.bytes = (count) => {
    let size = count, unit = 0;
    while (Math.abs(size) >= 999.95 && unit < units.length - 1) { size /= 1000; unit += 1; }
    return unit ? `${size.toFixed(1)} ${units[unit]}` : `${count} B`;
  };

  Holdfast.plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

  Holdfast.moment = (text) => text.slice(0, 16).replace("T", " ");

  Holdfast.isNumber = (value) => typeof value === "number";

  // A number as short as it stays true to five digits.
  Holdfast.number = (value) => {
    if (!Holdfast.isNumber(value)) return value === null || value === undefined ? "" : String(value);
    if (Number.isInteger(value)) return Math.abs(value) < 1e5 ? String(value) : value.toLocaleString("en");
    const size = Math.abs(value);
    return size >= 1e-4 && size < 1e6 ? String(Number(value.toPrecision(5))) : value.toExponential(2);
  };

  // How a column of numbers reads: all with the same decimals where they are of one size.
  Holdfast.columnFormat = (values) => {
    const numbers = values.filter(Holdfast.isNumber);
    if (!numbers.length || numbers.every(Number.isInteger)) return Holdfast.number;
    const sizes = numbers.filter((value) => value !== 0).map(Math.abs);
    const least = Math.min(...sizes), most = Math.max(...sizes);
    if (least < 1e-3 || most >= 1e4) return Holdfast.number;
    const decimals = most >= 100 ? 2 : most >= 10 ? 3 : 4;
    return (value) => (Holdfast.isNumber(value) ? value.toFixed(decimals) : Holdfast.number(value));
  };

  // Numbers before texts, what is not there last, whichever way it is sorted.
  Holdfast.compare = (a, b, down) => {
    const none = (value) => value === null || value === undefined || value === "";
    if (none(a) || none(b)) return none(a) - none(b);
    const both = Holdfast.isNumber(a) && Holdfast.isNumber(b);
    const order = both ? a - b : collator.compare(String(a), String(b));
    return down ? -order : order;
  };

  Holdfast.isBetter = (difference, better) => (better === "max") === (difference > 0);

  // A difference to something: an arrow says which way, a colour and a word for readers whether that is good.
  Holdfast.delta = (value, other, better, format) => {
    if (!Holdfast.isNumber(value) || !Holdfast.isNumber(other)) return null;
    const difference = value - other;
    if (difference === 0) return Holdfast.make("span", { className: "delta same" }, "=");
    const good = Holdfast.isBetter(difference, better);
    const size = Math.abs(difference), shown = format(size);
    const text = Number(shown) === 0 ? Holdfast.number(size) : shown;
    return Holdfast.make(
      "span", { className: `delta ${good ? "better" : "worse"}`, title: good ? "better than its baseline" : "worse than its baseline" },
      `${difference > 0 ? "▲" : "▼"} ${text}`,
      Holdfast.make("span", { className: "sr" }, good ? " better" : " worse"),
    );
  };
})();
