// Read models: the generation, state and lag of each, why it is behind, what operators asked for, and the dead letters.

import { command, query } from "./api.js";
import { announce, badge, button, choice, field, h, link, moment, section, table } from "./dom.js";
import { asRequest } from "./lists.js";
import { plot } from "./plots.js";
import { problemBox } from "./problem.js";

const LOOK_SECONDS = 5;
const OPERATIONS_SHOWN = 10;

const KINDS = {
  rebuild: ["POST /v1/projections/{name}/rebuild", "Rebuild", "builds a new generation beside the live one, and switches to it"],
  rollback: ["POST /v1/projections/{name}/rollback", "Roll back", "makes the generation before live again"],
  pause: ["POST /v1/projections/{name}/pause", "Pause", "stops it until you resume it; readers see it as it stopped"],
  resume: ["POST /v1/projections/{name}/resume", "Resume", "lets it follow the log again"],
  retry: [
    "POST /v1/projections/{name}/dead-letters/retry",
    "Retry dead letters",
    "rebuilds it, and switches only if every event can be applied",
  ],
  skip: [
    "POST /v1/projections/{name}/dead-letters/{position}/skip",
    "Skip an event",
    "leaves the event out for ever, and rebuilds it without the event",
  ],
};

export async function readModels(page) {
  const place = h("div");
  const asked = h("div");
  const lag = plot("Largest lag in events", [], (value) => String(value), { live: true });
  const operates = page.can("GET /v1/operations");
  const look = async () => {
    const found = await query("/v1/projections", {}, page);
    const listed = operates ? await query("/v1/operations", { limit: OPERATIONS_SHOWN }, page) : null;
    place.replaceChildren(table(`Read models, with the log at position ${found.position}`, LISTED, found.items));
    if (listed) asked.replaceChildren(table("Operations, newest first", OPERATION_COLUMNS, listed.items));
    lag.add(Math.max(0, ...found.items.map((item) => item.lag_events ?? 0)));
  };
  await look();
  // Two requests at a time, so every ten seconds makes twelve in a minute.
  page.every(operates ? 2 * LOOK_SECONDS : LOOK_SECONDS, look);
  return [
    place,
    operates ? section("Operations", asked) : null,
    section("Lag", h("div", { class: "screen" }, lag.element)),
    asRequest("/v1/projections", {}, statusCommand(page)),
  ];
}

const statusCommand = (page) => `daybook projections status --ledger ${page.caller.ledger_id}`;

// One read model: its state, its dead letters, and the operations that the caller may ask for.
export async function showReadModel(page) {
  const name = page.id;
  const place = h("div");
  const letters = h("div");
  const operates = page.can("GET /v1/projections/{name}/dead-letters");
  let position = null;
  const look = async () => {
    const found = await query(`/v1/projections/${encodeURIComponent(name)}`, {}, page);
    place.replaceChildren(table(name, COLUMNS, [found]));
    if (!operates) return;
    const listed = await query(`/v1/projections/${encodeURIComponent(name)}/dead-letters`, {}, page);
    letters.replaceChildren(table("Events that could not be applied", letterColumns(page, (chosen) => position?.(chosen)), listed.items));
  };
  await look();
  page.every(2 * LOOK_SECONDS, look);
  const form = page.can(KINDS.rebuild[0]) ? operationForm(page, name, look) : null;
  position = form?.skip;
  return [
    place,
    operates ? section("Dead letters", letters) : null,
    form ? section("Operate", form.element) : null,
    h("p", {}, link("#/read-models", "All read models")),
    asRequest(`/v1/projections/${name}`, {}, statusCommand(page)),
  ];
}

// First a reason, then a confirmation that names the ledger and says what will happen.
function operationForm(page, name, look) {
  const options = Object.entries(KINDS).map(([kind, [, title]]) => [kind, title]);
  const kind = choice("kind", options, "rebuild");
  const reason = h("input", { name: "reason", required: true, maxlength: "140", autocomplete: "off" });
  const event = h("input", { name: "position", inputmode: "numeric", pattern: "[1-9][0-9]*", maxlength: "16", size: "8" });
  const outcome = h("div", { "aria-live": "polite" });
  const form = h(
    "form",
    { class: "form", "aria-label": `Operate ${name}` },
    field("What to do", kind),
    field("Position of the event to skip", event),
    field("Reason (no personal data: it is kept for ever)", reason),
    h("button", {}, "Continue"),
  );
  form.addEventListener("input", () => {
    event.setCustomValidity("");
    outcome.replaceChildren();
  });
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    const [operation, title, what] = KINDS[kind.value];
    event.setCustomValidity(kind.value === "skip" && !event.value ? "Name the event to skip." : "");
    if (!form.reportValidity()) return;
    const [method, template] = operation.split(" ");
    const path = template.replace("{name}", encodeURIComponent(name)).replace("{position}", event.value);
    const confirmed = button(
      `${title}: ${name} in ledger ${page.caller.ledger_id}`,
      async () => {
        confirmed.disabled = true;
        try {
          const begun = await command(method, path, { reason: reason.value.trim() });
          outcome.replaceChildren(watched(page, begun, look));
        } catch (error) {
          outcome.replaceChildren(problemBox(error));
        }
      },
      { class: "main" },
    );
    outcome.replaceChildren(h("div", { class: "result" }, h("p", {}, `This ${what}.`), confirmed));
  });
  const skip = (chosen) => {
    kind.value = "skip";
    event.value = String(chosen);
    reason.focus();
    announce(`Event ${chosen} is chosen. Give a reason.`);
  };
  return { element: h("div", {}, form, outcome), skip };
}

// Shows an operation until it has ended.
function watched(page, begun, look) {
  const shown = h("div", { class: "result" });
  let operation = begun;
  const show = () => shown.replaceChildren(table("The operation", OPERATION_COLUMNS, [operation]));
  show();
  if (operation.status !== "done")
    page.every(LOOK_SECONDS, async () => {
      if (operation.status === "done" || operation.status === "failed") return;
      operation = await query(`/v1/operations/${begun.id}`, {}, page);
      show();
    });
  look().catch(() => {});
  return shown;
}

const COLUMNS = [
  ["Generation", (row) => String(row.generation ?? "–"), "number"],
  ["State", (row) => badge(row.state)],
  ["Position", (row) => String(row.position), "number"],
  ["Lag in events", (row) => String(row.lag_events ?? "unknown"), "number"],
  ["Lag in seconds", (row) => String(row.lag_seconds ?? "unknown"), "number"],
  ["Dead letters", (row) => String(row.dead_letters), "number"],
  ["Parked streams", (row) => String(row.parked_streams), "number"],
  ["Why", (row) => h("span", { class: "wide" }, row.cause ?? "")],
];

const LISTED = [["Read model", (row) => link(`#/read-models/${row.name}`, row.name)], ...COLUMNS];

const letterColumns = (page, choose) => [
  [
    "Event",
    (row) =>
      page.can("GET /v1/events") ? link(`#/events/${row.event_position}`, String(row.event_position)) : String(row.event_position),
    "number",
  ],
  ["Type", (row) => row.type],
  ["Cause", (row) => h("span", { class: "wide" }, row.cause)],
  ["Attempts", (row) => String(row.attempts), "number"],
  ["Since", (row) => moment(row.since)],
  ["Skip", (row) => button(`Skip ${row.event_position} …`, () => choose(row.event_position))],
];

const OPERATION_COLUMNS = [
  ["Asked for", (row) => moment(row.requested_at)],
  ["Read model", (row) => link(`#/read-models/${row.projection}`, row.projection)],
  ["Operation", (row) => (row.event_position ? `${row.kind} ${row.event_position}` : row.kind)],
  ["Status", (row) => badge(row.status)],
  ["Progress", (row) => progress(row)],
  ["Reason", (row) => row.reason],
  ["By", (row) => row.requested_by],
  ["Outcome", (row) => h("span", { class: "wide" }, row.outcome ?? "")],
];

function progress(row) {
  if (row.status !== "running" || !row.events_total) return row.events_total ? `${row.events_done} events` : "–";
  return h(
    "progress",
    { value: row.events_done, max: row.events_total, "aria-label": `Progress of ${row.kind}` },
    `${row.events_done} of ${row.events_total}`,
  );
}
