// Accounts: the list, and one account with its balance now and in the past, its entries, and the facts that explain it.

import { answerOf, money, query } from "./api.js";
import { badge, button, choice, facts, field, h, link, moment, section, shortId, table } from "./dom.js";
import { problemBox } from "./problem.js";
import { asRequest, listPage, pager } from "./lists.js";
import { linksOf } from "./forms.js";
import { plot } from "./plots.js";

const PAUSE_MS = 250;

export const accounts = listPage({
  path: "/v1/accounts",
  name: "accounts",
  caption: "Accounts",
  filters: [
    ["currency", "Currency"],
    ["status", "Status", ["open", "frozen", "closed"]],
    ["owner_id", "Owner"],
    ["sort", "Order", ["opened_at", "-opened_at", "posted", "-posted"]],
    ["at", "As of (position or moment)"],
  ],
  columns: () => [
    ["Account", (row) => shortId(row.id, `#/accounts/${row.id}`)],
    ["Owner", (row) => shortId(row.owner_id, `#/users/${row.owner_id}`)],
    ["Status", (row) => badge(row.status)],
    ["Posted", (row) => money(row.balance.posted, row.currency), "number"],
    ["Held", (row) => money(row.balance.held, row.currency), "number"],
    ["Available", (row) => money(row.balance.available, row.currency), "number"],
    ["Opened", (row) => moment(row.opened_at)],
  ],
});

export const ENTRY_COLUMNS = [
  ["Recorded", (row) => moment(row.recorded_at)],
  ["Kind", (row) => row.kind],
  ["Transfer", (row) => shortId(row.transfer_id, `#/transfers/${row.transfer_id}`)],
  ["With", (row) => shortId(row.counterparty_account_id, `#/accounts/${row.counterparty_account_id}`)],
  ["Reference", (row) => row.reference],
  ["Amount", (row) => money(row.amount, row.currency), "number"],
  ["Balance", (row) => money(row.balance, row.currency), "number"],
];

export async function showAccount(page) {
  const path = `/v1/accounts/${page.id}`;
  const cursor = page.params.get("cursor") ?? undefined;
  const [account, entries, last] = await Promise.all([
    query(path, {}, page),
    query(`${path}/entries`, { limit: 25, cursor }, page),
    query(`${path}/entries`, { limit: 100 }, page),
  ]);
  const { currency, balance } = account;
  const points = last.items.toReversed().map((entry) => [Date.parse(entry.recorded_at), entry.balance]);
  if (points.length) points.push([Math.max(Date.now(), points.at(-1)[0] + 1), balance.posted]);
  return [
    facts([
      ["Account", h("span", { class: "hash" }, account.id)],
      ["Owner", shortId(account.owner_id, `#/users/${account.owner_id}`)],
      ["Status", badge(account.status)],
      ["Posted", money(balance.posted, currency)],
      ["Held", money(balance.held, currency)],
      ["Available", money(balance.available, currency)],
      ["Overdraft limit", money(account.overdraft_limit, currency)],
      ["Opened", moment(account.opened_at)],
      ["Version", String(account.version)],
      ["As of position", String(account.position)],
      ...Object.entries(account.metadata ?? {}),
    ]),
    h(
      "p",
      { class: "screen" },
      linksOf(page, { account_id: account.id, from_account_id: account.id, currency }),
      page.can("GET /v1/streams/{stream}") ? link(`#/streams/account-${account.id}`, "Its events") : null,
    ),
    points.length
      ? section(
          "Balance over time",
          plot("Balance", points, (value) => money(Math.round(value), currency), { steps: true }).element,
        )
      : null,
    section("Balance in the past", timeSlider(page, account)),
    section(
      "Entries",
      table("Entries, newest first", ENTRY_COLUMNS, entries.items),
      pager(`accounts/${page.id}`, page.params, entries.next),
    ),
    section(
      "Holds and schedules",
      h(
        "p",
        {},
        link(`#/holds?account_id=${page.id}`, "Holds on this account"),
        " · ",
        link(`#/schedules?account_id=${page.id}`, "Schedules from this account"),
      ),
    ),
    section("Statement", statement(page)),
    section(
      "Explanation",
      later("Explain the balance", () => explanation(page, currency)),
    ),
    section(
      "Limits",
      later("Show limits", () => limits(page, currency)),
    ),
    asRequest(path, {}, `daybook explain ${page.id} --ledger ${page.caller.ledger_id}`),
  ];
}

// A part of a page that is asked for only when somebody wants it.
function later(text, ask) {
  const place = h("div");
  const fill = async () => {
    try {
      place.replaceChildren(...[await ask()].flat());
    } catch (error) {
      place.replaceChildren(problemBox(error));
    }
  };
  return [button(text, fill), place];
}

function timeSlider(page, account) {
  const [first, now] = [Date.parse(account.opened_at), Date.now()];
  const shown = h("output", { "aria-live": "polite" }, "Move the slider to see the balance as of a moment.");
  const slider = h("input", { type: "range", min: String(first), max: String(now), step: "1", "aria-label": "Moment" });
  slider.value = String(now);
  const axis = choice(
    "axis",
    [
      ["recorded_at", "when it was recorded"],
      ["occurred_at", "when it occurred"],
    ],
    "recorded_at",
  );
  let waiting;
  const look = () => {
    const at = new Date(Number(slider.value)).toISOString();
    slider.setAttribute("aria-valuetext", `${at.slice(0, 10)} ${at.slice(11, 19)} UTC`);
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      try {
        const found = await query(`/v1/accounts/${account.id}/balance`, { at, axis: axis.value }, page);
        shown.replaceChildren(money(found.posted, account.currency), " as of ", moment(at));
      } catch (error) {
        if (!page.signal.aborted) shown.replaceChildren(problemBox(error));
      }
    }, PAUSE_MS);
  };
  slider.addEventListener("input", look);
  axis.addEventListener("change", look);
  return h("div", { class: "form" }, slider, field("By the time", axis), shown);
}

async function explanation(page, currency) {
  const found = await query(`/v1/accounts/${page.id}/explain`, { limit: 100 }, page);
  const verdict = found.adds_up
    ? "The facts add up to the balance"
    : "The facts do not add up to the balance: run daybook verify";
  return [
    h(
      "p",
      { class: found.adds_up ? "good" : "bad" },
      `${verdict}, ${money(found.balance, currency)}, as of position ${found.position}.`,
    ),
    table(
      found.next ? "The newest 100 facts" : "All facts",
      [
        [
          "Position",
          (row) => (page.can("GET /v1/events") ? link(`#/events/${row.position}`, String(row.position)) : String(row.position)),
          "number",
        ],
        ["Type", (row) => row.type],
        ["Transfer", (row) => shortId(row.transfer_id, `#/transfers/${row.transfer_id}`)],
        ["Amount", (row) => money(row.amount, currency), "number"],
        ["Balance", (row) => money(row.balance, currency), "number"],
      ],
      found.facts,
    ),
  ];
}

async function limits(page, currency) {
  const found = await query(`/v1/accounts/${page.id}/limits`, {}, page);
  const period = (limit) =>
    limit && `${money(limit.used, currency)} of ${money(limit.limit, currency)} used until ${limit.resets_at.slice(0, 16)}`;
  return facts([
    ["Overdraft limit", money(found.overdraft_limit, currency)],
    ["Smallest amount", found.per_transfer_min && money(found.per_transfer_min, currency)],
    ["Largest amount", found.per_transfer_max && money(found.per_transfer_max, currency)],
    ["In a day", period(found.per_day)],
    ["In a month", period(found.per_month)],
    ["As of position", String(found.position)],
  ]);
}

function statement(page) {
  const path = `/v1/accounts/${page.id}/statement`;
  const place = h("div");
  const form = h(
    "form",
    { class: "row", "aria-label": "Period" },
    field("From", h("input", { type: "date", name: "from" })),
    field("To, without this day", h("input", { type: "date", name: "to" })),
  );
  const period = () =>
    Object.fromEntries([...new FormData(form)].filter(([, day]) => day).map(([name, day]) => [name, `${day}T00:00:00Z`]));
  const asking = (ask) => async () => {
    try {
      await ask();
    } catch (error) {
      place.replaceChildren(problemBox(error));
    }
  };
  const show = asking(async () => {
    const found = await query(path, period(), page);
    place.replaceChildren(
      facts([
        ["From", moment(found.from)],
        ["To", moment(found.to)],
        ["Opening balance", money(found.opening_balance, found.currency)],
        ["Closing balance", money(found.closing_balance, found.currency)],
      ]),
      table("Statement", ENTRY_COLUMNS, found.lines),
      button("Print this page", () => window.print()),
    );
  });
  const save = (accept, ending) =>
    asking(async () => {
      const answer = await answerOf(path, period(), { signal: page.signal, accept });
      const url = URL.createObjectURL(await answer.blob());
      h("a", { href: url, download: `statement-${page.id}.${ending}` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
    });
  form.append(
    button("Show", show),
    button("Save as CSV", save("text/csv", "csv")),
    button("Save as camt.053", save("application/xml", "xml")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });
  return [form, place];
}
