// Read models: the generation, state and lag of each, why it is behind, and the lag as it goes on.

import { query } from "./api.js";
import { badge, h, section, table } from "./dom.js";
import { asRequest } from "./lists.js";
import { plot } from "./plots.js";

const LOOK_SECONDS = 5;

export async function readModels(page) {
  const place = h("div");
  const lag = plot("Largest lag in events", [], (value) => String(value), { live: true });
  const look = async () => {
    const found = await query("/v1/projections", {}, page);
    place.replaceChildren(table(`Read models, with the log at position ${found.position}`, COLUMNS, found.items));
    lag.add(Math.max(0, ...found.items.map((item) => item.lag_events ?? 0)));
  };
  await look();
  page.every(LOOK_SECONDS, look);
  return [
    place,
    section("Lag", h("div", { class: "screen" }, lag.element)),
    h(
      "p",
      { class: "note" },
      "To rebuild, pause, resume or roll back a read model, or to skip a dead letter, use daybook projections.",
    ),
    asRequest("/v1/projections"),
  ];
}

const COLUMNS = [
  ["Read model", (row) => row.name],
  ["Generation", (row) => String(row.generation ?? "–"), "number"],
  ["State", (row) => badge(row.state)],
  ["Position", (row) => String(row.position), "number"],
  ["Lag in events", (row) => String(row.lag_events ?? "unknown"), "number"],
  ["Lag in seconds", (row) => String(row.lag_seconds ?? "unknown"), "number"],
  ["Dead letters", (row) => String(row.dead_letters), "number"],
  ["Parked streams", (row) => String(row.parked_streams), "number"],
  ["Why", (row) => h("span", { class: "wide" }, row.cause ?? "")],
];
