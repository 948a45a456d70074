// The commands that the console offers as forms. `about` is the field that links a form to the page of a thing.

import { h, link } from "./dom.js";

const ID = (name, label) => ({ name, label, kind: "id", required: true });
const OPTIONAL_ID = (name, label) => ({ name, label, kind: "id" });
const AMOUNT = { name: "amount", label: "Amount, such as 12.50", kind: "amount", required: true };
const PART = { name: "amount", label: "Amount; empty for all of it", kind: "amount" };
const CURRENCY = { name: "currency", label: "Currency, such as EUR", kind: "currency", required: true };
const UNSENT_CURRENCY = { ...CURRENCY, sent: false, required: false };
const REFERENCE = { name: "reference", label: "Reference (no name of a person)", kind: "text", length: 140 };

export const FORMS = [
  {
    name: "transfer",
    title: "Transfer money",
    operation: "POST /v1/transfers",
    about: "from_account_id",
    makes: "transfers",
    fields: [ID("from_account_id", "From account"), ID("to_account_id", "To account"), AMOUNT, CURRENCY, REFERENCE],
  },
  {
    name: "deposit",
    title: "Deposit money",
    operation: "POST /v1/deposits",
    about: "account_id",
    makes: "transfers",
    fields: [ID("account_id", "Account"), AMOUNT, CURRENCY, REFERENCE],
  },
  {
    name: "withdraw",
    title: "Withdraw money",
    operation: "POST /v1/withdrawals",
    about: "account_id",
    makes: "transfers",
    fields: [ID("account_id", "Account"), AMOUNT, CURRENCY, REFERENCE],
  },
  {
    name: "reverse",
    title: "Reverse a transfer",
    operation: "POST /v1/transfers/{transfer_id}/reverse",
    about: "transfer_id",
    makes: "transfers",
    fields: [ID("transfer_id", "Transfer"), PART, UNSENT_CURRENCY],
  },
  {
    name: "hold",
    title: "Place a hold",
    operation: "POST /v1/holds",
    about: "account_id",
    makes: "holds",
    fields: [ID("account_id", "Account"), AMOUNT, CURRENCY, OPTIONAL_ID("to_account_id", "To account"), REFERENCE],
  },
  {
    name: "capture",
    title: "Capture a hold",
    operation: "POST /v1/holds/{hold_id}/capture",
    about: "hold_id",
    makes: "transfers",
    fields: [ID("hold_id", "Hold"), PART, UNSENT_CURRENCY, OPTIONAL_ID("to_account_id", "To account")],
  },
  {
    name: "release",
    title: "Release a hold",
    operation: "POST /v1/holds/{hold_id}/release",
    about: "hold_id",
    fields: [ID("hold_id", "Hold")],
  },
  {
    name: "freeze",
    title: "Freeze an account",
    operation: "POST /v1/accounts/{account_id}/freeze",
    about: "account_id",
    fields: [ID("account_id", "Account")],
  },
  {
    name: "unfreeze",
    title: "Unfreeze an account",
    operation: "POST /v1/accounts/{account_id}/unfreeze",
    about: "account_id",
    fields: [ID("account_id", "Account")],
  },
  {
    name: "close",
    title: "Close an account",
    operation: "POST /v1/accounts/{account_id}/close",
    about: "account_id",
    fields: [ID("account_id", "Account")],
  },
  {
    name: "open",
    title: "Open an account",
    operation: "POST /v1/accounts",
    about: "owner_id",
    makes: "accounts",
    fields: [ID("owner_id", "Owner"), CURRENCY],
  },
  {
    name: "user",
    title: "Create a user",
    operation: "POST /v1/users",
    makes: "users",
    fields: [
      { name: "name", label: "Name", kind: "text", required: true, length: 200 },
      { name: "email", label: "E-mail address", kind: "text", required: true, length: 254 },
    ],
  },
  {
    name: "deactivate",
    title: "Deactivate a user",
    operation: "POST /v1/users/{user_id}/deactivate",
    about: "user_id",
    fields: [ID("user_id", "User")],
  },
  {
    name: "reactivate",
    title: "Reactivate a user",
    operation: "POST /v1/users/{user_id}/reactivate",
    about: "user_id",
    fields: [ID("user_id", "User")],
  },
  {
    name: "cancel",
    title: "Cancel a schedule",
    operation: "POST /v1/schedules/{schedule_id}/cancel",
    about: "schedule_id",
    fields: [ID("schedule_id", "Schedule")],
  },
];

// Links to the commands about a thing that the caller may send. `known` fills their fields.
export function linksOf(page, known) {
  const offered = FORMS.filter((form) => form.about in known && page.can(form.operation));
  return offered.map((form) => {
    const given = form.fields.filter((field) => field.name in known).map((field) => [field.name, known[field.name]]);
    return h("span", {}, link(`#/commands/${form.name}?${new URLSearchParams(given)}`, form.title), " · ");
  });
}
