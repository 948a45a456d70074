// Verifications of the ledger: an operator asks for one, sees how far it is and what each check found, and can cancel it.

import { command, query } from "./api.js";
import { badge, button, facts, field, h, link, moment, section, table } from "./dom.js";
import { asRequest, listPage } from "./lists.js";
import { problemBox } from "./problem.js";

const START = "POST /v1/verifications";
const CANCEL = "POST /v1/verifications/{verification_id}/cancel";
const LOOK_SECONDS = 5;

export const verifications = listPage({
  path: "/v1/verifications",
  name: "verifications",
  caption: "Verifications, newest first",
  before: (page) => (page.can(START) ? startForm(page) : null),
  columns: () => [
    ["Verification", (row) => link(`#/verifications/${row.id}`, `${row.id.slice(0, 8)}…${row.id.slice(-4)}`, { class: "id" })],
    ["Asked for", (row) => moment(row.requested_at)],
    ["Status", (row) => badge(row.status)],
    ["Verdict", (row) => (row.verdict ? badge(row.verdict) : "–")],
    ["Step", (row) => row.step],
    ["Reason", (row) => row.reason],
    ["By", (row) => row.requested_by],
  ],
});

function startForm(page) {
  const reason = h("input", { name: "reason", required: true, maxlength: "140", autocomplete: "off" });
  const outcome = h("div", { "aria-live": "polite" });
  const form = h(
    "form",
    { class: "form", "aria-label": "Verify the ledger" },
    field("Reason (no personal data: it is kept for ever)", reason),
    h("button", {}, "Continue"),
  );
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    const confirmed = button(`Verify ledger ${page.caller.ledger_id}`, () => start(reason.value.trim(), confirmed, outcome), {
      class: "main",
    });
    const what =
      "The worker folds the whole log again and compares all that is derived from it. This can take minutes to hours. It has a " +
      "low priority, and you can cancel it.";
    outcome.replaceChildren(h("div", { class: "result" }, h("p", {}, what), confirmed));
  });
  form.addEventListener("input", () => outcome.replaceChildren());
  return section("Verify the ledger", form, outcome);
}

async function start(reason, confirmed, outcome) {
  confirmed.disabled = true;
  try {
    const [method, path] = START.split(" ");
    const begun = await command(method, path, { reason });
    location.hash = `#/verifications/${begun.id}`;
  } catch (error) {
    outcome.replaceChildren(problemBox(error));
  }
}

export async function showVerification(page) {
  const path = `/v1/verifications/${page.id}`;
  const place = h("div", { "aria-live": "polite" });
  const look = async () => {
    const found = await query(path, {}, page);
    place.replaceChildren(...shown(page, found, look));
    return found;
  };
  let last = await look();
  page.every(LOOK_SECONDS, async () => {
    if (isOpen(last)) last = await look();
  });
  return [place, h("p", {}, link("#/verifications", "All verifications")), asRequest(path, {}, cliOf(page))];
}

const cliOf = (page) => `daybook verify --ledger ${page.caller.ledger_id}`;

const isOpen = (found) => found.status === "waiting" || found.status === "running";

function shown(page, found, look) {
  return [
    facts([
      ["Verification", h("span", { class: "hash" }, found.id)],
      ["Status", badge(found.status)],
      ["Verdict", found.verdict ? badge(found.verdict) : null],
      ["Step", found.step],
      ["Progress", progress(found)],
      ["Why it failed", found.outcome],
      ["Reason", found.reason],
      ["Asked for", moment(found.requested_at)],
      ["By", found.requested_by],
      ["Changed", moment(found.changed_at)],
    ]),
    isOpen(found) && page.can(CANCEL) ? h("p", {}, cancelButton(page, look)) : null,
    table(
      "Checks that have ended",
      [
        ["Check", (row) => row.name],
        ["Verdict", (row) => badge(row.verdict)],
        ["What", (row) => h("span", { class: "wide" }, row.text)],
      ],
      found.checks,
    ),
  ].filter((part) => part !== null);
}

function cancelButton(page, look) {
  const asked = button(`Cancel the verification of ledger ${page.caller.ledger_id}`, async () => {
    asked.disabled = true;
    try {
      const [method, path] = CANCEL.split(" ");
      await command(method, path.replace("{verification_id}", page.id));
      await look();
    } catch (error) {
      asked.replaceWith(problemBox(error));
    }
  });
  return asked;
}

function progress(found) {
  if (found.status !== "running" || !found.events_total) return null;
  const attributes = { value: found.events_done, max: found.events_total, "aria-label": `Progress of ${found.step}` };
  return h("progress", attributes, `${found.events_done} of ${found.events_total}`);
}
