// The frame of the console: the session, the pages that the caller may see, their addresses, and the keyboard.

import { begin, current, forget, loadCurrencies, query } from "./api.js";
import { announce, button, h, link } from "./dom.js";
import { find } from "./find.js";
import { loginPage, logOut } from "./login.js";
import { PAGES, homeOf } from "./pages.js";
import { problemBox } from "./problem.js";
import { admits } from "./rules.js";

const main = document.getElementById("main");
const environment = document.querySelector('meta[name="environment"]').content;
const THEME = "daybook-theme";
const wantsDark = matchMedia("(prefers-color-scheme: dark)");
let caller = null;
let leaving = new AbortController();
let awaiting = false;

const can = (operation) => admits(operation, caller);
const visible = () => PAGES.filter((page) => page.needs.some(can));

// ── addresses: #/accounts/ID?name=value ──────────────────────────────────────────────────────────────────────────────

function place() {
  const [path, parameters = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  return { name, id: decodeURIComponent(rest.join("/")), params: new URLSearchParams(parameters) };
}

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  if (!caller) return;
  const { name, id, params } = place();
  const page = visible().find((each) => each.name === name);
  if (!page) {
    location.replace(`#/${homeOf(visible()).name}`);
    return;
  }
  document.title = `${page.title} – Daybook console`;
  showNavigation(page);
  const heading = h("h1", { tabindex: "-1" }, id ? (page.one ?? page.title) : page.title);
  const content = h("div", { class: "content", "aria-busy": "true" });
  main.replaceChildren(heading, content);
  heading.focus({ preventScroll: true });
  window.scrollTo(0, 0);
  try {
    const shown = await (id ? page.showOne : page.show)({
      id,
      params,
      signal,
      caller,
      can,
      every: (seconds, ask) => every(seconds, ask, signal),
    });
    if (!signal.aborted) content.replaceChildren(...[shown].flat(2).filter(Boolean));
  } catch (error) {
    if (signal.aborted) return;
    content.replaceChildren(problemBox(error), button("Try again", show));
  }
  if (!signal.aborted) content.removeAttribute("aria-busy");
}

// Asks again and again while the page is shown, and seen. `ask` may fail: the next time may not.
function every(seconds, ask, signal) {
  const timer = setInterval(async () => {
    if (document.hidden) return;
    try {
      await ask();
    } catch (error) {
      if (!signal.aborted) announce(`This page is not up to date: ${error.message}`);
    }
  }, seconds * 1000);
  signal.addEventListener("abort", () => clearInterval(timer));
}

// ── the frame ────────────────────────────────────────────────────────────────────────────────────────────────────────

function showNavigation(shown) {
  const items = visible()
    .filter((page) => !page.isHidden)
    .map((page) =>
      h(
        "li",
        {},
        link(`#/${page.name}`, page.title, {
          "aria-current": page === shown ? "page" : null,
          "aria-keyshortcuts": `g ${page.key}`,
        }),
      ),
    );
  document.getElementById("pages").replaceChildren(h("ul", {}, items));
}

function showTop() {
  const search = h("input", {
    id: "search",
    type: "search",
    name: "q",
    "aria-label": "Search",
    placeholder: "Search: id, position, e-mail, name, reference",
    "aria-keyshortcuts": "/",
    maxlength: "140",
  });
  const form = h(
    "form",
    {
      role: "search",
      onsubmit: (event) => {
        event.preventDefault();
        find(search.value, can);
      },
    },
    search,
    h("button", {}, "Search"),
  );
  const who = caller.user_id ? `customer ${caller.user_id.slice(0, 8)}…` : caller.principal;
  document.getElementById("top").replaceChildren(
    h("a", { class: "name", href: "#/" }, "Daybook"),
    h("span", { class: `badge badge-${environment}`, title: "The environment" }, environment),
    form,
    caller.all_ledgers ? ledgerForm() : h("span", {}, `ledger ${caller.ledger_id}`),
    h("span", { title: caller.scopes.join(" ") }, who),
    button("Theme", changeTheme, { "aria-label": "Change between light and dark" }),
    button("Keys", showKeys, { "aria-keyshortcuts": "?" }),
    button("Log out", async () => {
      await logOut(caller);
      start();
    }),
  );
}

function ledgerForm() {
  const name = h("input", { name: "ledger", "aria-label": "Ledger", value: caller.ledger_id, size: "8", maxlength: "31" });
  return h(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        begin({ ...current(), ledger: name.value });
        start();
      },
    },
    name,
    h("button", {}, "Open ledger"),
  );
}

function showTheme() {
  document.documentElement.dataset.theme = localStorage.getItem(THEME) ?? (wantsDark.matches ? "dark" : "light");
}

function changeTheme() {
  localStorage.setItem(THEME, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  showTheme();
}

// ── the keyboard ─────────────────────────────────────────────────────────────────────────────────────────────────────

function showKeys() {
  const keys = [
    ["/", "Search"],
    ["?", "Show these keys"],
    ...visible()
      .filter((page) => page.key)
      .map((page) => [`g ${page.key}`, page.title]),
  ];
  const dialog = document.getElementById("keys");
  dialog.replaceChildren(
    h("h2", { id: "keys-title" }, "Keys"),
    h(
      "dl",
      { class: "facts" },
      keys.map(([key, text]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, text))),
    ),
    button("Close", () => dialog.close()),
  );
  dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (!caller || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const page = awaiting && visible().find((each) => each.key === event.key);
  awaiting = event.key === "g" && !awaiting;
  if (page) location.hash = `#/${page.name}`;
  else if (event.key === "/") document.getElementById("search").focus();
  else if (event.key === "?") showKeys();
  else return;
  event.preventDefault();
});

// ── start ────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function start(reason) {
  caller = null;
  leaving.abort();
  document.getElementById("pages").replaceChildren();
  document
    .getElementById("top")
    .replaceChildren(h("span", { class: "name" }, "Daybook"), h("span", { class: `badge badge-${environment}` }, environment));
  if (!current()) {
    document.title = "Log in – Daybook console";
    main.replaceChildren(loginPage(start, reason));
    return;
  }
  try {
    const found = await query("/v1/caller");
    if (admits("GET /v1/accounts", found)) await loadCurrencies();
    caller = found;
  } catch (error) {
    if (current())
      main.replaceChildren(
        h("h1", {}, "The console cannot start"),
        problemBox(error),
        button("Try again", () => start()),
        button("Log out", () => {
          forget();
          start();
        }),
      );
    return;
  }
  showTop();
  await show();
}

document.addEventListener("session-ended", () => {
  if (!current()) return;
  forget();
  start("The credential is not valid, or its session has ended. Log in again.");
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
window.addEventListener("hashchange", show);
wantsDark.addEventListener("change", showTheme);
showTheme();
start();
