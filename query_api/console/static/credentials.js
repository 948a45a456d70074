// Credentials: API keys, which an operator revokes and rotates, and the sessions of a user, which end one by one.

import { command } from "./api.js";
import { badge, button, choice, copyButton, field, h, link, moment, section, table } from "./dom.js";
import { listPage } from "./lists.js";
import { problemBox } from "./problem.js";

const REVOKE = "POST /v1/keys/{key_id}/revoke";
const ROTATE = "POST /v1/keys/{key_id}/rotate";
const OVERLAPS = [
  ["0", "no time: it ends now"],
  ["3600", "an hour"],
  ["86400", "a day"],
  ["604800", "a week"],
];

// Where the page asks for a confirmation, and shows what came of it.
let place;

export const apiKeys = listPage({
  path: "/v1/keys",
  name: "keys",
  caption: "API keys, newest first",
  before: () => {
    place = h("div", { "aria-live": "polite" });
    return place;
  },
  columns: (page) => [
    ["Key", (row) => row.id],
    ["Holder", (row) => row.principal],
    [
      "Customer",
      (row) => (row.user_id && page.can("GET /v1/users/{user_id}") ? link(`#/users/${row.user_id}`, row.user_id) : row.user_id),
    ],
    ["Scopes", (row) => row.scopes.join(" ")],
    ["Status", (row) => badge(row.status)],
    ["Last used", (row) => (row.last_used_at ? moment(row.last_used_at) : "never")],
    ["Expires", (row) => (row.expires_at ? moment(row.expires_at) : "never")],
    ["Made", (row) => moment(row.created_at)],
    ["Made with", (row) => row.origin_key_id ?? "a shell"],
    ...(page.can(REVOKE) ? [["Change", (row) => actionsOf(page, row)]] : []),
  ],
});

// Nobody may change a key with a scope that the own key lacks.
function actionsOf(page, row) {
  if (row.status !== "valid" || !row.scopes.every((scope) => page.caller.scopes.includes(scope))) return null;
  return [
    button(`Rotate ${row.id} …`, () => askToRotate(page, row)),
    button(`Revoke ${row.id} …`, () => askToRevoke(page, row)),
  ];
}

function askToRevoke(page, row) {
  const what =
    `Key ${row.id} of ${row.principal} ends within 5 seconds, and so do the keys that were made with it, and the passwords and ` +
    "sessions that come from it. This cannot be undone.";
  ask([h("p", {}, what)], `Revoke: ${row.id} in ledger ${page.caller.ledger_id}`, async () => {
    const ended = await send(REVOKE, row);
    return h("p", {}, `Revoked: ${ended.revoked_key_ids.join(", ") || "it had ended before"}.`);
  });
}

function askToRotate(page, row) {
  const overlap = choice("overlap", OVERLAPS, "86400");
  const what = `${row.principal} gets a new key with the same scopes. It ends with your own key at the latest, and is revoked with it.`;
  const asked = [h("p", {}, what), field(`Key ${row.id} stays valid for`, overlap)];
  ask(asked, `Rotate: ${row.id} in ledger ${page.caller.ledger_id}`, async () => {
    const made = await send(ROTATE, row, { overlap_seconds: Number(overlap.value) });
    const token = h("input", { value: made.token, readonly: true, size: "60" });
    return [
      field("The new key. It is shown only here: give it to its holder", token),
      h("p", {}, copyButton(made.token, "Copy the key"), " Key ", made.old_key_id, " ends ", moment(made.old_expires_at), "."),
    ];
  });
}

function send(operation, row, body) {
  const [method, path] = operation.split(" ");
  return command(method, path.replace("{key_id}", row.id), body);
}

// Shows a question with a button. `work` does it, and returns what to show then.
function ask(question, title, work) {
  const confirmed = button(
    title,
    async () => {
      confirmed.disabled = true;
      try {
        const again = button("Show the list again", () => dispatchEvent(new HashChangeEvent("hashchange")));
        place.replaceChildren(h("div", { class: "result" }, await work(), h("p", {}, again)));
      } catch (error) {
        place.replaceChildren(problemBox(error));
      }
    },
    { class: "main" },
  );
  place.replaceChildren(h("div", { class: "result" }, question, confirmed));
  confirmed.focus();
}

// ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// The sessions of a user. They are asked for only when somebody wants to see them: the command API has them.
export function sessionsOf(page) {
  if (!page.can("GET /v1/users/{user_id}/sessions")) return null;
  const shown = h("div", { "aria-live": "polite" });
  const path = `/v1/users/${page.id}/sessions`;
  const show = async () => {
    try {
      const found = await command("GET", path, undefined, page);
      shown.replaceChildren(table("Sessions that have not ended", sessionColumns(page, path, show), found.items));
    } catch (error) {
      shown.replaceChildren(problemBox(error));
    }
  };
  return section("Sessions", button("Show sessions", show), shown);
}

function sessionColumns(page, path, show) {
  const end = async (row, asked) => {
    if (!asked.dataset.asked) {
      asked.dataset.asked = "yes";
      asked.textContent = `End it in ledger ${page.caller.ledger_id}`;
      return;
    }
    asked.disabled = true;
    await command("DELETE", `${path}/${row.id}`, undefined, page);
    await show();
  };
  return [
    ["Begun", (row) => moment(row.created_at)],
    ["Last used", (row) => moment(row.used_at)],
    ["Ends", (row) => moment(row.expires_at)],
    ["Network", (row) => row.network],
    ["Password from key", (row) => row.origin_key_id],
    ...(page.can("DELETE /v1/users/{user_id}/sessions/{session_id}")
      ? [["End", (row) => button("End …", (event) => end(row, event.currentTarget))]]
      : []),
  ];
}
