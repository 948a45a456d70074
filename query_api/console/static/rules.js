// The access rules by which the console decides what it shows: scopes, of which the caller needs one, if customers may send the
// request, and `true` if only a key for all ledgers may.
// A test compares this list with the OpenAPI documents of both APIs.

const RULES = {
  "GET /v1/users": [["ledger:read"], true],
  "GET /v1/users/{user_id}": [["ledger:read"], true],
  "GET /v1/users/{user_id}/sessions": [["users:write", "ledger:read"], true],
  "DELETE /v1/users/{user_id}/sessions/{session_id}": [["users:write"], true],
  "GET /v1/accounts": [["ledger:read"], true],
  "GET /v1/accounts/{account_id}": [["ledger:read"], true],
  "GET /v1/transfers": [["ledger:read"], true],
  "GET /v1/transfers/{transfer_id}": [["ledger:read"], true],
  "GET /v1/transfers/{transfer_id}/receipt": [["ledger:read"], false],
  "GET /v1/holds": [["ledger:read"], true],
  "GET /v1/holds/{hold_id}": [["ledger:read"], true],
  "GET /v1/schedules": [["ledger:read"], true],
  "GET /v1/schedules/{schedule_id}": [["ledger:read"], true],
  "GET /v1/stats": [["ledger:read"], false],
  "GET /v1/events": [["events:read"], false],
  "GET /v1/streams/{stream}": [["events:read"], false],
  "GET /v1/ledgers": [["ops:admin", "ledger:read"], false],
  "GET /v1/projections": [["ledger:read", "ops:admin"], false],
  "GET /v1/projections/{name}/dead-letters": [["ops:admin"], false],
  "GET /v1/operations": [["ops:admin"], false],
  "GET /v1/days": [["ledger:read"], false],
  "GET /v1/seals": [["ledger:read"], false],
  "GET /v1/refusals": [["events:read", "ops:admin"], false],
  "GET /v1/keys": [["ops:admin"], false],
  "GET /v1/verifications": [["ops:admin"], false],
  "GET /v1/doctor": [["ops:admin"], false, true],
  "GET /v1/audit-records": [["events:read"], false],
  "POST /v1/users": [["users:write"], false],
  "POST /v1/users/{user_id}/deactivate": [["users:write"], false],
  "POST /v1/users/{user_id}/reactivate": [["users:write"], false],
  "POST /v1/accounts": [["accounts:write"], false],
  "POST /v1/accounts/{account_id}/freeze": [["accounts:write"], false],
  "POST /v1/accounts/{account_id}/unfreeze": [["accounts:write"], false],
  "POST /v1/accounts/{account_id}/close": [["accounts:write"], false],
  "POST /v1/deposits": [["transfers:write"], false],
  "POST /v1/withdrawals": [["transfers:write"], true],
  "POST /v1/transfers": [["transfers:write"], true],
  "POST /v1/transfers/{transfer_id}/reverse": [["transfers:write"], false],
  "POST /v1/holds": [["transfers:write"], false],
  "POST /v1/holds/{hold_id}/capture": [["transfers:write"], false],
  "POST /v1/holds/{hold_id}/release": [["transfers:write"], false],
  "POST /v1/schedules/{schedule_id}/cancel": [["transfers:write"], true],
  "POST /v1/verifications": [["ops:admin"], false],
  "POST /v1/verifications/{verification_id}/cancel": [["ops:admin"], false],
  "POST /v1/keys/{key_id}/revoke": [["credentials:write"], false],
  "POST /v1/keys/{key_id}/rotate": [["credentials:write"], false],
  "POST /v1/projections/{name}/rebuild": [["ops:admin"], false],
  "POST /v1/projections/{name}/rollback": [["ops:admin"], false],
  "POST /v1/projections/{name}/pause": [["ops:admin"], false],
  "POST /v1/projections/{name}/resume": [["ops:admin"], false],
  "POST /v1/projections/{name}/dead-letters/retry": [["ops:admin"], false],
  "POST /v1/projections/{name}/dead-letters/{position}/skip": [["ops:admin"], false],
};

// True if the rule of an operation admits this caller, an answer of GET /v1/caller.
export function admits(operation, caller) {
  const [scopes, customers, allLedgers] = RULES[operation];
  if (allLedgers && !caller.all_ledgers) return false;
  return scopes.some((scope) => caller.scopes.includes(scope)) && (caller.user_id === null || customers);
}
