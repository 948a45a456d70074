// Search: an id of anything, the position of an event, an e-mail address, a name, or the reference of a transfer.

import { query } from "./api.js";
import { announce } from "./dom.js";

const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const THINGS = [
  ["accounts", "GET /v1/accounts/{account_id}"],
  ["transfers", "GET /v1/transfers/{transfer_id}"],
  ["users", "GET /v1/users/{user_id}"],
  ["holds", "GET /v1/holds/{hold_id}"],
  ["schedules", "GET /v1/schedules/{schedule_id}"],
];

async function exists(path, parameters) {
  try {
    const found = await query(path, parameters);
    return found.items === undefined || found.items.length > 0;
  } catch {
    return false;
  }
}

// Opens the page of what was searched for.
export async function find(typed, can) {
  const text = typed.trim();
  if (!text) return;
  if (ID.test(text)) {
    const kinds = THINGS.filter(([, operation]) => can(operation));
    const found = await Promise.all(kinds.map(([name]) => exists(`/v1/${name}/${text}`)));
    const index = found.indexOf(true);
    if (index >= 0) location.hash = `#/${kinds[index][0]}/${text}`;
    else announce("There is nothing with this id that you may see.");
  } else if (/^[1-9][0-9]{0,15}$/.test(text) && can("GET /v1/events")) {
    location.hash = `#/events/${text}`;
  } else if (!can("GET /v1/users")) {
    announce("This credential cannot search for texts.");
  } else {
    const users = text.includes("@") ? { email: text } : { search: text };
    const [name, parameters] = (await exists("/v1/transfers", { reference: text, limit: 1 }))
      ? ["transfers", { reference: text }]
      : ["users", users];
    location.hash = `#/${name}?${new URLSearchParams(parameters)}`;
  }
}
