// What operators and auditors look at: closed days, seals, ledgers, denials and audit records.

import { money, query } from "./api.js";
import { badge, h, link, moment, table } from "./dom.js";
import { asRequest, listPage } from "./lists.js";

export const days = listPage({
  path: "/v1/days",
  name: "days",
  caption: "Closed business days",
  columns: () => [
    ["Day", (row) => row.day],
    ["Time zone", (row) => row.time_zone],
    ["Events", (row) => String(row.events), "number"],
    ["Moved", (row) => row.totals.map((total) => money(total.moved, total.currency)).join(", ")],
    ["Closed", (row) => moment(row.closed_at)],
    ["Root", (row) => h("span", { class: "hash", title: row.root }, row.root.slice(0, 16))],
  ],
});

export const seals = listPage({
  path: "/v1/seals",
  name: "seals",
  caption: "Seals, newest first",
  columns: (page) => [
    [
      "Position",
      (row) => (page.can("GET /v1/events") ? link(`#/events/${row.position}`, String(row.position)) : String(row.position)),
      "number",
    ],
    ["Sealed", (row) => moment(row.sealed_at)],
    ["Key", (row) => row.key_id],
    ["Root", (row) => h("span", { class: "hash" }, row.root)],
  ],
});

export const ledgers = listPage({
  path: "/v1/ledgers",
  name: "ledgers",
  caption: "Ledgers",
  columns: () => [
    ["Ledger", (row) => row.id],
    ["Name", (row) => row.name],
    ["Status", (row) => badge(row.status)],
    ["Time zone", (row) => row.time_zone],
    ["Currencies", (row) => row.currencies?.join(", ") ?? "all"],
    ["Position", (row) => String(row.position), "number"],
    ["Created", (row) => moment(row.created_at)],
  ],
});

export const denials = listPage({
  path: "/v1/refusals",
  name: "denials",
  caption: "Denied requests, newest first",
  columns: () => [
    ["Denied", (row) => moment(row.refused_at)],
    ["Code", (row) => row.code],
    ["Request", (row) => `${row.method} ${row.path}`],
    ["API", (row) => row.api],
    ["Caller", (row) => row.principal],
    ["Address", (row) => row.address],
    ["Times", (row) => String(row.count), "number"],
  ],
});

export const auditRecords = listPage({
  path: "/v1/audit-records",
  name: "audit-records",
  caption: "Audit records",
  columns: () => [
    ["Number", (row) => String(row.audit_position), "number"],
    ["Act", (row) => row.act],
    ["Caller", (row) => row.caller?.principal],
    ["Network", (row) => row.caller?.network],
    ["Recorded", (row) => moment(row.recorded_at)],
    ["Hash", (row) => h("span", { class: "hash", title: row.hash }, row.hash.slice(0, 16))],
  ],
});

// What is unsafe in the settings of the query API and in the stores, and what to do about it.
export async function doctor(page) {
  const found = await query("/v1/doctor", {}, page);
  const dangers = found.items.filter((item) => item.severity === "danger").length;
  return [
    h("p", {}, `${dangers} dangerous, ${found.items.length - dangers} to consider. Examined `, moment(found.examined_at), "."),
    table(
      "Findings",
      [
        ["Severity", (row) => badge(row.severity)],
        ["Name", (row) => row.name],
        ["What", (row) => h("span", { class: "wide" }, row.what)],
        ["What to do", (row) => h("span", { class: "wide" }, row.fix)],
      ],
      found.items,
      "Nothing unsafe was found.",
    ),
    asRequest("/v1/doctor", {}, "daybook doctor"),
  ];
}
