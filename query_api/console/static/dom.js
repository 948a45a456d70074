// Builds elements. Text always becomes a text node, so nothing that an API answers can become markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function link(hash, text, attributes = {}) {
  return h("a", { href: hash, ...attributes }, text);
}

// A moment as the API gives it, without the letters. The full text is its title.
export function moment(text) {
  if (!text) return "–";
  return h("time", { datetime: text, title: text }, `${text.slice(0, 10)} ${text.slice(11, 19)} UTC`);
}

export function badge(text) {
  return h("span", { class: `badge badge-${text}` }, text);
}

// The first characters of an id, with the whole id as its title.
export function shortId(id, hash) {
  if (!id) return "outside world";
  return link(hash, id.length === 36 ? `${id.slice(0, 8)}…${id.slice(-4)}` : id, { title: id, class: "id" });
}

// `columns` are [heading, cell function, "number" or nothing]. The table scrolls by itself on a narrow screen.
export function table(caption, columns, rows, empty = "There is nothing here.") {
  if (rows.length === 0) return h("p", { class: "empty" }, `${caption}: ${empty}`);
  const head = h(
    "tr",
    {},
    columns.map(([heading, , kind]) => h("th", { scope: "col", class: kind }, heading)),
  );
  const body = rows.map((row) =>
    h(
      "tr",
      {},
      columns.map(([, cell, kind]) => h("td", { class: kind }, cell(row) ?? "–")),
    ),
  );
  return h(
    "div",
    { class: "scrolling", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption), h("thead", {}, head), h("tbody", {}, body)),
  );
}

// A list of names and values, for one thing.
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h(
    "dl",
    { class: "facts" },
    shown.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

export function json(value) {
  return h("pre", { tabindex: "0", "aria-label": "JSON" }, JSON.stringify(value, null, 2));
}

export function section(title, ...children) {
  return h("section", { "aria-label": title }, h("h2", {}, title), children);
}

export function button(text, onclick, attributes = {}) {
  return h("button", { type: "button", onclick, ...attributes }, text);
}

export function field(label, control, hint) {
  return h("label", { class: "field" }, h("span", {}, label), control, hint ? h("small", {}, hint) : null);
}

export function choice(name, options, value = "", attributes = {}) {
  const items = options.map(([key, text]) => h("option", { value: key, selected: key === value }, text));
  return h("select", { name, ...attributes }, items);
}

let announced;

// Says something to everybody, also to who only hears the page.
export function announce(text) {
  const status = document.getElementById("status");
  status.textContent = text;
  clearTimeout(announced);
  announced = setTimeout(() => {
    status.textContent = "";
  }, 6000);
}

export function copyButton(text, label = "Copy") {
  return button(label, async () => {
    try {
      await navigator.clipboard.writeText(text);
      announce("Copied.");
    } catch {
      announce("The browser does not let this page copy. Select the text instead.");
    }
  });
}
