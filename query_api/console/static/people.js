// Users, and what is planned with their money: holds and schedules.

import { money, query, urls } from "./api.js";
import { sessionsOf } from "./credentials.js";
import { badge, facts, h, json, link, moment, section, shortId, table } from "./dom.js";
import { asRequest, listPage } from "./lists.js";
import { linksOf } from "./forms.js";

export const users = listPage({
  path: "/v1/users",
  name: "users",
  caption: "Users",
  filters: [
    ["search", "Name"],
    ["email", "E-mail address"],
    ["status", "Status", ["active", "inactive", "erased"]],
    ["sort", "Order", ["created_at", "-created_at", "name", "-name"]],
  ],
  columns: () => [
    ["User", (row) => shortId(row.id, `#/users/${row.id}`)],
    ["Name", (row) => row.name],
    ["E-mail address", (row) => row.email],
    ["Status", (row) => badge(row.status)],
    ["Created", (row) => moment(row.created_at)],
  ],
});

export async function showUser(page) {
  const path = `/v1/users/${page.id}`;
  const [user, owned] = await Promise.all([
    query(path, {}, page),
    query("/v1/accounts", { owner_id: page.id, limit: 100 }, page),
  ]);
  return [
    facts([
      ["User", h("span", { class: "hash" }, user.id)],
      ["Name", user.name],
      ["E-mail address", user.email],
      ["Status", badge(user.status)],
      ["Created", moment(user.created_at)],
      ["Changed", moment(user.changed_at)],
      ["Version", String(user.version)],
      ["As of position", String(user.position)],
      ...Object.entries(user.metadata ?? {}),
    ]),
    h(
      "p",
      {},
      linksOf(page, { user_id: user.id, owner_id: user.id }),
      page.can("GET /v1/streams/{stream}") ? link(`#/streams/user-${user.id}`, "Its events") : null,
    ),
    section(
      "Accounts",
      table(
        "Accounts of this user",
        [
          ["Account", (row) => shortId(row.id, `#/accounts/${row.id}`)],
          ["Status", (row) => badge(row.status)],
          ["Posted", (row) => money(row.balance.posted, row.currency), "number"],
          ["Available", (row) => money(row.balance.available, row.currency), "number"],
        ],
        owned.items,
      ),
    ),
    sessionsOf(page),
    asRequest(path, {}, `daybook users show ${page.id}`),
  ];
}

// ── holds ────────────────────────────────────────────────────────────────────────────────────────────────────────────

export const holds = listPage({
  path: "/v1/holds",
  name: "holds",
  caption: "Holds, newest first",
  filters: [
    ["status", "Status", ["active", "captured", "released", "expired"]],
    ["account_id", "Account"],
    ["reference", "Reference"],
  ],
  columns: () => [
    ["Hold", (row) => shortId(row.id, `#/holds/${row.id}`)],
    ["Account", (row) => shortId(row.account_id, `#/accounts/${row.account_id}`)],
    ["Status", (row) => badge(row.status)],
    ["Amount", (row) => money(row.amount, row.currency), "number"],
    ["Remaining", (row) => money(row.remaining, row.currency), "number"],
    ["Expires", (row) => moment(row.expires_at)],
    ["Reference", (row) => row.reference],
  ],
});

export async function showHold(page) {
  const path = `/v1/holds/${page.id}`;
  const hold = await query(path, {}, page);
  const isActive = hold.status === "active";
  return [
    facts([
      ["Hold", h("span", { class: "hash" }, hold.id)],
      ["Status", badge(hold.status)],
      ["Account", shortId(hold.account_id, `#/accounts/${hold.account_id}`)],
      ["To", shortId(hold.to_account_id, `#/accounts/${hold.to_account_id}`)],
      ["Amount", money(hold.amount, hold.currency)],
      ["Captured", money(hold.captured, hold.currency)],
      ["Remaining", money(hold.remaining, hold.currency)],
      ["Placed", moment(hold.placed_at)],
      ["Expires", moment(hold.expires_at)],
      ["Reference", hold.reference],
      ["As of position", String(hold.position)],
      ...Object.entries(hold.metadata ?? {}),
    ]),
    isActive ? h("p", {}, linksOf(page, { hold_id: hold.id, currency: hold.currency })) : null,
    asRequest(path, {}, `daybook holds show ${page.id}`),
  ];
}

// ── schedules ────────────────────────────────────────────────────────────────────────────────────────────────────────

export const schedules = listPage({
  path: "/v1/schedules",
  name: "schedules",
  caption: "Schedules, newest first",
  filters: [
    ["status", "Status", ["active", "cancelled", "ended"]],
    ["account_id", "Account"],
  ],
  columns: () => [
    ["Schedule", (row) => shortId(row.id, `#/schedules/${row.id}`)],
    ["From", (row) => shortId(row.transfer.from_account_id, `#/accounts/${row.transfer.from_account_id}`)],
    ["To", (row) => shortId(row.transfer.to_account_id, `#/accounts/${row.transfer.to_account_id}`)],
    ["Amount", (row) => money(row.transfer.amount, row.transfer.currency), "number"],
    ["Status", (row) => badge(row.status)],
    ["Next run", (row) => moment(row.next_run_at)],
    ["Refused", (row) => String(row.refused_count), "number"],
  ],
});

export async function showSchedule(page) {
  const path = `/v1/schedules/${page.id}`;
  const schedule = await query(path, { limit: 50 }, page);
  const { transfer } = schedule;
  return [
    facts([
      ["Schedule", h("span", { class: "hash" }, schedule.id)],
      ["Status", badge(schedule.status)],
      ["Amount", money(transfer.amount, transfer.currency)],
      ["From", shortId(transfer.from_account_id, `#/accounts/${transfer.from_account_id}`)],
      ["To", shortId(transfer.to_account_id, `#/accounts/${transfer.to_account_id}`)],
      ["Reference", transfer.reference],
      ["Next run", moment(schedule.next_run_at)],
      ["Runs", String(schedule.run_count)],
      ["Refused", String(schedule.refused_count)],
    ]),
    schedule.status === "active" ? h("p", {}, linksOf(page, { schedule_id: schedule.id })) : null,
    schedule.rule ? section("Rule", json(schedule.rule)) : null,
    section(
      "Runs",
      table(
        "Runs, newest first",
        [
          ["Number", (row) => String(row.number), "number"],
          ["Due", (row) => moment(row.due_at)],
          ["Recorded", (row) => moment(row.recorded_at)],
          ["Outcome", (row) => (row.transfer_id ? shortId(row.transfer_id, `#/transfers/${row.transfer_id}`) : refusal(row))],
        ],
        schedule.runs,
      ),
    ),
    asRequest(path),
  ];
}

function refusal(run) {
  return h(
    "a",
    { href: `${urls.query}/problems/${run.refused}`, target: "_blank", rel: "noreferrer" },
    `refused: ${run.refused}`,
  );
}
