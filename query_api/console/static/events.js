// Events: as they happen, from a position on, of one stream, and one event with its proof of inclusion.

import { answerOf, query } from "./api.js";
import { badge, button, facts, h, json, link, moment, section, table } from "./dom.js";
import { asRequest, filterForm, pager } from "./lists.js";
import { problemBox } from "./problem.js";
import { proofOf } from "./proof.js";

const SHOWN_MAX = 100;
const FILTERS = [
  ["after", "After position"],
  ["type", "Type"],
  ["stream", "Stream"],
];
const COLUMNS = [
  ["Position", (row) => link(`#/events/${row.position}`, String(row.position)), "number"],
  ["Type", (row) => row.type],
  ["Recorded", (row) => moment(row.recorded_at)],
  ["Command", (row) => row.metadata.command],
  ["Caller", (row) => row.metadata.principal],
];

export async function events(page) {
  if (page.params.has("after") || page.params.has("cursor")) return listed(page);
  const filter = { type: page.params.get("type") ?? "", stream: page.params.get("stream") ?? "" };
  const rows = [];
  const place = h("div");
  const state = h("p", { class: "note", role: "status" }, "Connecting…");
  const show = () => place.replaceChildren(table("Events, newest first", COLUMNS, rows, "No event yet."));
  show();
  const newest = (await query("/v1/projections", {}, page).catch(() => ({ position: 0 }))).position;
  const after = Math.max(0, newest - 25);
  follow(
    filter,
    after,
    page.signal,
    (event) => {
      rows.unshift(event);
      rows.length = Math.min(rows.length, SHOWN_MAX);
      show();
    },
    (text) => {
      state.textContent = text;
    },
  );
  return [
    filterForm("events", FILTERS, page.params),
    state,
    place,
    h("p", {}, link("#/events?after=0", "All events from the first")),
    asRequest("/v1/events/stream", filter),
  ];
}

async function listed(page) {
  const parameters = { limit: 50, ...Object.fromEntries(page.params) };
  const found = await query("/v1/events", parameters, page);
  return [
    filterForm("events", FILTERS, page.params),
    table("Events in the order of the log", COLUMNS, found.items),
    pager("events", page.params, found.next),
    h("p", {}, link("#/events", "As they happen")),
    asRequest("/v1/events", parameters),
  ];
}

export async function showStream(page) {
  const path = `/v1/streams/${encodeURIComponent(page.id)}`;
  const parameters = { limit: 50, ...Object.fromEntries(page.params) };
  const found = await query(path, parameters, page);
  const columns = [["Version", (row) => String(row.version), "number"], ...COLUMNS];
  return [
    h("p", { class: "hash" }, page.id),
    table("Events of this stream", columns, found.items),
    pager(`streams/${page.id}`, page.params, found.next),
    asRequest(path, parameters),
  ];
}

// ── the stream of events ─────────────────────────────────────────────────────────────────────────────────────────────

// Follows the log over server-sent events until `signal` ends it. EventSource could not send the credential in a header.
async function follow(filter, after, signal, take, say) {
  let last = after;
  for (let pause = 1000; !signal.aborted; pause = Math.min(pause * 2, 30_000)) {
    try {
      const answer = await answerOf("/v1/events/stream", { ...filter, after: last }, { signal, accept: "text/event-stream" });
      say("Live: new events appear here.");
      for await (const message of messages(answer.body)) {
        pause = 1000;
        if (message.id) last = Number(message.id);
        if (message.data) take(JSON.parse(message.data));
      }
    } catch (error) {
      if (signal.aborted) return;
      say(`Not connected: ${error.message}`);
      if (error.status && error.status < 500 && error.status !== 429) return;
    }
    await new Promise((resolve) => {
      setTimeout(resolve, pause);
    });
  }
}

async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let piece = await reader.read(); !piece.done; piece = await reader.read()) {
    const parts = (rest + piece.value).split("\n\n");
    rest = parts.pop();
    yield* parts.map((part) =>
      Object.fromEntries(
        part
          .split("\n")
          .filter((line) => line[0] !== ":")
          .map((line) => {
            const colon = line.indexOf(":");
            return [line.slice(0, colon), line.slice(colon + 1).trimStart()];
          }),
      ),
    );
  }
}

// ── one event ────────────────────────────────────────────────────────────────────────────────────────────────────────

const STREAMS = {
  account_id: "account",
  from_account_id: "account",
  to_account_id: "account",
  user_id: "user",
  owner_id: null,
  transfer_id: "transfer",
  hold_id: "hold",
  schedule_id: "schedule",
};

export async function showEvent(page) {
  const position = Number(page.id);
  const parameters = { after: position - 1, limit: 1 };
  const found = await query("/v1/events", parameters, page);
  const event = found.items[0];
  if (event?.position !== position) return h("p", {}, `There is no event ${page.id}. The log ends at ${found.position}.`);
  const streams = streamsOf(event);
  const models = page.can("GET /v1/projections") ? await query("/v1/projections", {}, page) : null;
  return [
    facts([
      ["Position", String(event.position)],
      ["Type", event.type],
      ["Schema version", String(event.schema_version)],
      ["Recorded", moment(event.recorded_at)],
      ["Event", h("span", { class: "hash" }, event.event_id)],
      ["Hash", h("span", { class: "hash" }, event.hash)],
    ]),
    h(
      "p",
      {},
      position > 1 ? link(`#/events/${position - 1}`, "Event before") : null,
      " · ",
      position < found.position ? link(`#/events/${position + 1}`, "Event after") : null,
    ),
    section("What caused it", json(event.metadata)),
    section("Data", json(event.data)),
    streams.length
      ? section(
          "Its streams",
          h(
            "ul",
            {},
            streams.map((stream) => h("li", {}, link(`#/streams/${stream}`, stream, { class: "hash" }))),
          ),
        )
      : null,
    models
      ? section(
          "Read models",
          table(
            "Which read models have it",
            [
              ["Read model", (row) => row.name],
              ["State", (row) => badge(row.state)],
              ["Has it", (row) => (row.position >= position ? "yes" : `not yet: it is at ${row.position}`)],
            ],
            models.items,
          ),
        )
      : null,
    event.data.transfer_id && page.can("GET /v1/transfers/{transfer_id}/receipt")
      ? section("Proof of inclusion", proof(page, event))
      : null,
    asRequest("/v1/events", parameters),
  ];
}

function streamsOf(event) {
  const named = Object.entries(event.data)
    .filter(([name, value]) => STREAMS[name] && typeof value === "string")
    .map(([name, value]) => `${STREAMS[name]}-${value}`);
  const posted = (event.data.postings ?? [])
    .filter((posting) => posting.account_id)
    .map((posting) => `account-${posting.account_id}`);
  return [...new Set([...named, ...posted])];
}

function proof(page, event) {
  const place = h("div", { "aria-live": "polite" });
  const key = h("input", {
    name: "public-key",
    autocomplete: "off",
    spellcheck: "false",
    placeholder: "base64, from daybook seal-key",
    "aria-label": "Public key of the seals",
  });
  const check = async () => {
    try {
      const receipt = await query(`/v1/transfers/${event.data.transfer_id}/receipt`, {}, page);
      const steps = await proofOf(receipt, event.hash, key.value.trim());
      place.replaceChildren(
        h(
          "ul",
          {},
          steps.map(([isTrue, text]) => h("li", { class: isTrue ? "good" : isTrue === null ? "note" : "bad" }, text)),
        ),
        json(receipt),
      );
    } catch (error) {
      place.replaceChildren(problemBox(error));
    }
  };
  const text =
    "This browser computes the hash of the event, the path to the root, and with the public key the signature of the seal.";
  return [h("p", { class: "note" }, text), h("div", { class: "row" }, key, button("Check the proof", check)), place];
}
