// Lists with filters and pages. The filters and the cursor are in the address, so that a link shows the same list.

import { address, query, urls } from "./api.js";
import { choice, copyButton, field, h, link, table } from "./dom.js";

export const PAGE_ITEMS = 25;

// A page that lists `path`. `filters` are [name, label, options or nothing]; `columns` as those of a table.
export function listPage({ path, name, caption, columns, filters = [], before }) {
  return async (page) => {
    const parameters = { limit: PAGE_ITEMS, ...Object.fromEntries(page.params) };
    const found = await query(path, parameters, page);
    return [
      before ? await before(page) : null,
      filters.length ? filterForm(name, filters, page.params) : null,
      table(caption, columns(page), found.items),
      pager(name, page.params, found.next),
      asRequest(path, parameters),
    ];
  };
}

export function filterForm(name, filters, params) {
  const controls = filters.map(([key, label, options]) => {
    const value = params.get(key) ?? "";
    return field(
      label,
      options
        ? choice(key, [["", "any"], ...options.map((each) => [each, each])], value)
        : h("input", { name: key, value, autocomplete: "off" }),
    );
  });
  const filter = (event) => {
    event.preventDefault();
    location.hash = address(`#/${name}`, Object.fromEntries(new FormData(event.target)));
  };
  return h(
    "form",
    { class: "filters", onsubmit: filter, "aria-label": "Filters" },
    controls,
    h("button", {}, "Filter"),
    link(`#/${name}`, "Clear"),
  );
}

export function pager(name, params, next) {
  const other = new URLSearchParams(params);
  other.delete("cursor");
  const first = params.get("cursor") ? link(`#/${name}?${other}`, "First page") : null;
  if (next) other.set("cursor", next);
  if (!first && !next) return null;
  return h(
    "nav",
    { class: "pager", "aria-label": "Pages of the list" },
    first,
    next ? link(`#/${name}?${other}`, "Next page", { rel: "next" }) : null,
  );
}

// The request that a page shows, to be sent from a shell or a program. The key is a variable, never the credential itself.
// `cli` is the `daybook` command that shows the same, if there is one.
export function asRequest(path, parameters = {}, cli = null) {
  const { limit, cursor, ...rest } = parameters;
  const url = urls.query + address(path, rest);
  const curl = `curl -s '${url.replaceAll("'", "'\\''")}' -H "Authorization: Bearer $DAYBOOK_API_KEY"`;
  const python = [
    "import os, httpx2",
    `answer = httpx2.get(${JSON.stringify(url)},`,
    '                    headers={"Authorization": f"Bearer {os.environ[\'DAYBOOK_API_KEY\']}"})',
    "print(answer.raise_for_status().json())",
  ].join("\n");
  return h(
    "details",
    {},
    h("summary", {}, "Copy this request"),
    h("p", {}, "curl ", copyButton(curl, "Copy as curl")),
    h("pre", { tabindex: "0", "aria-label": "curl" }, curl),
    h("p", {}, "Python ", copyButton(python, "Copy as Python")),
    h("pre", { tabindex: "0", "aria-label": "Python" }, python),
    cli ? h("p", {}, "CLI ", copyButton(cli, "Copy as CLI")) : null,
    cli ? h("pre", { tabindex: "0", "aria-label": "CLI" }, cli) : null,
  );
}
