"""All operations of both APIs, as methods. `make client` writes this file from the OpenAPI documents."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Final, Unpack
from uuid import UUID

from daybook_client.bodies import (
    AccountBody,
    AccountResource,
    AccountResponse,
    ActivityResource,
    AuditRecordResource,
    BalanceResponse,
    CallerResource,
    CancelScheduleArguments,
    CancelVerificationArguments,
    CaptureBody,
    CaptureHoldArguments,
    ChangeAccountArguments,
    ChangeLedgerArguments,
    ChangeLimitsArguments,
    ChangeOverdraftLimitArguments,
    ChangePasswordArguments,
    ChangeScheduleArguments,
    ChangeUserArguments,
    ChangeWebhookArguments,
    CloseAccountArguments,
    CloseDayArguments,
    CloseLedgerArguments,
    CommandResults,
    ConsistencyResponse,
    CreateLedgerArguments,
    CreateScheduleArguments,
    CreateUserArguments,
    CurrencyResource,
    DayBody,
    DayResource,
    DayResponse,
    DeactivateUserArguments,
    DeadLetterResource,
    DeleteWebhookArguments,
    DeliveryResource,
    DenialResource,
    DepositArguments,
    DoctorResponse,
    EndSessionArguments,
    EndSessionsArguments,
    EntryReport,
    EntryResource,
    EraseUserArguments,
    EventResource,
    ExchangeBody,
    ExchangeFundsArguments,
    ExplainBalanceArguments,
    ExplanationResponse,
    ExportResponse,
    ExportUserArguments,
    FreezeAccountArguments,
    GetAccountArguments,
    GetBalanceArguments,
    GetCallerArguments,
    GetConsistencyArguments,
    GetDayArguments,
    GetDoctorArguments,
    GetHoldArguments,
    GetLedgerArguments,
    GetLimitsArguments,
    GetOperationArguments,
    GetProjectionArguments,
    GetReceiptArguments,
    GetScheduleArguments,
    GetStatementArguments,
    GetStatsArguments,
    GetTimelineArguments,
    GetTransferArguments,
    GetTrialBalanceArguments,
    GetUserArguments,
    GetVerificationArguments,
    GetWebhookArguments,
    HoldBody,
    HoldResource,
    HoldResponse,
    IssueResetTokenArguments,
    KeyResource,
    LedgerBody,
    LedgerResource,
    LimitsResponse,
    ListAccountsArguments,
    ListActivityArguments,
    ListAuditRecordsArguments,
    ListCurrenciesArguments,
    ListDaysArguments,
    ListDeliveriesArguments,
    ListEntriesArguments,
    ListEventsArguments,
    ListHoldsArguments,
    ListKeysArguments,
    ListLedgersArguments,
    ListOperationsArguments,
    ListProjectionDeadLettersArguments,
    ListProjectionsArguments,
    ListRefusalsArguments,
    ListSchedulesArguments,
    ListSealsArguments,
    ListSessionsArguments,
    ListStreamArguments,
    ListTransfersArguments,
    ListUsersArguments,
    ListVerificationsArguments,
    ListWebhooksArguments,
    LogInArguments,
    LoginBody,
    NewWebhookBody,
    OpenAccountArguments,
    OperationBody,
    OperationResource,
    OperationResponse,
    OutsideTransferBody,
    Page,
    PastAccountResource,
    PastBalanceResponse,
    PastTrialBalanceResponse,
    PauseProjectionArguments,
    PlaceHoldArguments,
    PostingsBody,
    ProjectionResource,
    ReactivateUserArguments,
    RebuildProjectionArguments,
    ReceiptResponse,
    RegisterWebhookArguments,
    ReleaseHoldArguments,
    RepeatDeliveryArguments,
    ReportEntriesArguments,
    ReportTotalsArguments,
    ReportUsersArguments,
    RequestedDeliveryBody,
    ResetPasswordArguments,
    ResetTokenBody,
    ResumeProjectionArguments,
    RetryDeadLettersOfProjectionArguments,
    ReversalBody,
    ReverseTransferArguments,
    RevokedKeyBody,
    RevokeKeyArguments,
    RollbackProjectionArguments,
    RotatedKeyBody,
    RotatedSecretBody,
    RotateKeyArguments,
    RotateWebhookSecretArguments,
    RunBatchArguments,
    ScheduleBody,
    ScheduleResource,
    ScheduleResponse,
    SealResource,
    SearchArguments,
    SearchPage,
    SessionsBody,
    SkipDeadLetterArguments,
    StatementResponse,
    StatisticsResponse,
    StreamEventResource,
    TestWebhookArguments,
    TimelinePage,
    TotalsReport,
    TransferBody,
    TransferFundsArguments,
    TransferManyArguments,
    TransferResource,
    TransferResults,
    TrialBalanceResponse,
    UnfreezeAccountArguments,
    UserBody,
    UserReport,
    UserResource,
    UserResponse,
    VerificationBody,
    VerificationResource,
    VerificationResponse,
    VerifyLedgerArguments,
    WebhookBody,
    WebhookResource,
    WebhookResponse,
    WithdrawArguments,
)
from daybook_client.exchange import Operation

OPERATIONS: Final[Mapping[str, Operation]] = {
    "deposit": Operation(
        "command",
        "POST",
        "/v1/deposits",
        query={"dry_run": "dry_run"},
        body=frozenset(["account_id", "amount", "currency", "id", "metadata", "occurred_at", "reference"]),
        has_key=True,
    ),
    "withdraw": Operation(
        "command",
        "POST",
        "/v1/withdrawals",
        query={"dry_run": "dry_run"},
        body=frozenset(["account_id", "amount", "currency", "id", "metadata", "occurred_at", "reference"]),
        has_key=True,
    ),
    "transfer_funds": Operation(
        "command",
        "POST",
        "/v1/transfers",
        query={"dry_run": "dry_run"},
        body=frozenset(
            ["amount", "currency", "from_account_id", "id", "metadata", "occurred_at", "postings", "reference", "to_account_id"]
        ),
        has_key=True,
    ),
    "exchange_funds": Operation(
        "command",
        "POST",
        "/v1/exchanges",
        query={"dry_run": "dry_run"},
        body=frozenset(
            [
                "from_account_id",
                "from_amount",
                "from_currency",
                "house_from_account_id",
                "house_to_account_id",
                "id",
                "metadata",
                "occurred_at",
                "rate",
                "reference",
                "remainder_account_id",
                "to_account_id",
                "to_currency",
            ]
        ),
        has_key=True,
    ),
    "reverse_transfer": Operation(
        "command",
        "POST",
        "/v1/transfers/{transfer_id}/reverse",
        query={"dry_run": "dry_run"},
        body=frozenset(["amount", "id", "metadata", "occurred_at", "reference"]),
        has_key=True,
    ),
    "transfer_many": Operation(
        "command",
        "POST",
        "/v1/transfers/batch",
        query={"dry_run": "dry_run"},
        body=frozenset(["mode", "transfers"]),
        has_key=True,
    ),
    "run_batch": Operation(
        "command", "POST", "/v1/batch", query={"dry_run": "dry_run"}, body=frozenset(["commands", "mode"]), has_key=True
    ),
    "create_schedule": Operation(
        "command",
        "POST",
        "/v1/schedules",
        query={"dry_run": "dry_run"},
        body=frozenset(["at", "id", "rule", "transfer"]),
        has_key=True,
    ),
    "change_schedule": Operation(
        "command",
        "PATCH",
        "/v1/schedules/{schedule_id}",
        query={"dry_run": "dry_run"},
        body=frozenset(["at", "rule", "transfer"]),
        has_key=True,
    ),
    "cancel_schedule": Operation(
        "command", "POST", "/v1/schedules/{schedule_id}/cancel", query={"dry_run": "dry_run"}, has_key=True
    ),
    "create_ledger": Operation(
        "command",
        "POST",
        "/v1/ledgers",
        query={"dry_run": "dry_run"},
        body=frozenset(["currencies", "id", "name", "time_zone", "transfer_max"]),
        has_key=True,
    ),
    "change_ledger": Operation(
        "command",
        "PUT",
        "/v1/ledgers/{ledger_id}/settings",
        query={"dry_run": "dry_run"},
        body=frozenset(["currencies", "name", "transfer_max"]),
        has_key=True,
    ),
    "close_ledger": Operation("command", "POST", "/v1/ledgers/{ledger_id}/close", query={"dry_run": "dry_run"}, has_key=True),
    "close_day": Operation("command", "POST", "/v1/days/{day}/close", query={"dry_run": "dry_run"}, has_key=True),
    "register_webhook": Operation("command", "POST", "/v1/webhooks", body=frozenset(["id", "streams", "types", "url"])),
    "change_webhook": Operation(
        "command", "PATCH", "/v1/webhooks/{webhook_id}", body=frozenset(["status", "streams", "types", "url"])
    ),
    "delete_webhook": Operation("command", "DELETE", "/v1/webhooks/{webhook_id}"),
    "rotate_webhook_secret": Operation(
        "command", "POST", "/v1/webhooks/{webhook_id}/rotate-secret", body=frozenset(["overlap_seconds"])
    ),
    "test_webhook": Operation("command", "POST", "/v1/webhooks/{webhook_id}/test"),
    "repeat_delivery": Operation("command", "POST", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/repeat"),
    "rebuild_projection": Operation("command", "POST", "/v1/projections/{name}/rebuild", body=frozenset(["reason"])),
    "rollback_projection": Operation("command", "POST", "/v1/projections/{name}/rollback", body=frozenset(["reason"])),
    "pause_projection": Operation("command", "POST", "/v1/projections/{name}/pause", body=frozenset(["reason"])),
    "resume_projection": Operation("command", "POST", "/v1/projections/{name}/resume", body=frozenset(["reason"])),
    "retry_dead_letters_of_projection": Operation(
        "command", "POST", "/v1/projections/{name}/dead-letters/retry", body=frozenset(["reason"])
    ),
    "skip_dead_letter": Operation(
        "command", "POST", "/v1/projections/{name}/dead-letters/{position}/skip", body=frozenset(["reason"])
    ),
    "verify_ledger": Operation("command", "POST", "/v1/verifications", body=frozenset(["reason"])),
    "cancel_verification": Operation("command", "POST", "/v1/verifications/{verification_id}/cancel"),
    "revoke_key": Operation("command", "POST", "/v1/keys/{key_id}/revoke"),
    "rotate_key": Operation("command", "POST", "/v1/keys/{key_id}/rotate", body=frozenset(["overlap_seconds"])),
    "create_user": Operation(
        "command",
        "POST",
        "/v1/users",
        query={"dry_run": "dry_run"},
        body=frozenset(["email", "id", "metadata", "name"]),
        has_key=True,
    ),
    "change_user": Operation(
        "command",
        "PATCH",
        "/v1/users/{user_id}",
        query={"dry_run": "dry_run"},
        body=frozenset(["current_password", "email", "metadata", "name"]),
        has_key=True,
    ),
    "deactivate_user": Operation("command", "POST", "/v1/users/{user_id}/deactivate", query={"dry_run": "dry_run"}, has_key=True),
    "reactivate_user": Operation("command", "POST", "/v1/users/{user_id}/reactivate", query={"dry_run": "dry_run"}, has_key=True),
    "erase_user": Operation("command", "POST", "/v1/users/{user_id}/erase", query={"dry_run": "dry_run"}, has_key=True),
    "log_in": Operation("command", "POST", "/v1/login", body=frozenset(["email", "password"])),
    "change_password": Operation(
        "command", "PUT", "/v1/users/{user_id}/password", body=frozenset(["current_password", "password"])
    ),
    "issue_reset_token": Operation("command", "POST", "/v1/users/{user_id}/reset-token"),
    "reset_password": Operation("command", "POST", "/v1/password-resets", body=frozenset(["password", "token"])),
    "list_sessions": Operation("command", "GET", "/v1/users/{user_id}/sessions"),
    "end_sessions": Operation("command", "DELETE", "/v1/users/{user_id}/sessions"),
    "end_session": Operation("command", "DELETE", "/v1/users/{user_id}/sessions/{session_id}"),
    "open_account": Operation(
        "command",
        "POST",
        "/v1/accounts",
        query={"dry_run": "dry_run"},
        body=frozenset(["currency", "id", "metadata", "overdraft_limit", "owner_id"]),
        has_key=True,
    ),
    "freeze_account": Operation(
        "command", "POST", "/v1/accounts/{account_id}/freeze", query={"dry_run": "dry_run"}, has_key=True
    ),
    "unfreeze_account": Operation(
        "command", "POST", "/v1/accounts/{account_id}/unfreeze", query={"dry_run": "dry_run"}, has_key=True
    ),
    "close_account": Operation("command", "POST", "/v1/accounts/{account_id}/close", query={"dry_run": "dry_run"}, has_key=True),
    "change_overdraft_limit": Operation(
        "command",
        "PUT",
        "/v1/accounts/{account_id}/overdraft-limit",
        query={"dry_run": "dry_run"},
        body=frozenset(["overdraft_limit"]),
        has_key=True,
    ),
    "change_account": Operation(
        "command", "PATCH", "/v1/accounts/{account_id}", query={"dry_run": "dry_run"}, body=frozenset(["metadata"]), has_key=True
    ),
    "change_limits": Operation(
        "command",
        "PUT",
        "/v1/accounts/{account_id}/limits",
        query={"dry_run": "dry_run"},
        body=frozenset(["per_day", "per_month", "per_transfer_max", "per_transfer_min"]),
        has_key=True,
    ),
    "place_hold": Operation(
        "command",
        "POST",
        "/v1/holds",
        query={"dry_run": "dry_run"},
        body=frozenset(["account_id", "amount", "currency", "expires_at", "id", "metadata", "reference", "to_account_id"]),
        has_key=True,
    ),
    "capture_hold": Operation(
        "command",
        "POST",
        "/v1/holds/{hold_id}/capture",
        query={"dry_run": "dry_run"},
        body=frozenset(["amount", "final", "id", "metadata", "occurred_at", "reference", "to_account_id"]),
        has_key=True,
    ),
    "release_hold": Operation("command", "POST", "/v1/holds/{hold_id}/release", query={"dry_run": "dry_run"}, has_key=True),
    "list_users": Operation(
        "query",
        "GET",
        "/v1/users",
        query={
            "metadata": "metadata",
            "limit": "limit",
            "cursor": "cursor",
            "email": "email",
            "status": "status",
            "search": "search",
            "sort": "sort",
        },
        has_freshness=True,
    ),
    "get_user": Operation("query", "GET", "/v1/users/{user_id}", has_freshness=True),
    "export_user": Operation("query", "GET", "/v1/users/{user_id}/export", has_freshness=True),
    "list_accounts": Operation(
        "query",
        "GET",
        "/v1/accounts",
        query={
            "at": "at",
            "axis": "axis",
            "metadata": "metadata",
            "limit": "limit",
            "cursor": "cursor",
            "owner_id": "owner_id",
            "currency": "currency",
            "status": "status",
            "sort": "sort",
        },
        has_freshness=True,
    ),
    "get_account": Operation("query", "GET", "/v1/accounts/{account_id}", has_freshness=True),
    "get_balance": Operation(
        "query", "GET", "/v1/accounts/{account_id}/balance", query={"at": "at", "axis": "axis"}, has_freshness=True
    ),
    "list_entries": Operation(
        "query",
        "GET",
        "/v1/accounts/{account_id}/entries",
        query={
            "amount_gt": "amount[gt]",
            "amount_gte": "amount[gte]",
            "amount_lt": "amount[lt]",
            "amount_lte": "amount[lte]",
            "occurred_at_gt": "occurred_at[gt]",
            "occurred_at_gte": "occurred_at[gte]",
            "occurred_at_lt": "occurred_at[lt]",
            "occurred_at_lte": "occurred_at[lte]",
            "metadata": "metadata",
            "reference": "reference",
            "reference_prefix": "reference[prefix]",
            "recorded_at_gt": "recorded_at[gt]",
            "recorded_at_gte": "recorded_at[gte]",
            "recorded_at_lt": "recorded_at[lt]",
            "recorded_at_lte": "recorded_at[lte]",
            "counterparty": "counterparty",
            "kind": "kind",
            "limit": "limit",
            "cursor": "cursor",
            "sort": "sort",
        },
        has_freshness=True,
    ),
    "get_timeline": Operation(
        "query",
        "GET",
        "/v1/accounts/{account_id}/timeline",
        query={"limit": "limit", "cursor": "cursor", "month": "month"},
        has_freshness=True,
    ),
    "get_statement": Operation(
        "query",
        "GET",
        "/v1/accounts/{account_id}/statement",
        query={"from_": "from", "to": "to", "axis": "axis"},
        has_freshness=True,
    ),
    "list_transfers": Operation(
        "query",
        "GET",
        "/v1/transfers",
        query={
            "amount_gt": "amount[gt]",
            "amount_gte": "amount[gte]",
            "amount_lt": "amount[lt]",
            "amount_lte": "amount[lte]",
            "occurred_at_gt": "occurred_at[gt]",
            "occurred_at_gte": "occurred_at[gte]",
            "occurred_at_lt": "occurred_at[lt]",
            "occurred_at_lte": "occurred_at[lte]",
            "metadata": "metadata",
            "reference": "reference",
            "reference_prefix": "reference[prefix]",
            "recorded_at_gt": "recorded_at[gt]",
            "recorded_at_gte": "recorded_at[gte]",
            "recorded_at_lt": "recorded_at[lt]",
            "recorded_at_lte": "recorded_at[lte]",
            "counterparty": "counterparty",
            "kind": "kind",
            "limit": "limit",
            "cursor": "cursor",
            "account_id": "account_id",
            "currency": "currency",
            "sort": "sort",
        },
        has_freshness=True,
    ),
    "get_transfer": Operation("query", "GET", "/v1/transfers/{transfer_id}", has_freshness=True),
    "list_holds": Operation(
        "query",
        "GET",
        "/v1/holds",
        query={
            "metadata": "metadata",
            "reference": "reference",
            "reference_prefix": "reference[prefix]",
            "placed_at_gt": "placed_at[gt]",
            "placed_at_gte": "placed_at[gte]",
            "placed_at_lt": "placed_at[lt]",
            "placed_at_lte": "placed_at[lte]",
            "limit": "limit",
            "cursor": "cursor",
            "account_id": "account_id",
            "counterparty": "counterparty",
            "status": "status",
            "sort": "sort",
        },
        has_freshness=True,
    ),
    "get_hold": Operation("query", "GET", "/v1/holds/{hold_id}", has_freshness=True),
    "list_schedules": Operation(
        "query",
        "GET",
        "/v1/schedules",
        query={
            "limit": "limit",
            "cursor": "cursor",
            "account_id": "account_id",
            "counterparty": "counterparty",
            "status": "status",
            "sort": "sort",
        },
        has_freshness=True,
    ),
    "get_schedule": Operation(
        "query", "GET", "/v1/schedules/{schedule_id}", query={"limit": "limit", "cursor": "cursor"}, has_freshness=True
    ),
    "get_receipt": Operation("query", "GET", "/v1/transfers/{transfer_id}/receipt", has_freshness=True),
    "get_stats": Operation(
        "query", "GET", "/v1/stats", query={"currency": "currency", "days": "days", "top": "top"}, has_freshness=True
    ),
    "get_trial_balance": Operation(
        "query", "GET", "/v1/trial-balance", query={"at": "at", "axis": "axis", "currency": "currency"}, has_freshness=True
    ),
    "report_users": Operation(
        "query",
        "GET",
        "/v1/reports/users",
        query={
            "page": "page",
            "page_size": "page_size",
            "status": "status",
            "currency": "currency",
            "search": "search",
            "sort": "sort",
        },
        has_freshness=True,
    ),
    "report_totals": Operation(
        "query",
        "GET",
        "/v1/reports/totals",
        query={
            "page": "page",
            "page_size": "page_size",
            "currency": "currency",
            "owner_id": "owner_id",
            "account_id": "account_id",
            "kind": "kind",
            "month_gte": "month[gte]",
            "month_lte": "month[lte]",
            "by": "by",
        },
        has_freshness=True,
    ),
    "report_entries": Operation(
        "query",
        "GET",
        "/v1/reports/entries",
        query={
            "page": "page",
            "page_size": "page_size",
            "currency": "currency",
            "owner_id": "owner_id",
            "account_id": "account_id",
            "kind": "kind",
            "month_gte": "month[gte]",
            "month_lte": "month[lte]",
            "sort": "sort",
        },
        has_freshness=True,
    ),
    "search": Operation(
        "query",
        "GET",
        "/v1/search",
        query={
            "limit": "limit",
            "cursor": "cursor",
            "q": "q",
            "type": "type",
            "currency": "currency",
            "kind": "kind",
            "month": "month",
            "account_id": "account_id",
            "sort": "sort",
        },
        has_freshness=True,
    ),
    "list_activity": Operation("query", "GET", "/v1/activity", query={"limit": "limit"}, has_freshness=True),
    "list_currencies": Operation("query", "GET", "/v1/currencies"),
    "list_events": Operation(
        "query",
        "GET",
        "/v1/events",
        query={"limit": "limit", "cursor": "cursor", "after": "after", "type": "type", "stream": "stream"},
        has_freshness=True,
    ),
    "stream_events": Operation("query", "GET", "/v1/events/stream", query={"after": "after", "type": "type", "stream": "stream"}),
    "list_stream": Operation(
        "query", "GET", "/v1/streams/{stream}", query={"limit": "limit", "cursor": "cursor", "after": "after"}, has_freshness=True
    ),
    "explain_balance": Operation(
        "query", "GET", "/v1/accounts/{account_id}/explain", query={"limit": "limit", "cursor": "cursor"}, has_freshness=True
    ),
    "get_limits": Operation(
        "query", "GET", "/v1/accounts/{account_id}/limits", query={"limit": "limit", "cursor": "cursor"}, has_freshness=True
    ),
    "list_ledgers": Operation("query", "GET", "/v1/ledgers", query={"limit": "limit", "cursor": "cursor"}),
    "get_ledger": Operation("query", "GET", "/v1/ledgers/{ledger_id}"),
    "list_projections": Operation("query", "GET", "/v1/projections"),
    "get_projection": Operation("query", "GET", "/v1/projections/{name}"),
    "list_projection_dead_letters": Operation("query", "GET", "/v1/projections/{name}/dead-letters"),
    "list_operations": Operation("query", "GET", "/v1/operations", query={"limit": "limit", "cursor": "cursor"}),
    "get_operation": Operation("query", "GET", "/v1/operations/{operation_id}"),
    "list_verifications": Operation("query", "GET", "/v1/verifications", query={"limit": "limit", "cursor": "cursor"}),
    "get_verification": Operation("query", "GET", "/v1/verifications/{verification_id}"),
    "list_seals": Operation("query", "GET", "/v1/seals", query={"limit": "limit", "cursor": "cursor"}),
    "get_consistency": Operation("query", "GET", "/v1/seals/{position}/consistency", query={"from_": "from"}),
    "list_days": Operation(
        "query", "GET", "/v1/days", query={"limit": "limit", "cursor": "cursor", "sort": "sort"}, has_freshness=True
    ),
    "get_day": Operation("query", "GET", "/v1/days/{day}", has_freshness=True),
    "list_refusals": Operation("query", "GET", "/v1/refusals", query={"limit": "limit", "cursor": "cursor"}),
    "get_doctor": Operation("query", "GET", "/v1/doctor"),
    "list_audit_records": Operation("query", "GET", "/v1/audit-records", query={"limit": "limit", "cursor": "cursor"}),
    "list_keys": Operation("query", "GET", "/v1/keys", query={"limit": "limit", "cursor": "cursor"}),
    "list_webhooks": Operation("query", "GET", "/v1/webhooks", query={"limit": "limit", "cursor": "cursor"}),
    "get_webhook": Operation("query", "GET", "/v1/webhooks/{webhook_id}"),
    "list_deliveries": Operation(
        "query", "GET", "/v1/webhooks/{webhook_id}/deliveries", query={"limit": "limit", "cursor": "cursor"}
    ),
    "get_caller": Operation("query", "GET", "/v1/caller"),
}


class Operations(ABC):
    def deposit(self, **arguments: Unpack[DepositArguments]) -> OutsideTransferBody:
        """Deposit."""
        return self._call("deposit", {}, arguments)

    def withdraw(self, **arguments: Unpack[WithdrawArguments]) -> OutsideTransferBody:
        """Withdraw."""
        return self._call("withdraw", {}, arguments)

    def transfer_funds(self, **arguments: Unpack[TransferFundsArguments]) -> TransferBody | PostingsBody:
        """Transfer Funds."""
        return self._call("transfer_funds", {}, arguments)

    def exchange_funds(self, **arguments: Unpack[ExchangeFundsArguments]) -> ExchangeBody:
        """Exchange Funds."""
        return self._call("exchange_funds", {}, arguments)

    def reverse_transfer(self, transfer_id: str | UUID, **arguments: Unpack[ReverseTransferArguments]) -> ReversalBody:
        """Reverse Transfer."""
        return self._call("reverse_transfer", {"transfer_id": str(transfer_id)}, arguments)

    def transfer_many(self, **arguments: Unpack[TransferManyArguments]) -> TransferResults:
        """Transfer Many."""
        return self._call("transfer_many", {}, arguments)

    def run_batch(self, **arguments: Unpack[RunBatchArguments]) -> CommandResults:
        """Run Batch."""
        return self._call("run_batch", {}, arguments)

    def create_schedule(self, **arguments: Unpack[CreateScheduleArguments]) -> ScheduleBody:
        """Create Schedule."""
        return self._call("create_schedule", {}, arguments)

    def change_schedule(self, schedule_id: str | UUID, **arguments: Unpack[ChangeScheduleArguments]) -> ScheduleBody:
        """Change Schedule."""
        return self._call("change_schedule", {"schedule_id": str(schedule_id)}, arguments)

    def cancel_schedule(self, schedule_id: str | UUID, **arguments: Unpack[CancelScheduleArguments]) -> ScheduleBody:
        """Cancel Schedule."""
        return self._call("cancel_schedule", {"schedule_id": str(schedule_id)}, arguments)

    def create_ledger(self, **arguments: Unpack[CreateLedgerArguments]) -> LedgerBody:
        """Create Ledger."""
        return self._call("create_ledger", {}, arguments)

    def change_ledger(self, ledger_id: str | UUID, **arguments: Unpack[ChangeLedgerArguments]) -> LedgerBody:
        """Change Ledger."""
        return self._call("change_ledger", {"ledger_id": str(ledger_id)}, arguments)

    def close_ledger(self, ledger_id: str | UUID, **arguments: Unpack[CloseLedgerArguments]) -> LedgerBody:
        """Close Ledger."""
        return self._call("close_ledger", {"ledger_id": str(ledger_id)}, arguments)

    def close_day(self, day: str | UUID, **arguments: Unpack[CloseDayArguments]) -> DayBody:
        """Close Day."""
        return self._call("close_day", {"day": str(day)}, arguments)

    def register_webhook(self, **arguments: Unpack[RegisterWebhookArguments]) -> NewWebhookBody:
        """Register Webhook."""
        return self._call("register_webhook", {}, arguments)

    def change_webhook(self, webhook_id: str | UUID, **arguments: Unpack[ChangeWebhookArguments]) -> WebhookBody:
        """Change Webhook."""
        return self._call("change_webhook", {"webhook_id": str(webhook_id)}, arguments)

    def delete_webhook(self, webhook_id: str | UUID, **arguments: Unpack[DeleteWebhookArguments]) -> None:
        """Delete Webhook."""
        return self._call("delete_webhook", {"webhook_id": str(webhook_id)}, arguments)

    def rotate_webhook_secret(
        self, webhook_id: str | UUID, **arguments: Unpack[RotateWebhookSecretArguments]
    ) -> RotatedSecretBody:
        """Rotate Webhook Secret."""
        return self._call("rotate_webhook_secret", {"webhook_id": str(webhook_id)}, arguments)

    def test_webhook(self, webhook_id: str | UUID, **arguments: Unpack[TestWebhookArguments]) -> RequestedDeliveryBody:
        """Test Webhook."""
        return self._call("test_webhook", {"webhook_id": str(webhook_id)}, arguments)

    def repeat_delivery(
        self, webhook_id: str | UUID, delivery_id: str | UUID, **arguments: Unpack[RepeatDeliveryArguments]
    ) -> RequestedDeliveryBody:
        """Repeat Delivery."""
        return self._call("repeat_delivery", {"webhook_id": str(webhook_id), "delivery_id": str(delivery_id)}, arguments)

    def rebuild_projection(self, name: str | UUID, **arguments: Unpack[RebuildProjectionArguments]) -> OperationBody:
        """Rebuild Projection."""
        return self._call("rebuild_projection", {"name": str(name)}, arguments)

    def rollback_projection(self, name: str | UUID, **arguments: Unpack[RollbackProjectionArguments]) -> OperationBody:
        """Rollback Projection."""
        return self._call("rollback_projection", {"name": str(name)}, arguments)

    def pause_projection(self, name: str | UUID, **arguments: Unpack[PauseProjectionArguments]) -> OperationBody:
        """Pause Projection."""
        return self._call("pause_projection", {"name": str(name)}, arguments)

    def resume_projection(self, name: str | UUID, **arguments: Unpack[ResumeProjectionArguments]) -> OperationBody:
        """Resume Projection."""
        return self._call("resume_projection", {"name": str(name)}, arguments)

    def retry_dead_letters_of_projection(
        self, name: str | UUID, **arguments: Unpack[RetryDeadLettersOfProjectionArguments]
    ) -> OperationBody:
        """Retry Dead Letters Of Projection."""
        return self._call("retry_dead_letters_of_projection", {"name": str(name)}, arguments)

    def skip_dead_letter(self, name: str | UUID, position: int, **arguments: Unpack[SkipDeadLetterArguments]) -> OperationBody:
        """Skip Dead Letter."""
        return self._call("skip_dead_letter", {"name": str(name), "position": str(position)}, arguments)

    def verify_ledger(self, **arguments: Unpack[VerifyLedgerArguments]) -> VerificationBody:
        """Verify Ledger."""
        return self._call("verify_ledger", {}, arguments)

    def cancel_verification(
        self, verification_id: str | UUID, **arguments: Unpack[CancelVerificationArguments]
    ) -> VerificationBody:
        """Cancel Verification."""
        return self._call("cancel_verification", {"verification_id": str(verification_id)}, arguments)

    def revoke_key(self, key_id: str | UUID, **arguments: Unpack[RevokeKeyArguments]) -> RevokedKeyBody:
        """Revoke Key."""
        return self._call("revoke_key", {"key_id": str(key_id)}, arguments)

    def rotate_key(self, key_id: str | UUID, **arguments: Unpack[RotateKeyArguments]) -> RotatedKeyBody:
        """Rotate Key."""
        return self._call("rotate_key", {"key_id": str(key_id)}, arguments)

    def create_user(self, **arguments: Unpack[CreateUserArguments]) -> UserBody:
        """Create User."""
        return self._call("create_user", {}, arguments)

    def change_user(self, user_id: str | UUID, **arguments: Unpack[ChangeUserArguments]) -> UserBody:
        """Change User."""
        return self._call("change_user", {"user_id": str(user_id)}, arguments)

    def deactivate_user(self, user_id: str | UUID, **arguments: Unpack[DeactivateUserArguments]) -> UserBody:
        """Deactivate User."""
        return self._call("deactivate_user", {"user_id": str(user_id)}, arguments)

    def reactivate_user(self, user_id: str | UUID, **arguments: Unpack[ReactivateUserArguments]) -> UserBody:
        """Reactivate User."""
        return self._call("reactivate_user", {"user_id": str(user_id)}, arguments)

    def erase_user(self, user_id: str | UUID, **arguments: Unpack[EraseUserArguments]) -> UserBody:
        """Erase User."""
        return self._call("erase_user", {"user_id": str(user_id)}, arguments)

    def log_in(self, **arguments: Unpack[LogInArguments]) -> LoginBody:
        """Log In."""
        return self._call("log_in", {}, arguments)

    def change_password(self, user_id: str | UUID, **arguments: Unpack[ChangePasswordArguments]) -> None:
        """Change Password."""
        return self._call("change_password", {"user_id": str(user_id)}, arguments)

    def issue_reset_token(self, user_id: str | UUID, **arguments: Unpack[IssueResetTokenArguments]) -> ResetTokenBody:
        """Issue Reset Token."""
        return self._call("issue_reset_token", {"user_id": str(user_id)}, arguments)

    def reset_password(self, **arguments: Unpack[ResetPasswordArguments]) -> None:
        """Reset Password."""
        return self._call("reset_password", {}, arguments)

    def list_sessions(self, user_id: str | UUID, **arguments: Unpack[ListSessionsArguments]) -> SessionsBody:
        """List Sessions."""
        return self._call("list_sessions", {"user_id": str(user_id)}, arguments)

    def end_sessions(self, user_id: str | UUID, **arguments: Unpack[EndSessionsArguments]) -> None:
        """End Sessions."""
        return self._call("end_sessions", {"user_id": str(user_id)}, arguments)

    def end_session(self, user_id: str | UUID, session_id: str | UUID, **arguments: Unpack[EndSessionArguments]) -> None:
        """End Session."""
        return self._call("end_session", {"user_id": str(user_id), "session_id": str(session_id)}, arguments)

    def open_account(self, **arguments: Unpack[OpenAccountArguments]) -> AccountBody:
        """Open Account."""
        return self._call("open_account", {}, arguments)

    def freeze_account(self, account_id: str | UUID, **arguments: Unpack[FreezeAccountArguments]) -> AccountBody:
        """Freeze Account."""
        return self._call("freeze_account", {"account_id": str(account_id)}, arguments)

    def unfreeze_account(self, account_id: str | UUID, **arguments: Unpack[UnfreezeAccountArguments]) -> AccountBody:
        """Unfreeze Account."""
        return self._call("unfreeze_account", {"account_id": str(account_id)}, arguments)

    def close_account(self, account_id: str | UUID, **arguments: Unpack[CloseAccountArguments]) -> AccountBody:
        """Close Account."""
        return self._call("close_account", {"account_id": str(account_id)}, arguments)

    def change_overdraft_limit(self, account_id: str | UUID, **arguments: Unpack[ChangeOverdraftLimitArguments]) -> AccountBody:
        """Change Overdraft Limit."""
        return self._call("change_overdraft_limit", {"account_id": str(account_id)}, arguments)

    def change_account(self, account_id: str | UUID, **arguments: Unpack[ChangeAccountArguments]) -> AccountBody:
        """Change Account."""
        return self._call("change_account", {"account_id": str(account_id)}, arguments)

    def change_limits(self, account_id: str | UUID, **arguments: Unpack[ChangeLimitsArguments]) -> AccountBody:
        """Change Limits."""
        return self._call("change_limits", {"account_id": str(account_id)}, arguments)

    def place_hold(self, **arguments: Unpack[PlaceHoldArguments]) -> HoldBody:
        """Place Hold."""
        return self._call("place_hold", {}, arguments)

    def capture_hold(self, hold_id: str | UUID, **arguments: Unpack[CaptureHoldArguments]) -> CaptureBody:
        """Capture Hold."""
        return self._call("capture_hold", {"hold_id": str(hold_id)}, arguments)

    def release_hold(self, hold_id: str | UUID, **arguments: Unpack[ReleaseHoldArguments]) -> HoldBody:
        """Release Hold."""
        return self._call("release_hold", {"hold_id": str(hold_id)}, arguments)

    def list_users(self, **arguments: Unpack[ListUsersArguments]) -> Page[UserResource]:
        """List Users."""
        return self._call("list_users", {}, arguments)

    def get_user(self, user_id: str | UUID, **arguments: Unpack[GetUserArguments]) -> UserResponse:
        """Get User."""
        return self._call("get_user", {"user_id": str(user_id)}, arguments)

    def export_user(self, user_id: str | UUID, **arguments: Unpack[ExportUserArguments]) -> ExportResponse:
        """Export User."""
        return self._call("export_user", {"user_id": str(user_id)}, arguments)

    def list_accounts(self, **arguments: Unpack[ListAccountsArguments]) -> Page[AccountResource | PastAccountResource]:
        """List Accounts."""
        return self._call("list_accounts", {}, arguments)

    def get_account(self, account_id: str | UUID, **arguments: Unpack[GetAccountArguments]) -> AccountResponse:
        """Get Account."""
        return self._call("get_account", {"account_id": str(account_id)}, arguments)

    def get_balance(
        self, account_id: str | UUID, **arguments: Unpack[GetBalanceArguments]
    ) -> BalanceResponse | PastBalanceResponse:
        """Get Balance."""
        return self._call("get_balance", {"account_id": str(account_id)}, arguments)

    def list_entries(self, account_id: str | UUID, **arguments: Unpack[ListEntriesArguments]) -> Page[EntryResource]:
        """List Entries."""
        return self._call("list_entries", {"account_id": str(account_id)}, arguments)

    def get_timeline(self, account_id: str | UUID, **arguments: Unpack[GetTimelineArguments]) -> TimelinePage:
        """Get Timeline."""
        return self._call("get_timeline", {"account_id": str(account_id)}, arguments)

    def get_statement(self, account_id: str | UUID, **arguments: Unpack[GetStatementArguments]) -> StatementResponse:
        """Get Statement."""
        return self._call("get_statement", {"account_id": str(account_id)}, arguments)

    def list_transfers(self, **arguments: Unpack[ListTransfersArguments]) -> Page[TransferResource]:
        """List Transfers."""
        return self._call("list_transfers", {}, arguments)

    def get_transfer(self, transfer_id: str | UUID, **arguments: Unpack[GetTransferArguments]) -> TransferResource:
        """Get Transfer."""
        return self._call("get_transfer", {"transfer_id": str(transfer_id)}, arguments)

    def list_holds(self, **arguments: Unpack[ListHoldsArguments]) -> Page[HoldResource]:
        """List Holds."""
        return self._call("list_holds", {}, arguments)

    def get_hold(self, hold_id: str | UUID, **arguments: Unpack[GetHoldArguments]) -> HoldResponse:
        """Get Hold."""
        return self._call("get_hold", {"hold_id": str(hold_id)}, arguments)

    def list_schedules(self, **arguments: Unpack[ListSchedulesArguments]) -> Page[ScheduleResource]:
        """List Schedules."""
        return self._call("list_schedules", {}, arguments)

    def get_schedule(self, schedule_id: str | UUID, **arguments: Unpack[GetScheduleArguments]) -> ScheduleResponse:
        """Get Schedule."""
        return self._call("get_schedule", {"schedule_id": str(schedule_id)}, arguments)

    def get_receipt(self, transfer_id: str | UUID, **arguments: Unpack[GetReceiptArguments]) -> ReceiptResponse:
        """Get Receipt."""
        return self._call("get_receipt", {"transfer_id": str(transfer_id)}, arguments)

    def get_stats(self, **arguments: Unpack[GetStatsArguments]) -> StatisticsResponse:
        """Get Stats."""
        return self._call("get_stats", {}, arguments)

    def get_trial_balance(self, **arguments: Unpack[GetTrialBalanceArguments]) -> TrialBalanceResponse | PastTrialBalanceResponse:
        """Get Trial Balance."""
        return self._call("get_trial_balance", {}, arguments)

    def report_users(self, **arguments: Unpack[ReportUsersArguments]) -> UserReport:
        """Report Users."""
        return self._call("report_users", {}, arguments)

    def report_totals(self, **arguments: Unpack[ReportTotalsArguments]) -> TotalsReport:
        """Report Totals."""
        return self._call("report_totals", {}, arguments)

    def report_entries(self, **arguments: Unpack[ReportEntriesArguments]) -> EntryReport:
        """Report Entries."""
        return self._call("report_entries", {}, arguments)

    def search(self, **arguments: Unpack[SearchArguments]) -> SearchPage:
        """Search."""
        return self._call("search", {}, arguments)

    def list_activity(self, **arguments: Unpack[ListActivityArguments]) -> Page[ActivityResource]:
        """List Activity."""
        return self._call("list_activity", {}, arguments)

    def list_currencies(self, **arguments: Unpack[ListCurrenciesArguments]) -> list[CurrencyResource]:
        """List Currencies."""
        return self._call("list_currencies", {}, arguments)

    def list_events(self, **arguments: Unpack[ListEventsArguments]) -> Page[EventResource]:
        """List Events."""
        return self._call("list_events", {}, arguments)

    def list_stream(self, stream: str | UUID, **arguments: Unpack[ListStreamArguments]) -> Page[StreamEventResource]:
        """List Stream."""
        return self._call("list_stream", {"stream": str(stream)}, arguments)

    def explain_balance(self, account_id: str | UUID, **arguments: Unpack[ExplainBalanceArguments]) -> ExplanationResponse:
        """Explain Balance."""
        return self._call("explain_balance", {"account_id": str(account_id)}, arguments)

    def get_limits(self, account_id: str | UUID, **arguments: Unpack[GetLimitsArguments]) -> LimitsResponse:
        """Get Limits."""
        return self._call("get_limits", {"account_id": str(account_id)}, arguments)

    def list_ledgers(self, **arguments: Unpack[ListLedgersArguments]) -> Page[LedgerResource]:
        """List Ledgers."""
        return self._call("list_ledgers", {}, arguments)

    def get_ledger(self, ledger_id: str | UUID, **arguments: Unpack[GetLedgerArguments]) -> LedgerResource:
        """Get Ledger."""
        return self._call("get_ledger", {"ledger_id": str(ledger_id)}, arguments)

    def list_projections(self, **arguments: Unpack[ListProjectionsArguments]) -> Page[ProjectionResource]:
        """List Projections."""
        return self._call("list_projections", {}, arguments)

    def get_projection(self, name: str | UUID, **arguments: Unpack[GetProjectionArguments]) -> ProjectionResource:
        """Get Projection."""
        return self._call("get_projection", {"name": str(name)}, arguments)

    def list_projection_dead_letters(
        self, name: str | UUID, **arguments: Unpack[ListProjectionDeadLettersArguments]
    ) -> Page[DeadLetterResource]:
        """List Projection Dead Letters."""
        return self._call("list_projection_dead_letters", {"name": str(name)}, arguments)

    def list_operations(self, **arguments: Unpack[ListOperationsArguments]) -> Page[OperationResource]:
        """List Operations."""
        return self._call("list_operations", {}, arguments)

    def get_operation(self, operation_id: str | UUID, **arguments: Unpack[GetOperationArguments]) -> OperationResponse:
        """Get Operation."""
        return self._call("get_operation", {"operation_id": str(operation_id)}, arguments)

    def list_verifications(self, **arguments: Unpack[ListVerificationsArguments]) -> Page[VerificationResource]:
        """List Verifications."""
        return self._call("list_verifications", {}, arguments)

    def get_verification(
        self, verification_id: str | UUID, **arguments: Unpack[GetVerificationArguments]
    ) -> VerificationResponse:
        """Get Verification."""
        return self._call("get_verification", {"verification_id": str(verification_id)}, arguments)

    def list_seals(self, **arguments: Unpack[ListSealsArguments]) -> Page[SealResource]:
        """List Seals."""
        return self._call("list_seals", {}, arguments)

    def get_consistency(self, position: int, **arguments: Unpack[GetConsistencyArguments]) -> ConsistencyResponse:
        """Get Consistency."""
        return self._call("get_consistency", {"position": str(position)}, arguments)

    def list_days(self, **arguments: Unpack[ListDaysArguments]) -> Page[DayResource]:
        """List Days."""
        return self._call("list_days", {}, arguments)

    def get_day(self, day: str | UUID, **arguments: Unpack[GetDayArguments]) -> DayResponse:
        """Get Day."""
        return self._call("get_day", {"day": str(day)}, arguments)

    def list_refusals(self, **arguments: Unpack[ListRefusalsArguments]) -> Page[DenialResource]:
        """List Refusals."""
        return self._call("list_refusals", {}, arguments)

    def get_doctor(self, **arguments: Unpack[GetDoctorArguments]) -> DoctorResponse:
        """Get Doctor."""
        return self._call("get_doctor", {}, arguments)

    def list_audit_records(self, **arguments: Unpack[ListAuditRecordsArguments]) -> Page[AuditRecordResource]:
        """List Audit Records."""
        return self._call("list_audit_records", {}, arguments)

    def list_keys(self, **arguments: Unpack[ListKeysArguments]) -> Page[KeyResource]:
        """List Keys."""
        return self._call("list_keys", {}, arguments)

    def list_webhooks(self, **arguments: Unpack[ListWebhooksArguments]) -> Page[WebhookResource]:
        """List Webhooks."""
        return self._call("list_webhooks", {}, arguments)

    def get_webhook(self, webhook_id: str | UUID, **arguments: Unpack[GetWebhookArguments]) -> WebhookResponse:
        """Get Webhook."""
        return self._call("get_webhook", {"webhook_id": str(webhook_id)}, arguments)

    def list_deliveries(self, webhook_id: str | UUID, **arguments: Unpack[ListDeliveriesArguments]) -> Page[DeliveryResource]:
        """List Deliveries."""
        return self._call("list_deliveries", {"webhook_id": str(webhook_id)}, arguments)

    def get_caller(self, **arguments: Unpack[GetCallerArguments]) -> CallerResource:
        """Get Caller."""
        return self._call("get_caller", {}, arguments)

    @abstractmethod
    def _call(self, name: str, path_arguments: Mapping[str, str], arguments: Mapping[str, Any]) -> Any: ...


class AsyncOperations(ABC):
    async def deposit(self, **arguments: Unpack[DepositArguments]) -> OutsideTransferBody:
        """Deposit."""
        return await self._call("deposit", {}, arguments)

    async def withdraw(self, **arguments: Unpack[WithdrawArguments]) -> OutsideTransferBody:
        """Withdraw."""
        return await self._call("withdraw", {}, arguments)

    async def transfer_funds(self, **arguments: Unpack[TransferFundsArguments]) -> TransferBody | PostingsBody:
        """Transfer Funds."""
        return await self._call("transfer_funds", {}, arguments)

    async def exchange_funds(self, **arguments: Unpack[ExchangeFundsArguments]) -> ExchangeBody:
        """Exchange Funds."""
        return await self._call("exchange_funds", {}, arguments)

    async def reverse_transfer(self, transfer_id: str | UUID, **arguments: Unpack[ReverseTransferArguments]) -> ReversalBody:
        """Reverse Transfer."""
        return await self._call("reverse_transfer", {"transfer_id": str(transfer_id)}, arguments)

    async def transfer_many(self, **arguments: Unpack[TransferManyArguments]) -> TransferResults:
        """Transfer Many."""
        return await self._call("transfer_many", {}, arguments)

    async def run_batch(self, **arguments: Unpack[RunBatchArguments]) -> CommandResults:
        """Run Batch."""
        return await self._call("run_batch", {}, arguments)

    async def create_schedule(self, **arguments: Unpack[CreateScheduleArguments]) -> ScheduleBody:
        """Create Schedule."""
        return await self._call("create_schedule", {}, arguments)

    async def change_schedule(self, schedule_id: str | UUID, **arguments: Unpack[ChangeScheduleArguments]) -> ScheduleBody:
        """Change Schedule."""
        return await self._call("change_schedule", {"schedule_id": str(schedule_id)}, arguments)

    async def cancel_schedule(self, schedule_id: str | UUID, **arguments: Unpack[CancelScheduleArguments]) -> ScheduleBody:
        """Cancel Schedule."""
        return await self._call("cancel_schedule", {"schedule_id": str(schedule_id)}, arguments)

    async def create_ledger(self, **arguments: Unpack[CreateLedgerArguments]) -> LedgerBody:
        """Create Ledger."""
        return await self._call("create_ledger", {}, arguments)

    async def change_ledger(self, ledger_id: str | UUID, **arguments: Unpack[ChangeLedgerArguments]) -> LedgerBody:
        """Change Ledger."""
        return await self._call("change_ledger", {"ledger_id": str(ledger_id)}, arguments)

    async def close_ledger(self, ledger_id: str | UUID, **arguments: Unpack[CloseLedgerArguments]) -> LedgerBody:
        """Close Ledger."""
        return await self._call("close_ledger", {"ledger_id": str(ledger_id)}, arguments)

    async def close_day(self, day: str | UUID, **arguments: Unpack[CloseDayArguments]) -> DayBody:
        """Close Day."""
        return await self._call("close_day", {"day": str(day)}, arguments)

    async def register_webhook(self, **arguments: Unpack[RegisterWebhookArguments]) -> NewWebhookBody:
        """Register Webhook."""
        return await self._call("register_webhook", {}, arguments)

    async def change_webhook(self, webhook_id: str | UUID, **arguments: Unpack[ChangeWebhookArguments]) -> WebhookBody:
        """Change Webhook."""
        return await self._call("change_webhook", {"webhook_id": str(webhook_id)}, arguments)

    async def delete_webhook(self, webhook_id: str | UUID, **arguments: Unpack[DeleteWebhookArguments]) -> None:
        """Delete Webhook."""
        return await self._call("delete_webhook", {"webhook_id": str(webhook_id)}, arguments)

    async def rotate_webhook_secret(
        self, webhook_id: str | UUID, **arguments: Unpack[RotateWebhookSecretArguments]
    ) -> RotatedSecretBody:
        """Rotate Webhook Secret."""
        return await self._call("rotate_webhook_secret", {"webhook_id": str(webhook_id)}, arguments)

    async def test_webhook(self, webhook_id: str | UUID, **arguments: Unpack[TestWebhookArguments]) -> RequestedDeliveryBody:
        """Test Webhook."""
        return await self._call("test_webhook", {"webhook_id": str(webhook_id)}, arguments)

    async def repeat_delivery(
        self, webhook_id: str | UUID, delivery_id: str | UUID, **arguments: Unpack[RepeatDeliveryArguments]
    ) -> RequestedDeliveryBody:
        """Repeat Delivery."""
        return await self._call("repeat_delivery", {"webhook_id": str(webhook_id), "delivery_id": str(delivery_id)}, arguments)

    async def rebuild_projection(self, name: str | UUID, **arguments: Unpack[RebuildProjectionArguments]) -> OperationBody:
        """Rebuild Projection."""
        return await self._call("rebuild_projection", {"name": str(name)}, arguments)

    async def rollback_projection(self, name: str | UUID, **arguments: Unpack[RollbackProjectionArguments]) -> OperationBody:
        """Rollback Projection."""
        return await self._call("rollback_projection", {"name": str(name)}, arguments)

    async def pause_projection(self, name: str | UUID, **arguments: Unpack[PauseProjectionArguments]) -> OperationBody:
        """Pause Projection."""
        return await self._call("pause_projection", {"name": str(name)}, arguments)

    async def resume_projection(self, name: str | UUID, **arguments: Unpack[ResumeProjectionArguments]) -> OperationBody:
        """Resume Projection."""
        return await self._call("resume_projection", {"name": str(name)}, arguments)

    async def retry_dead_letters_of_projection(
        self, name: str | UUID, **arguments: Unpack[RetryDeadLettersOfProjectionArguments]
    ) -> OperationBody:
        """Retry Dead Letters Of Projection."""
        return await self._call("retry_dead_letters_of_projection", {"name": str(name)}, arguments)

    async def skip_dead_letter(
        self, name: str | UUID, position: int, **arguments: Unpack[SkipDeadLetterArguments]
    ) -> OperationBody:
        """Skip Dead Letter."""
        return await self._call("skip_dead_letter", {"name": str(name), "position": str(position)}, arguments)

    async def verify_ledger(self, **arguments: Unpack[VerifyLedgerArguments]) -> VerificationBody:
        """Verify Ledger."""
        return await self._call("verify_ledger", {}, arguments)

    async def cancel_verification(
        self, verification_id: str | UUID, **arguments: Unpack[CancelVerificationArguments]
    ) -> VerificationBody:
        """Cancel Verification."""
        return await self._call("cancel_verification", {"verification_id": str(verification_id)}, arguments)

    async def revoke_key(self, key_id: str | UUID, **arguments: Unpack[RevokeKeyArguments]) -> RevokedKeyBody:
        """Revoke Key."""
        return await self._call("revoke_key", {"key_id": str(key_id)}, arguments)

    async def rotate_key(self, key_id: str | UUID, **arguments: Unpack[RotateKeyArguments]) -> RotatedKeyBody:
        """Rotate Key."""
        return await self._call("rotate_key", {"key_id": str(key_id)}, arguments)

    async def create_user(self, **arguments: Unpack[CreateUserArguments]) -> UserBody:
        """Create User."""
        return await self._call("create_user", {}, arguments)

    async def change_user(self, user_id: str | UUID, **arguments: Unpack[ChangeUserArguments]) -> UserBody:
        """Change User."""
        return await self._call("change_user", {"user_id": str(user_id)}, arguments)

    async def deactivate_user(self, user_id: str | UUID, **arguments: Unpack[DeactivateUserArguments]) -> UserBody:
        """Deactivate User."""
        return await self._call("deactivate_user", {"user_id": str(user_id)}, arguments)

    async def reactivate_user(self, user_id: str | UUID, **arguments: Unpack[ReactivateUserArguments]) -> UserBody:
        """Reactivate User."""
        return await self._call("reactivate_user", {"user_id": str(user_id)}, arguments)

    async def erase_user(self, user_id: str | UUID, **arguments: Unpack[EraseUserArguments]) -> UserBody:
        """Erase User."""
        return await self._call("erase_user", {"user_id": str(user_id)}, arguments)

    async def log_in(self, **arguments: Unpack[LogInArguments]) -> LoginBody:
        """Log In."""
        return await self._call("log_in", {}, arguments)

    async def change_password(self, user_id: str | UUID, **arguments: Unpack[ChangePasswordArguments]) -> None:
        """Change Password."""
        return await self._call("change_password", {"user_id": str(user_id)}, arguments)

    async def issue_reset_token(self, user_id: str | UUID, **arguments: Unpack[IssueResetTokenArguments]) -> ResetTokenBody:
        """Issue Reset Token."""
        return await self._call("issue_reset_token", {"user_id": str(user_id)}, arguments)

    async def reset_password(self, **arguments: Unpack[ResetPasswordArguments]) -> None:
        """Reset Password."""
        return await self._call("reset_password", {}, arguments)

    async def list_sessions(self, user_id: str | UUID, **arguments: Unpack[ListSessionsArguments]) -> SessionsBody:
        """List Sessions."""
        return await self._call("list_sessions", {"user_id": str(user_id)}, arguments)

    async def end_sessions(self, user_id: str | UUID, **arguments: Unpack[EndSessionsArguments]) -> None:
        """End Sessions."""
        return await self._call("end_sessions", {"user_id": str(user_id)}, arguments)

    async def end_session(self, user_id: str | UUID, session_id: str | UUID, **arguments: Unpack[EndSessionArguments]) -> None:
        """End Session."""
        return await self._call("end_session", {"user_id": str(user_id), "session_id": str(session_id)}, arguments)

    async def open_account(self, **arguments: Unpack[OpenAccountArguments]) -> AccountBody:
        """Open Account."""
        return await self._call("open_account", {}, arguments)

    async def freeze_account(self, account_id: str | UUID, **arguments: Unpack[FreezeAccountArguments]) -> AccountBody:
        """Freeze Account."""
        return await self._call("freeze_account", {"account_id": str(account_id)}, arguments)

    async def unfreeze_account(self, account_id: str | UUID, **arguments: Unpack[UnfreezeAccountArguments]) -> AccountBody:
        """Unfreeze Account."""
        return await self._call("unfreeze_account", {"account_id": str(account_id)}, arguments)

    async def close_account(self, account_id: str | UUID, **arguments: Unpack[CloseAccountArguments]) -> AccountBody:
        """Close Account."""
        return await self._call("close_account", {"account_id": str(account_id)}, arguments)

    async def change_overdraft_limit(
        self, account_id: str | UUID, **arguments: Unpack[ChangeOverdraftLimitArguments]
    ) -> AccountBody:
        """Change Overdraft Limit."""
        return await self._call("change_overdraft_limit", {"account_id": str(account_id)}, arguments)

    async def change_account(self, account_id: str | UUID, **arguments: Unpack[ChangeAccountArguments]) -> AccountBody:
        """Change Account."""
        return await self._call("change_account", {"account_id": str(account_id)}, arguments)

    async def change_limits(self, account_id: str | UUID, **arguments: Unpack[ChangeLimitsArguments]) -> AccountBody:
        """Change Limits."""
        return await self._call("change_limits", {"account_id": str(account_id)}, arguments)

    async def place_hold(self, **arguments: Unpack[PlaceHoldArguments]) -> HoldBody:
        """Place Hold."""
        return await self._call("place_hold", {}, arguments)

    async def capture_hold(self, hold_id: str | UUID, **arguments: Unpack[CaptureHoldArguments]) -> CaptureBody:
        """Capture Hold."""
        return await self._call("capture_hold", {"hold_id": str(hold_id)}, arguments)

    async def release_hold(self, hold_id: str | UUID, **arguments: Unpack[ReleaseHoldArguments]) -> HoldBody:
        """Release Hold."""
        return await self._call("release_hold", {"hold_id": str(hold_id)}, arguments)

    async def list_users(self, **arguments: Unpack[ListUsersArguments]) -> Page[UserResource]:
        """List Users."""
        return await self._call("list_users", {}, arguments)

    async def get_user(self, user_id: str | UUID, **arguments: Unpack[GetUserArguments]) -> UserResponse:
        """Get User."""
        return await self._call("get_user", {"user_id": str(user_id)}, arguments)

    async def export_user(self, user_id: str | UUID, **arguments: Unpack[ExportUserArguments]) -> ExportResponse:
        """Export User."""
        return await self._call("export_user", {"user_id": str(user_id)}, arguments)

    async def list_accounts(self, **arguments: Unpack[ListAccountsArguments]) -> Page[AccountResource | PastAccountResource]:
        """List Accounts."""
        return await self._call("list_accounts", {}, arguments)

    async def get_account(self, account_id: str | UUID, **arguments: Unpack[GetAccountArguments]) -> AccountResponse:
        """Get Account."""
        return await self._call("get_account", {"account_id": str(account_id)}, arguments)

    async def get_balance(
        self, account_id: str | UUID, **arguments: Unpack[GetBalanceArguments]
    ) -> BalanceResponse | PastBalanceResponse:
        """Get Balance."""
        return await self._call("get_balance", {"account_id": str(account_id)}, arguments)

    async def list_entries(self, account_id: str | UUID, **arguments: Unpack[ListEntriesArguments]) -> Page[EntryResource]:
        """List Entries."""
        return await self._call("list_entries", {"account_id": str(account_id)}, arguments)

    async def get_timeline(self, account_id: str | UUID, **arguments: Unpack[GetTimelineArguments]) -> TimelinePage:
        """Get Timeline."""
        return await self._call("get_timeline", {"account_id": str(account_id)}, arguments)

    async def get_statement(self, account_id: str | UUID, **arguments: Unpack[GetStatementArguments]) -> StatementResponse:
        """Get Statement."""
        return await self._call("get_statement", {"account_id": str(account_id)}, arguments)

    async def list_transfers(self, **arguments: Unpack[ListTransfersArguments]) -> Page[TransferResource]:
        """List Transfers."""
        return await self._call("list_transfers", {}, arguments)

    async def get_transfer(self, transfer_id: str | UUID, **arguments: Unpack[GetTransferArguments]) -> TransferResource:
        """Get Transfer."""
        return await self._call("get_transfer", {"transfer_id": str(transfer_id)}, arguments)

    async def list_holds(self, **arguments: Unpack[ListHoldsArguments]) -> Page[HoldResource]:
        """List Holds."""
        return await self._call("list_holds", {}, arguments)

    async def get_hold(self, hold_id: str | UUID, **arguments: Unpack[GetHoldArguments]) -> HoldResponse:
        """Get Hold."""
        return await self._call("get_hold", {"hold_id": str(hold_id)}, arguments)

    async def list_schedules(self, **arguments: Unpack[ListSchedulesArguments]) -> Page[ScheduleResource]:
        """List Schedules."""
        return await self._call("list_schedules", {}, arguments)

    async def get_schedule(self, schedule_id: str | UUID, **arguments: Unpack[GetScheduleArguments]) -> ScheduleResponse:
        """Get Schedule."""
        return await self._call("get_schedule", {"schedule_id": str(schedule_id)}, arguments)

    async def get_receipt(self, transfer_id: str | UUID, **arguments: Unpack[GetReceiptArguments]) -> ReceiptResponse:
        """Get Receipt."""
        return await self._call("get_receipt", {"transfer_id": str(transfer_id)}, arguments)

    async def get_stats(self, **arguments: Unpack[GetStatsArguments]) -> StatisticsResponse:
        """Get Stats."""
        return await self._call("get_stats", {}, arguments)

    async def get_trial_balance(
        self, **arguments: Unpack[GetTrialBalanceArguments]
    ) -> TrialBalanceResponse | PastTrialBalanceResponse:
        """Get Trial Balance."""
        return await self._call("get_trial_balance", {}, arguments)

    async def report_users(self, **arguments: Unpack[ReportUsersArguments]) -> UserReport:
        """Report Users."""
        return await self._call("report_users", {}, arguments)

    async def report_totals(self, **arguments: Unpack[ReportTotalsArguments]) -> TotalsReport:
        """Report Totals."""
        return await self._call("report_totals", {}, arguments)

    async def report_entries(self, **arguments: Unpack[ReportEntriesArguments]) -> EntryReport:
        """Report Entries."""
        return await self._call("report_entries", {}, arguments)

    async def search(self, **arguments: Unpack[SearchArguments]) -> SearchPage:
        """Search."""
        return await self._call("search", {}, arguments)

    async def list_activity(self, **arguments: Unpack[ListActivityArguments]) -> Page[ActivityResource]:
        """List Activity."""
        return await self._call("list_activity", {}, arguments)

    async def list_currencies(self, **arguments: Unpack[ListCurrenciesArguments]) -> list[CurrencyResource]:
        """List Currencies."""
        return await self._call("list_currencies", {}, arguments)

    async def list_events(self, **arguments: Unpack[ListEventsArguments]) -> Page[EventResource]:
        """List Events."""
        return await self._call("list_events", {}, arguments)

    async def list_stream(self, stream: str | UUID, **arguments: Unpack[ListStreamArguments]) -> Page[StreamEventResource]:
        """List Stream."""
        return await self._call("list_stream", {"stream": str(stream)}, arguments)

    async def explain_balance(self, account_id: str | UUID, **arguments: Unpack[ExplainBalanceArguments]) -> ExplanationResponse:
        """Explain Balance."""
        return await self._call("explain_balance", {"account_id": str(account_id)}, arguments)

    async def get_limits(self, account_id: str | UUID, **arguments: Unpack[GetLimitsArguments]) -> LimitsResponse:
        """Get Limits."""
        return await self._call("get_limits", {"account_id": str(account_id)}, arguments)

    async def list_ledgers(self, **arguments: Unpack[ListLedgersArguments]) -> Page[LedgerResource]:
        """List Ledgers."""
        return await self._call("list_ledgers", {}, arguments)

    async def get_ledger(self, ledger_id: str | UUID, **arguments: Unpack[GetLedgerArguments]) -> LedgerResource:
        """Get Ledger."""
        return await self._call("get_ledger", {"ledger_id": str(ledger_id)}, arguments)

    async def list_projections(self, **arguments: Unpack[ListProjectionsArguments]) -> Page[ProjectionResource]:
        """List Projections."""
        return await self._call("list_projections", {}, arguments)

    async def get_projection(self, name: str | UUID, **arguments: Unpack[GetProjectionArguments]) -> ProjectionResource:
        """Get Projection."""
        return await self._call("get_projection", {"name": str(name)}, arguments)

    async def list_projection_dead_letters(
        self, name: str | UUID, **arguments: Unpack[ListProjectionDeadLettersArguments]
    ) -> Page[DeadLetterResource]:
        """List Projection Dead Letters."""
        return await self._call("list_projection_dead_letters", {"name": str(name)}, arguments)

    async def list_operations(self, **arguments: Unpack[ListOperationsArguments]) -> Page[OperationResource]:
        """List Operations."""
        return await self._call("list_operations", {}, arguments)

    async def get_operation(self, operation_id: str | UUID, **arguments: Unpack[GetOperationArguments]) -> OperationResponse:
        """Get Operation."""
        return await self._call("get_operation", {"operation_id": str(operation_id)}, arguments)

    async def list_verifications(self, **arguments: Unpack[ListVerificationsArguments]) -> Page[VerificationResource]:
        """List Verifications."""
        return await self._call("list_verifications", {}, arguments)

    async def get_verification(
        self, verification_id: str | UUID, **arguments: Unpack[GetVerificationArguments]
    ) -> VerificationResponse:
        """Get Verification."""
        return await self._call("get_verification", {"verification_id": str(verification_id)}, arguments)

    async def list_seals(self, **arguments: Unpack[ListSealsArguments]) -> Page[SealResource]:
        """List Seals."""
        return await self._call("list_seals", {}, arguments)

    async def get_consistency(self, position: int, **arguments: Unpack[GetConsistencyArguments]) -> ConsistencyResponse:
        """Get Consistency."""
        return await self._call("get_consistency", {"position": str(position)}, arguments)

    async def list_days(self, **arguments: Unpack[ListDaysArguments]) -> Page[DayResource]:
        """List Days."""
        return await self._call("list_days", {}, arguments)

    async def get_day(self, day: str | UUID, **arguments: Unpack[GetDayArguments]) -> DayResponse:
        """Get Day."""
        return await self._call("get_day", {"day": str(day)}, arguments)

    async def list_refusals(self, **arguments: Unpack[ListRefusalsArguments]) -> Page[DenialResource]:
        """List Refusals."""
        return await self._call("list_refusals", {}, arguments)

    async def get_doctor(self, **arguments: Unpack[GetDoctorArguments]) -> DoctorResponse:
        """Get Doctor."""
        return await self._call("get_doctor", {}, arguments)

    async def list_audit_records(self, **arguments: Unpack[ListAuditRecordsArguments]) -> Page[AuditRecordResource]:
        """List Audit Records."""
        return await self._call("list_audit_records", {}, arguments)

    async def list_keys(self, **arguments: Unpack[ListKeysArguments]) -> Page[KeyResource]:
        """List Keys."""
        return await self._call("list_keys", {}, arguments)

    async def list_webhooks(self, **arguments: Unpack[ListWebhooksArguments]) -> Page[WebhookResource]:
        """List Webhooks."""
        return await self._call("list_webhooks", {}, arguments)

    async def get_webhook(self, webhook_id: str | UUID, **arguments: Unpack[GetWebhookArguments]) -> WebhookResponse:
        """Get Webhook."""
        return await self._call("get_webhook", {"webhook_id": str(webhook_id)}, arguments)

    async def list_deliveries(
        self, webhook_id: str | UUID, **arguments: Unpack[ListDeliveriesArguments]
    ) -> Page[DeliveryResource]:
        """List Deliveries."""
        return await self._call("list_deliveries", {"webhook_id": str(webhook_id)}, arguments)

    async def get_caller(self, **arguments: Unpack[GetCallerArguments]) -> CallerResource:
        """Get Caller."""
        return await self._call("get_caller", {}, arguments)

    @abstractmethod
    async def _call(self, name: str, path_arguments: Mapping[str, str], arguments: Mapping[str, Any]) -> Any: ...
