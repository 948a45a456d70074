// Transfers: the list with its filters, and one transfer.

import { money, query } from "./api.js";
import { facts, h, json, link, moment, section, shortId, table } from "./dom.js";
import { asRequest, listPage } from "./lists.js";
import { linksOf } from "./forms.js";

const KINDS = ["deposit", "withdrawal", "transfer", "reversal", "postings", "exchange"];

export const transfers = listPage({
  path: "/v1/transfers",
  name: "transfers",
  caption: "Transfers, newest first",
  filters: [
    ["kind", "Kind", KINDS],
    ["account_id", "Account"],
    ["counterparty", "Counterparty"],
    ["reference", "Reference"],
    ["recorded_at[gte]", "Recorded from (moment)"],
    ["recorded_at[lt]", "Recorded before (moment)"],
  ],
  columns: () => [
    ["Transfer", (row) => shortId(row.id, `#/transfers/${row.id}`)],
    ["Recorded", (row) => moment(row.recorded_at)],
    ["Kind", (row) => row.kind],
    ["From", (row) => shortId(row.from_account_id, `#/accounts/${row.from_account_id}`)],
    ["To", (row) => shortId(row.to_account_id, `#/accounts/${row.to_account_id}`)],
    ["Reference", (row) => row.reference],
    ["Amount", (row) => money(row.amount, row.currency), "number"],
  ],
});

export async function showTransfer(page) {
  const path = `/v1/transfers/${page.id}`;
  const transfer = await query(path, {}, page);
  const { currency } = transfer;
  const position = String(transfer.position);
  return [
    facts([
      ["Transfer", h("span", { class: "hash" }, transfer.id)],
      ["Kind", transfer.kind],
      ["Amount", money(transfer.amount, currency)],
      ["From", shortId(transfer.from_account_id, `#/accounts/${transfer.from_account_id}`)],
      ["To", shortId(transfer.to_account_id, `#/accounts/${transfer.to_account_id}`)],
      ["Reference", transfer.reference],
      ["Occurred", moment(transfer.occurred_at)],
      ["Recorded", moment(transfer.recorded_at)],
      ["Event", page.can("GET /v1/events") ? link(`#/events/${position}`, position) : position],
      ["Captured from", transfer.hold_id && shortId(transfer.hold_id, `#/holds/${transfer.hold_id}`)],
      ["Reverses", transfer.reverses && shortId(transfer.reverses, `#/transfers/${transfer.reverses}`)],
      ["Reversed so far", transfer.reversed ? money(transfer.reversed, currency) : null],
      ["After the close of its day", transfer.after_close ? "yes" : null],
      ...Object.entries(transfer.metadata ?? {}),
    ]),
    h("p", {}, linksOf(page, { transfer_id: transfer.id, currency })),
    transfer.postings?.length
      ? section(
          "Postings",
          table(
            "Postings",
            [
              ["Account", (row) => shortId(row.account_id, `#/accounts/${row.account_id}`)],
              ["Amount", (row) => money(row.amount, row.currency), "number"],
            ],
            transfer.postings,
          ),
        )
      : null,
    transfer.exchange ? section("Exchange", json(transfer.exchange)) : null,
    transfer.reversals?.length
      ? section(
          "Reversals",
          table(
            "Reversals",
            [
              ["Transfer", (row) => shortId(row.id, `#/transfers/${row.id}`)],
              ["Amount", (row) => money(row.amount, currency), "number"],
            ],
            transfer.reversals,
          ),
        )
      : null,
    asRequest(path, {}, `daybook transfers show ${page.id}`),
  ];
}
