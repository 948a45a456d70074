// All pages: the name in the address, the key after `g`, the operations of which the caller needs one, and what shows it.

import { showAccount, accounts } from "./accounts.js";
import { commands, showCommand } from "./commands.js";
import { apiKeys } from "./credentials.js";
import { events, showEvent, showStream } from "./events.js";
import { holds, schedules, showHold, showSchedule, showUser, users } from "./people.js";
import { auditRecords, days, denials, doctor, ledgers, seals } from "./operators.js";
import { FORMS } from "./forms.js";
import { overview } from "./overview.js";
import { readModels, showReadModel } from "./readmodels.js";
import { showTransfer, transfers } from "./transfers.js";
import { showVerification, verifications } from "./verifications.js";

const SENDABLE = FORMS.map((form) => form.operation);

export const PAGES = [
  { name: "overview", title: "Overview", key: "o", needs: ["GET /v1/stats"], show: overview },
  {
    name: "accounts",
    title: "Accounts",
    one: "Account",
    key: "a",
    needs: ["GET /v1/accounts"],
    show: accounts,
    showOne: showAccount,
  },
  {
    name: "transfers",
    title: "Transfers",
    one: "Transfer",
    key: "t",
    needs: ["GET /v1/transfers"],
    show: transfers,
    showOne: showTransfer,
  },
  { name: "users", title: "Users", one: "User", key: "u", needs: ["GET /v1/users"], show: users, showOne: showUser },
  { name: "holds", title: "Holds", one: "Hold", key: "h", needs: ["GET /v1/holds"], show: holds, showOne: showHold },
  {
    name: "schedules",
    title: "Schedules",
    one: "Schedule",
    key: "s",
    needs: ["GET /v1/schedules"],
    show: schedules,
    showOne: showSchedule,
  },
  { name: "events", title: "Events", one: "Event", key: "e", needs: ["GET /v1/events"], show: events, showOne: showEvent },
  {
    name: "streams",
    title: "Streams",
    one: "Stream",
    needs: ["GET /v1/streams/{stream}"],
    isHidden: true,
    show: events,
    showOne: showStream,
  },
  {
    name: "read-models",
    title: "Read models",
    one: "Read model",
    key: "r",
    needs: ["GET /v1/projections"],
    show: readModels,
    showOne: showReadModel,
  },
  { name: "commands", title: "Commands", one: "Command", key: "c", needs: SENDABLE, show: commands, showOne: showCommand },
  { name: "days", title: "Closed days", key: "d", needs: ["GET /v1/days"], show: days, showOne: days },
  { name: "seals", title: "Seals", key: "p", needs: ["GET /v1/seals"], show: seals, showOne: seals },
  { name: "ledgers", title: "Ledgers", key: "l", needs: ["GET /v1/ledgers"], show: ledgers, showOne: ledgers },
  { name: "denials", title: "Denials", key: "x", needs: ["GET /v1/refusals"], show: denials, showOne: denials },
  { name: "doctor", title: "Doctor", key: "m", needs: ["GET /v1/doctor"], show: doctor, showOne: doctor },
  { name: "keys", title: "API keys", key: "k", needs: ["GET /v1/keys"], show: apiKeys, showOne: apiKeys },
  {
    name: "verifications",
    title: "Verifications",
    one: "Verification",
    key: "v",
    needs: ["GET /v1/verifications"],
    show: verifications,
    showOne: showVerification,
  },
  {
    name: "audit-records",
    title: "Audit records",
    key: "i",
    needs: ["GET /v1/audit-records"],
    show: auditRecords,
    showOne: auditRecords,
  },
];

// The page that a caller begins with: the first that the caller may see.
export function homeOf(pages) {
  return pages[0];
}
