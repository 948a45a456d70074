// The overview: is money conserved, how many transfers are made, how far are the read models behind.

import { money, query } from "./api.js";
import { badge, facts, h, link, section, shortId, table } from "./dom.js";
import { asRequest } from "./lists.js";
import { plot } from "./plots.js";

const LOOK_SECONDS = 10;

export async function overview(page) {
  const conserved = h("div");
  const activity = h("div");
  const models = h("div");
  const rate = plot("Transfers per second", [], (value) => String(value), { live: true });
  const lag = plot("Largest lag in events", [], (value) => String(value), { live: true });
  let before = null;
  const look = async () => {
    const [stats, trial, projections] = await Promise.all([
      query("/v1/stats", {}, page),
      query("/v1/trial-balance", {}, page),
      query("/v1/projections", {}, page),
    ]);
    conserved.replaceChildren(conservation(trial));
    activity.replaceChildren(...counts(stats));
    models.replaceChildren(standOf(projections));
    const now = performance.now();
    const made = stats.days.reduce((sum, day) => sum + day.transfers, 0);
    if (before) rate.add(Math.max(0, Math.round(((made - before.made) * 10_000) / (now - before.at)) / 10));
    before = { made, at: now };
    lag.add(Math.max(0, ...projections.items.map((item) => item.lag_events ?? 0)));
  };
  await look();
  page.every(LOOK_SECONDS, look);
  return [
    section("Money", conserved, asRequest("/v1/trial-balance")),
    section(
      "Now",
      h("p", { class: "note" }, `One value every ${LOOK_SECONDS} seconds, while you look.`),
      h("div", { class: "screen" }, rate.element, lag.element),
    ),
    section("Read models", models),
    section("Activity", activity),
  ];
}

function conservation(trial) {
  const wrong = trial.currencies.filter((currency) => currency.sum !== "0");
  const verdict = wrong.length
    ? h(
        "p",
        { class: "bad" },
        `Money is missing or too much in ${wrong.map((each) => each.currency).join(", ")}: run daybook verify.`,
      )
    : h("p", { class: "good" }, `Money is conserved: every sum is zero, as of position ${trial.position}.`);
  return h(
    "div",
    {},
    verdict,
    table(
      "Trial balance",
      [
        ["Currency", (row) => row.currency],
        ["All accounts", (row) => money(row.accounts, row.currency), "number"],
        ["Outside world", (row) => money(row.outside, row.currency), "number"],
        ["Sum", (row) => money(row.sum, row.currency), "number"],
      ],
      trial.currencies,
    ),
  );
}

function standOf(projections) {
  const states = [...new Set(projections.items.map((item) => item.state))];
  const letters = projections.items.reduce((sum, item) => sum + item.dead_letters, 0);
  return facts([
    [
      "States",
      h(
        "span",
        {},
        states.flatMap((state) => [badge(state), " "]),
      ),
    ],
    ["End of the log", String(projections.position)],
    ["Dead letters", h("span", { class: letters ? "bad" : "good" }, String(letters))],
    ["All of them", link("#/read-models", "Read models")],
  ]);
}

function counts(stats) {
  const accounts = (row) => `${row.accounts.open} open, ${row.accounts.frozen} frozen, ${row.accounts.closed} closed`;
  return [
    facts([["Users", `${stats.users.active} active, ${stats.users.inactive} inactive, ${stats.users.erased} erased`]]),
    table(
      "Accounts by currency",
      [
        ["Currency", (row) => row.currency],
        ["Accounts", accounts],
      ],
      stats.currencies,
    ),
    table(
      "Transfers by day",
      [
        ["Day", (row) => row.day],
        ["Transfers", (row) => String(row.transfers), "number"],
        [
          "Moved",
          (row) =>
            Object.entries(row.amounts)
              .map(([currency, amount]) => money(amount, currency))
              .join(", "),
        ],
      ],
      stats.days.slice(0, 7),
    ),
    table(
      "Busiest accounts",
      [
        ["Account", (row) => shortId(row.account_id, `#/accounts/${row.account_id}`)],
        ["Transfers", (row) => String(row.transfers), "number"],
      ],
      stats.busiest.slice(0, 5),
    ),
  ];
}
