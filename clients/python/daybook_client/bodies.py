"""The types of what is sent and answered. `make client` writes this file from the OpenAPI documents."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar
from uuid import UUID

from daybook_client.money import Money

T = TypeVar("T")


class Page(TypedDict, Generic[T]):
    items: "list[T]"
    next: str | None
    position: int


class AccountBalanceMember(TypedDict):
    account_id: "str"
    posted: "int"
    held: "int"
    available: "int"
    currency: "str"


class AccountBody(TypedDict):
    id: "str"
    position: "int"
    version: "int"
    owner_id: "str"
    currency: "str"
    status: "Literal['open', 'frozen', 'closed']"
    overdraft_limit: "int"
    limits: "NotRequired[LimitsMember | None]"
    balance: "AccountBalanceMember"


class BalanceMember(TypedDict):
    account_id: "str"
    posted: "int"
    held: "int"
    available: "int"


class CaptureBody(TypedDict):
    id: "str"
    position: "int"
    from_account_id: "str"
    to_account_id: "str | None"
    amount: "int"
    currency: "str"
    occurred_at: "str"
    recorded_at: "str"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    hold: "HoldMember"
    balances: "list[BalanceMember]"


class CaptureItem(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "NotRequired[int | None]"
    to_account_id: "NotRequired[str | UUID | None]"
    final: "NotRequired[bool]"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    type: "Literal['capture']"
    hold_id: "str | UUID"


class ChangedLedger(TypedDict):
    currencies: "NotRequired[list[str] | None]"
    transfer_max: "NotRequired[dict[str, int] | None]"
    name: "NotRequired[str | None]"


class CommandBatch(TypedDict):
    mode: "NotRequired[Literal['independent', 'atomic']]"
    commands: "list[DepositItem | WithdrawalItem | TransferItem | PostingsItem | ExchangeItem | HoldItem | CaptureItem | ReleaseItem | ReverseItem]"


class CommandResult(TypedDict):
    status: "int"
    body: "OutsideTransferBody | TransferBody | PostingsBody | ExchangeBody | HoldBody | CaptureBody | ReversalBody | dict[str, Any]"


class CommandResults(TypedDict):
    results: "list[CommandResult]"


class DayBody(TypedDict):
    position: "int"
    version: "int"
    day: "str"
    time_zone: "str"
    up_to: "int"
    events: "int"
    first_position: "NotRequired[int | None]"
    last_position: "NotRequired[int | None]"
    root: "str"
    totals: "list[DayTotals]"


class DayTotals(TypedDict):
    currency: "str"
    entries: "int"
    moved: "str"
    paid_in: "str"
    paid_out: "str"


class Deposit(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    account_id: "str | UUID"


class DepositItem(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    account_id: "str | UUID"
    type: "Literal['deposit']"


class ExchangeBody(TypedDict):
    id: "str"
    position: "int"
    postings: "list[PostingMember]"
    occurred_at: "str"
    recorded_at: "str"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    balances: "list[BalanceMember]"
    from_account_id: "str"
    to_account_id: "str"
    from_amount: "int"
    from_currency: "str"
    to_amount: "int"
    to_currency: "str"
    rate: "str"
    remainder_account_id: "str"
    remainder: "str"
    carried: "str"


class ExchangeFunds(TypedDict):
    id: "NotRequired[str | UUID]"
    from_account_id: "str | UUID"
    to_account_id: "str | UUID"
    house_from_account_id: "str | UUID"
    house_to_account_id: "str | UUID"
    remainder_account_id: "str | UUID"
    from_currency: "str"
    to_currency: "str"
    rate: "str | Decimal"
    from_amount: "int | Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"


class ExchangeItem(TypedDict):
    id: "NotRequired[str | UUID]"
    from_account_id: "str | UUID"
    to_account_id: "str | UUID"
    house_from_account_id: "str | UUID"
    house_to_account_id: "str | UUID"
    remainder_account_id: "str | UUID"
    from_currency: "str"
    to_currency: "str"
    rate: "str | Decimal"
    from_amount: "int | Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    type: "Literal['exchange']"


class HoldBody(TypedDict):
    id: "str"
    version: "int"
    account_id: "str"
    to_account_id: "str | None"
    amount: "int"
    currency: "str"
    captured: "int"
    remaining: "int"
    status: "Literal['active', 'captured', 'released', 'expired']"
    expires_at: "str | None"
    position: "int"
    recorded_at: "str"
    balances: "list[BalanceMember]"


class HoldCapture(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "NotRequired[int | None]"
    to_account_id: "NotRequired[str | UUID | None]"
    final: "NotRequired[bool]"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"


class HoldItem(TypedDict):
    id: "NotRequired[str | UUID]"
    account_id: "str | UUID"
    to_account_id: "NotRequired[str | UUID | None]"
    amount: "Money"
    expires_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    type: "Literal['hold']"


class HoldMember(TypedDict):
    id: "str"
    version: "int"
    account_id: "str"
    to_account_id: "str | None"
    amount: "int"
    currency: "str"
    captured: "int"
    remaining: "int"
    status: "Literal['active', 'captured', 'released', 'expired']"
    expires_at: "str | None"


class KeyRotation(TypedDict):
    overlap_seconds: "NotRequired[int]"


class LedgerBody(TypedDict):
    id: "str"
    position: "int"
    version: "int"
    name: "str"
    status: "Literal['open', 'closed']"
    time_zone: "str"
    currencies: "list[str] | None"
    transfer_max: "dict[str, int] | None"


class LimitsMember(TypedDict):
    per_transfer_min: "int | None"
    per_transfer_max: "int | None"
    per_day: "int | None"
    per_month: "int | None"


class LoginBody(TypedDict):
    token: "str"
    user_id: "str"
    session_id: "str"
    expires_at: "str"
    ends_at: "str"


class LoginCredentials(TypedDict):
    email: "str"
    password: "str"


class MoveFunds(TypedDict):
    id: "NotRequired[str | UUID]"
    postings: "list[RequestedPosting]"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"


class NewLedger(TypedDict):
    currencies: "NotRequired[list[str] | None]"
    transfer_max: "NotRequired[dict[str, int] | None]"
    time_zone: "NotRequired[str]"
    id: "str"
    name: "NotRequired[str | None]"


class NewLimits(TypedDict):
    per_transfer_min: "NotRequired[int | None]"
    per_transfer_max: "NotRequired[int | None]"
    per_day: "NotRequired[int | None]"
    per_month: "NotRequired[int | None]"


class NewMetadata(TypedDict):
    metadata: "dict[str, str] | None"


class NewOverdraftLimit(TypedDict):
    overdraft_limit: "int"


class NewPassword(TypedDict):
    password: "str"
    current_password: "str"


class NewSchedule(TypedDict):
    at: "NotRequired[str | datetime | None]"
    rule: "NotRequired[RequestedRule | None]"
    id: "NotRequired[str | UUID]"
    transfer: "PlannedTransfer"


class NewUser(TypedDict):
    id: "NotRequired[str | UUID]"
    name: "str"
    email: "str"
    metadata: "NotRequired[dict[str, str] | None]"


class NewWebhook(TypedDict):
    id: "NotRequired[str | UUID]"
    url: "str"
    types: "NotRequired[list[Literal['UserCreated', 'UserChanged', 'UserDeactivated', 'UserReactivated', 'UserErased', 'AccountOpened', 'AccountFrozen', 'AccountUnfrozen', 'AccountClosed', 'OverdraftLimitChanged', 'AccountLimitsChanged', 'AccountMetadataChanged', 'HoldPlaced', 'HoldReleased', 'HoldExpired', 'FundsDeposited', 'FundsWithdrawn', 'FundsTransferred', 'HoldCaptured', 'TransferReversed', 'FundsMoved', 'FundsExchanged', 'ProjectionEventSkipped', 'LedgerCreated', 'LedgerChanged', 'LedgerClosed', 'DayClosed', 'ScheduleCreated', 'ScheduleChanged', 'ScheduleCancelled', 'ScheduleRunRefused']]]"
    streams: "NotRequired[list[str]]"


class NewWebhookBody(TypedDict):
    id: "str"
    url: "str"
    types: "list[str]"
    streams: "list[str]"
    status: "Literal['active', 'disabled']"
    position: "int"
    secret: "str"


class OpenAccount(TypedDict):
    id: "NotRequired[str | UUID]"
    owner_id: "str | UUID"
    currency: "str"
    overdraft_limit: "NotRequired[int]"
    metadata: "NotRequired[dict[str, str] | None]"


class OperationBody(TypedDict):
    id: "str"
    projection: "str"
    kind: "Literal['rebuild', 'rollback', 'retry', 'skip', 'pause', 'resume']"
    event_position: "int | None"
    reason: "str"
    requested_by: "str"
    status: "Literal['waiting', 'running', 'done', 'failed']"
    events_done: "int"
    events_total: "int"
    code: "str | None"
    outcome: "str | None"
    requested_at: "str"
    changed_at: "str"


class OperationReason(TypedDict):
    reason: "str"


class OutsideTransferBody(TypedDict):
    id: "str"
    position: "int"
    account_id: "str"
    amount: "int"
    currency: "str"
    occurred_at: "str"
    recorded_at: "str"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    balances: "list[BalanceMember]"


class PlaceHold(TypedDict):
    id: "NotRequired[str | UUID]"
    account_id: "str | UUID"
    to_account_id: "NotRequired[str | UUID | None]"
    amount: "Money"
    expires_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"


class PlannedTransfer(TypedDict):
    from_account_id: "str | UUID"
    to_account_id: "str | UUID"
    amount: "Money"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"


class PlannedTransferMember(TypedDict):
    from_account_id: "str"
    to_account_id: "str"
    amount: "int"
    currency: "str"
    reference: "str | None"
    metadata: "dict[str, str] | None"


class PostingMember(TypedDict):
    account_id: "str | None"
    amount: "int"
    currency: "str"


class PostingsBody(TypedDict):
    id: "str"
    position: "int"
    postings: "list[PostingMember]"
    occurred_at: "str"
    recorded_at: "str"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    balances: "list[BalanceMember]"


class PostingsItem(TypedDict):
    id: "NotRequired[str | UUID]"
    postings: "list[RequestedPosting]"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    type: "Literal['transfer']"


class ReleaseItem(TypedDict):
    type: "Literal['release']"
    hold_id: "str | UUID"


class RequestedDeliveryBody(TypedDict):
    delivery_id: "str"


class RequestedPosting(TypedDict):
    account_id: "str | UUID | None"
    amount: "Money"


class RequestedRule(TypedDict):
    every: "Literal['day', 'week', 'month']"
    day: "NotRequired[int | None]"
    time: "str"
    time_zone: "str"
    weekend: "NotRequired[Literal['same', 'before', 'after']]"
    starts_on: "NotRequired[str | None]"
    until: "NotRequired[str | None]"


class ResetTokenBody(TypedDict):
    token: "str"
    user_id: "str"
    expires_at: "str"


class Reversal(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "NotRequired[int | None]"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"


class ReversalBody(TypedDict):
    id: "str"
    position: "int"
    reverses: "str"
    from_account_id: "str | None"
    to_account_id: "str | None"
    amount: "int"
    currency: "str"
    reversed: "int"
    remaining: "int"
    occurred_at: "str"
    recorded_at: "str"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    balances: "list[BalanceMember]"


class ReverseItem(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "NotRequired[int | None]"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    type: "Literal['reverse']"
    transfer_id: "str | UUID"


class RevokedKeyBody(TypedDict):
    id: "str"
    revoked_key_ids: "list[str]"


class RotatedKeyBody(TypedDict):
    id: "str"
    token: "str"
    expires_at: "str | None"
    old_key_id: "str"
    old_expires_at: "str"


class RotatedSecretBody(TypedDict):
    id: "str"
    secret: "str"
    old_secret_until: "str"


class RuleMember(TypedDict):
    every: "Literal['day', 'week', 'month']"
    day: "int | None"
    time: "str"
    time_zone: "str"
    weekend: "Literal['same', 'before', 'after']"
    starts_on: "str | None"
    until: "str | None"


class ScheduleBody(TypedDict):
    id: "str"
    version: "int"
    transfer: "PlannedTransferMember"
    rule: "RuleMember | None"
    status: "Literal['active', 'cancelled', 'ended']"
    next_run_at: "str | None"
    run_count: "int"
    position: "int"


class ScheduleChanges(TypedDict):
    at: "NotRequired[str | datetime | None]"
    rule: "NotRequired[RequestedRule | None]"
    transfer: "NotRequired[TransferChanges]"


class SecretRotation(TypedDict):
    overlap_seconds: "NotRequired[int]"


class SessionItem(TypedDict):
    id: "str"
    network: "str"
    origin_key_id: "str"
    created_at: "str"
    used_at: "str"
    expires_at: "str"
    ends_at: "str"
    current: "bool"


class SessionsBody(TypedDict):
    items: "list[SessionItem]"


class TokenPassword(TypedDict):
    token: "str"
    password: "str"


class TransferBatch(TypedDict):
    mode: "NotRequired[Literal['independent', 'atomic']]"
    transfers: "list[TransferFunds]"


class TransferBody(TypedDict):
    id: "str"
    position: "int"
    from_account_id: "str"
    to_account_id: "str"
    amount: "int"
    currency: "str"
    occurred_at: "str"
    recorded_at: "str"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    balances: "list[BalanceMember]"


class TransferChanges(TypedDict):
    to_account_id: "NotRequired[str | UUID | None]"
    amount: "NotRequired[int | None]"


class TransferFunds(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    from_account_id: "str | UUID"
    to_account_id: "str | UUID"


class TransferItem(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    from_account_id: "str | UUID"
    to_account_id: "str | UUID"
    type: "Literal['transfer']"


class TransferResult(TypedDict):
    status: "int"
    body: "TransferBody | dict[str, Any]"


class TransferResults(TypedDict):
    results: "list[TransferResult]"


class UserBody(TypedDict):
    id: "str"
    position: "int"
    version: "int"
    name: "str | None"
    email: "str | None"
    status: "Literal['active', 'inactive', 'erased']"


class UserChangesBody(TypedDict):
    name: "NotRequired[str | None]"
    email: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    current_password: "NotRequired[str | None]"


class VerificationBody(TypedDict):
    id: "str"
    status: "Literal['waiting', 'running', 'done', 'failed', 'cancelled']"


class WebhookBody(TypedDict):
    id: "str"
    url: "str"
    types: "list[str]"
    streams: "list[str]"
    status: "Literal['active', 'disabled']"
    position: "int"


class WebhookChanges(TypedDict):
    url: "NotRequired[str | None]"
    types: "NotRequired[list[Literal['UserCreated', 'UserChanged', 'UserDeactivated', 'UserReactivated', 'UserErased', 'AccountOpened', 'AccountFrozen', 'AccountUnfrozen', 'AccountClosed', 'OverdraftLimitChanged', 'AccountLimitsChanged', 'AccountMetadataChanged', 'HoldPlaced', 'HoldReleased', 'HoldExpired', 'FundsDeposited', 'FundsWithdrawn', 'FundsTransferred', 'HoldCaptured', 'TransferReversed', 'FundsMoved', 'FundsExchanged', 'ProjectionEventSkipped', 'LedgerCreated', 'LedgerChanged', 'LedgerClosed', 'DayClosed', 'ScheduleCreated', 'ScheduleChanged', 'ScheduleCancelled', 'ScheduleRunRefused']] | None]"
    streams: "NotRequired[list[str] | None]"
    status: "NotRequired[Literal['active', 'disabled'] | None]"


class Withdraw(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    account_id: "str | UUID"


class WithdrawalItem(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    account_id: "str | UUID"
    type: "Literal['withdrawal']"


class DepositArguments(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    account_id: "str | UUID"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class WithdrawArguments(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    account_id: "str | UUID"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class TransferFundsArguments(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "NotRequired[Money]"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    from_account_id: "NotRequired[str | UUID]"
    to_account_id: "NotRequired[str | UUID]"
    postings: "NotRequired[list[RequestedPosting]]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class ExchangeFundsArguments(TypedDict):
    id: "NotRequired[str | UUID]"
    from_account_id: "str | UUID"
    to_account_id: "str | UUID"
    house_from_account_id: "str | UUID"
    house_to_account_id: "str | UUID"
    remainder_account_id: "str | UUID"
    from_currency: "str"
    to_currency: "str"
    rate: "str | Decimal"
    from_amount: "int | Money"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class ReverseTransferArguments(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "NotRequired[int | None]"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class TransferManyArguments(TypedDict):
    mode: "NotRequired[Literal['independent', 'atomic']]"
    transfers: "list[TransferFunds]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class RunBatchArguments(TypedDict):
    mode: "NotRequired[Literal['independent', 'atomic']]"
    commands: "list[DepositItem | WithdrawalItem | TransferItem | PostingsItem | ExchangeItem | HoldItem | CaptureItem | ReleaseItem | ReverseItem]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class CreateScheduleArguments(TypedDict):
    at: "NotRequired[str | datetime | None]"
    rule: "NotRequired[RequestedRule | None]"
    id: "NotRequired[str | UUID]"
    transfer: "PlannedTransfer"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class ChangeScheduleArguments(TypedDict):
    at: "NotRequired[str | datetime | None]"
    rule: "NotRequired[RequestedRule | None]"
    transfer: "NotRequired[TransferChanges]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class CancelScheduleArguments(TypedDict):
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class CreateLedgerArguments(TypedDict):
    currencies: "NotRequired[list[str] | None]"
    transfer_max: "NotRequired[dict[str, int] | None]"
    time_zone: "NotRequired[str]"
    id: "str"
    name: "NotRequired[str | None]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    dry_run: "NotRequired[bool]"


class ChangeLedgerArguments(TypedDict):
    currencies: "NotRequired[list[str] | None]"
    transfer_max: "NotRequired[dict[str, int] | None]"
    name: "NotRequired[str | None]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    dry_run: "NotRequired[bool]"


class CloseLedgerArguments(TypedDict):
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    dry_run: "NotRequired[bool]"


class CloseDayArguments(TypedDict):
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class RegisterWebhookArguments(TypedDict):
    id: "NotRequired[str | UUID]"
    url: "str"
    types: "NotRequired[list[Literal['UserCreated', 'UserChanged', 'UserDeactivated', 'UserReactivated', 'UserErased', 'AccountOpened', 'AccountFrozen', 'AccountUnfrozen', 'AccountClosed', 'OverdraftLimitChanged', 'AccountLimitsChanged', 'AccountMetadataChanged', 'HoldPlaced', 'HoldReleased', 'HoldExpired', 'FundsDeposited', 'FundsWithdrawn', 'FundsTransferred', 'HoldCaptured', 'TransferReversed', 'FundsMoved', 'FundsExchanged', 'ProjectionEventSkipped', 'LedgerCreated', 'LedgerChanged', 'LedgerClosed', 'DayClosed', 'ScheduleCreated', 'ScheduleChanged', 'ScheduleCancelled', 'ScheduleRunRefused']]]"
    streams: "NotRequired[list[str]]"
    ledger: "NotRequired[str]"


class ChangeWebhookArguments(TypedDict):
    url: "NotRequired[str | None]"
    types: "NotRequired[list[Literal['UserCreated', 'UserChanged', 'UserDeactivated', 'UserReactivated', 'UserErased', 'AccountOpened', 'AccountFrozen', 'AccountUnfrozen', 'AccountClosed', 'OverdraftLimitChanged', 'AccountLimitsChanged', 'AccountMetadataChanged', 'HoldPlaced', 'HoldReleased', 'HoldExpired', 'FundsDeposited', 'FundsWithdrawn', 'FundsTransferred', 'HoldCaptured', 'TransferReversed', 'FundsMoved', 'FundsExchanged', 'ProjectionEventSkipped', 'LedgerCreated', 'LedgerChanged', 'LedgerClosed', 'DayClosed', 'ScheduleCreated', 'ScheduleChanged', 'ScheduleCancelled', 'ScheduleRunRefused']] | None]"
    streams: "NotRequired[list[str] | None]"
    status: "NotRequired[Literal['active', 'disabled'] | None]"
    ledger: "NotRequired[str]"


class DeleteWebhookArguments(TypedDict):
    ledger: "NotRequired[str]"


class RotateWebhookSecretArguments(TypedDict):
    overlap_seconds: "NotRequired[int]"
    ledger: "NotRequired[str]"


class TestWebhookArguments(TypedDict):
    ledger: "NotRequired[str]"


class RepeatDeliveryArguments(TypedDict):
    ledger: "NotRequired[str]"


class RebuildProjectionArguments(TypedDict):
    reason: "str"
    ledger: "NotRequired[str]"


class RollbackProjectionArguments(TypedDict):
    reason: "str"
    ledger: "NotRequired[str]"


class PauseProjectionArguments(TypedDict):
    reason: "str"
    ledger: "NotRequired[str]"


class ResumeProjectionArguments(TypedDict):
    reason: "str"
    ledger: "NotRequired[str]"


class RetryDeadLettersOfProjectionArguments(TypedDict):
    reason: "str"
    ledger: "NotRequired[str]"


class SkipDeadLetterArguments(TypedDict):
    reason: "str"
    ledger: "NotRequired[str]"


class VerifyLedgerArguments(TypedDict):
    reason: "str"
    ledger: "NotRequired[str]"


class CancelVerificationArguments(TypedDict):
    ledger: "NotRequired[str]"


class RevokeKeyArguments(TypedDict):
    ledger: "NotRequired[str]"


class RotateKeyArguments(TypedDict):
    overlap_seconds: "NotRequired[int]"
    ledger: "NotRequired[str]"


class CreateUserArguments(TypedDict):
    id: "NotRequired[str | UUID]"
    name: "str"
    email: "str"
    metadata: "NotRequired[dict[str, str] | None]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class ChangeUserArguments(TypedDict):
    name: "NotRequired[str | None]"
    email: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    current_password: "NotRequired[str | None]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class DeactivateUserArguments(TypedDict):
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class ReactivateUserArguments(TypedDict):
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class EraseUserArguments(TypedDict):
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class LogInArguments(TypedDict):
    email: "str"
    password: "str"
    ledger: "NotRequired[str]"


class ChangePasswordArguments(TypedDict):
    password: "str"
    current_password: "str"
    ledger: "NotRequired[str]"


class IssueResetTokenArguments(TypedDict):
    ledger: "NotRequired[str]"


class ResetPasswordArguments(TypedDict):
    token: "str"
    password: "str"


class ListSessionsArguments(TypedDict):
    ledger: "NotRequired[str]"


class EndSessionsArguments(TypedDict):
    ledger: "NotRequired[str]"


class EndSessionArguments(TypedDict):
    ledger: "NotRequired[str]"


class OpenAccountArguments(TypedDict):
    id: "NotRequired[str | UUID]"
    owner_id: "str | UUID"
    currency: "str"
    overdraft_limit: "NotRequired[int]"
    metadata: "NotRequired[dict[str, str] | None]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class FreezeAccountArguments(TypedDict):
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class UnfreezeAccountArguments(TypedDict):
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class CloseAccountArguments(TypedDict):
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class ChangeOverdraftLimitArguments(TypedDict):
    overdraft_limit: "int"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class ChangeAccountArguments(TypedDict):
    metadata: "dict[str, str] | None"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class ChangeLimitsArguments(TypedDict):
    per_transfer_min: "NotRequired[int | None]"
    per_transfer_max: "NotRequired[int | None]"
    per_day: "NotRequired[int | None]"
    per_month: "NotRequired[int | None]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class PlaceHoldArguments(TypedDict):
    id: "NotRequired[str | UUID]"
    account_id: "str | UUID"
    to_account_id: "NotRequired[str | UUID | None]"
    amount: "Money"
    expires_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class CaptureHoldArguments(TypedDict):
    id: "NotRequired[str | UUID]"
    amount: "NotRequired[int | None]"
    to_account_id: "NotRequired[str | UUID | None]"
    final: "NotRequired[bool]"
    occurred_at: "NotRequired[str | datetime | None]"
    reference: "NotRequired[str | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class ReleaseHoldArguments(TypedDict):
    idempotency_key: "NotRequired[str]"
    if_match: "NotRequired[int]"
    ledger: "NotRequired[str]"
    dry_run: "NotRequired[bool]"


class AccountResource(TypedDict):
    id: "str"
    owner_id: "str"
    currency: "str"
    status: "Literal['open', 'frozen', 'closed']"
    overdraft_limit: "int"
    metadata: "dict[str, str] | None"
    opened_at: "str"
    changed_at: "str"
    version: "int"
    balance: "BalanceResource"


class AccountResponse(TypedDict):
    id: "str"
    owner_id: "str"
    currency: "str"
    status: "Literal['open', 'frozen', 'closed']"
    overdraft_limit: "int"
    metadata: "dict[str, str] | None"
    opened_at: "str"
    changed_at: "str"
    version: "int"
    balance: "BalanceResource"
    position: "int"


class AccountsByStatus(TypedDict):
    open: "int"
    frozen: "int"
    closed: "int"


class ActivityResource(TypedDict):
    id: "str"
    kind: "Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange']"
    from_account_id: "str | None"
    to_account_id: "str | None"
    amount: "int"
    currency: "str"
    occurred_at: "str"
    recorded_at: "str"
    reference: "str | None"
    position: "int"


class AuditCallerMember(TypedDict):
    principal: "str | None"
    key_id: "str | None"
    network: "str | None"
    request_id: "str | None"


class AuditRecordResource(TypedDict):
    audit_position: "int"
    act: "Literal['key-made', 'key-rotated', 'key-revoked', 'reset-token-issued', 'password-set', 'password-denied', 'login-denied', 'session-begun', 'session-ended', 'sessions-ended', 'limits-changed', 'webhook-made', 'webhook-changed', 'webhook-deleted', 'webhook-secret-rotated', 'operation-requested', 'verification-requested', 'verification-cancelled']"
    data: "dict[str, Any]"
    caller: "AuditCallerMember"
    recorded_at: "str"
    hash: "str"


class BalanceResource(TypedDict):
    account_id: "str"
    currency: "str"
    posted: "int"
    held: "int"
    available: "int"


class BalanceResponse(TypedDict):
    account_id: "str"
    currency: "str"
    posted: "int"
    held: "int"
    available: "int"
    position: "int"


class BusyAccount(TypedDict):
    account_id: "str"
    transfers: "int"


class CallerResource(TypedDict):
    principal: "str"
    ledger_id: "str"
    all_ledgers: "bool"
    user_id: "str | None"
    scopes: "list[Literal['users:write', 'credentials:write', 'accounts:write', 'transfers:write', 'ledger:read', 'events:read', 'ops:admin']]"


class CheckResource(TypedDict):
    name: "str"
    verdict: "Literal['ok', 'dead-letters', 'different']"
    text: "str"


class ClosingBalance(TypedDict):
    day: "str"
    balance: "int"
    currency: "str"


ConsistencyResponse = TypedDict(
    "ConsistencyResponse", {"from": "SealResource", "to": "SealResource", "path": "list[str]", "position": "int"}
)


class CountedLimitResource(TypedDict):
    limit: "int"
    used: "int"
    resets_at: "str"


class CurrencyHolding(TypedDict):
    currency: "str"
    accounts: "int"
    sum: "str"


class CurrencyResource(TypedDict):
    code: "str"
    exponent: "int"
    name: "str"


class CurrencyStatistics(TypedDict):
    currency: "str"
    accounts: "AccountsByStatus"
    posted: "str"
    outside: "str"


class CurrencyTrialBalance(TypedDict):
    currency: "str"
    accounts: "str"
    outside: "str"
    sum: "str"


class DayResource(TypedDict):
    day: "str"
    time_zone: "str"
    start: "str"
    end: "str"
    up_to: "int"
    events: "int"
    first_position: "int | None"
    last_position: "int | None"
    root: "str"
    totals: "list[DayTotalsResource]"
    closed_at: "str"
    closed_position: "int"


class DayResponse(TypedDict):
    day: "str"
    time_zone: "str"
    start: "str"
    end: "str"
    up_to: "int"
    events: "int"
    first_position: "int | None"
    last_position: "int | None"
    root: "str"
    totals: "list[DayTotalsResource]"
    closed_at: "str"
    closed_position: "int"
    after_close: "LateTransfers"
    position: "int"


class DayStatistics(TypedDict):
    day: "str"
    transfers: "int"
    amounts: "dict[str, str]"


class DayTotalsResource(TypedDict):
    currency: "str"
    entries: "int"
    moved: "str"
    paid_in: "str"
    paid_out: "str"


class DeadLetterResource(TypedDict):
    event_position: "int"
    event_id: "str"
    type: "str"
    streams: "list[str]"
    cause: "str"
    attempts: "int"
    since: "str"


class DeliveryResource(TypedDict):
    id: "str"
    event_position: "int | None"
    type: "str"
    status: "Literal['delivered', 'retrying', 'failed', 'requested']"
    attempts: "int"
    outcome: "str | None"
    changed_at: "str"


class DenialResource(TypedDict):
    refused_at: "str"
    code: "str"
    api: "Literal['commands', 'queries']"
    method: "str"
    path: "str"
    address: "str"
    principal: "str"
    key_id: "str"
    ledger_id: "str"
    request_id: "str"
    count: "int"


class DoctorResponse(TypedDict):
    items: "list[FindingResource]"
    examined_at: "str"


class EntryReport(TypedDict):
    page: "int"
    page_size: "int"
    total: "int"
    pages: "int"
    position: "int"
    items: "list[EntryReportItem]"


class EntryReportItem(TypedDict):
    account_id: "str"
    transfer_id: "str"
    kind: "Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange']"
    amount: "int"
    balance: "int"
    currency: "str"
    counterparty_account_id: "str | None"
    occurred_at: "str"
    recorded_at: "str"
    month: "str"
    reference: "str | None"
    position: "int"


class EntryResource(TypedDict):
    account_id: "str"
    transfer_id: "str"
    kind: "Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange']"
    amount: "int"
    balance: "int"
    currency: "str"
    counterparty_account_id: "str | None"
    occurred_at: "str"
    recorded_at: "str"
    reference: "str | None"
    position: "int"
    after_close: "bool"


class EventResource(TypedDict):
    position: "int"
    event_id: "str"
    type: "str"
    schema_version: "int"
    data: "dict[str, Any]"
    metadata: "dict[str, Any]"
    recorded_at: "str"
    hash: "str"


class ExchangeMember(TypedDict):
    to_amount: "int"
    to_currency: "str"
    rate: "str"
    remainder_account_id: "str | None"
    remainder: "str"


class ExplanationResponse(TypedDict):
    account_id: "str"
    currency: "str"
    balance: "int"
    facts: "list[FactResource]"
    adds_up: "bool"
    next: "str | None"
    position: "int"


class ExportResponse(TypedDict):
    user: "UserResource"
    accounts: "list[AccountResource]"
    transfers: "list[TransferResource]"
    events: "list[PersonalEvent]"
    position: "int"


class FacetValue(TypedDict):
    value: "str"
    count: "int"


class Facets(TypedDict):
    currency: "list[FacetValue]"
    kind: "list[FacetValue]"
    month: "list[FacetValue]"


class FactResource(TypedDict):
    position: "int"
    type: "Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange']"
    transfer_id: "str"
    amount: "int"
    balance: "int"


class FindingResource(TypedDict):
    name: "str"
    severity: "Literal['danger', 'warning']"
    what: "str"
    fix: "str"


class FoundTransfer(TypedDict):
    type: "Literal['transfer']"
    id: "str"
    kind: "Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange']"
    from_account_id: "str | None"
    from_name: "str | None"
    to_account_id: "str | None"
    to_name: "str | None"
    amount: "int"
    currency: "str"
    occurred_at: "str"
    recorded_at: "str"
    reference: "str | None"
    metadata: "dict[str, str] | None"
    position: "int"
    highlights: "dict[str, list[str]]"


class FoundUser(TypedDict):
    type: "Literal['user']"
    id: "str"
    name: "str | None"
    email: "str | None"
    status: "Literal['active', 'inactive', 'erased']"
    metadata: "dict[str, str] | None"
    recorded_at: "str"
    position: "int"
    highlights: "dict[str, list[str]]"


class HashedEvent(TypedDict):
    hash_before: "str"
    ledger_id: "str"
    position: "int"
    event_id: "str"
    type: "str"
    schema_version: "int"
    data: "dict[str, Any]"
    metadata: "dict[str, Any]"
    recorded_at: "str"


class HoldResource(TypedDict):
    id: "str"
    account_id: "str"
    to_account_id: "str | None"
    amount: "int"
    captured: "int"
    remaining: "int"
    currency: "str"
    status: "Literal['active', 'captured', 'released', 'expired']"
    expires_at: "str | None"
    placed_at: "str"
    changed_at: "str"
    reference: "str | None"
    metadata: "dict[str, str] | None"
    version: "int"


class HoldResponse(TypedDict):
    id: "str"
    account_id: "str"
    to_account_id: "str | None"
    amount: "int"
    captured: "int"
    remaining: "int"
    currency: "str"
    status: "Literal['active', 'captured', 'released', 'expired']"
    expires_at: "str | None"
    placed_at: "str"
    changed_at: "str"
    reference: "str | None"
    metadata: "dict[str, str] | None"
    version: "int"
    position: "int"


class KeyResource(TypedDict):
    id: "str"
    principal: "str"
    user_id: "str | None"
    scopes: "list[Literal['users:write', 'credentials:write', 'accounts:write', 'transfers:write', 'ledger:read', 'events:read', 'ops:admin']]"
    status: "Literal['valid', 'expired', 'revoked']"
    created_at: "str"
    expires_at: "str | None"
    last_used_at: "str | None"
    revoked_at: "str | None"
    origin_key_id: "str | None"


class LateTransfers(TypedDict):
    count: "int"
    transfer_ids: "list[str]"


class LedgerResource(TypedDict):
    id: "str"
    name: "str"
    status: "Literal['open', 'closed']"
    time_zone: "str"
    currencies: "list[str] | None"
    transfer_max: "dict[str, int] | None"
    created_at: "str | None"
    closed_at: "str | None"
    position: "int"


class LimitChangeResource(TypedDict):
    position: "int"
    recorded_at: "str"
    overdraft_limit: "NotRequired[int | None]"
    limits: "NotRequired[SpendingLimitsResource | None]"


class LimitsResponse(TypedDict):
    account_id: "str"
    currency: "str"
    overdraft_limit: "int"
    per_transfer_min: "int | None"
    per_transfer_max: "int | None"
    per_day: "CountedLimitResource | None"
    per_month: "CountedLimitResource | None"
    history: "list[LimitChangeResource]"
    next: "str | None"
    position: "int"


class OperationResource(TypedDict):
    id: "str"
    projection: "str"
    kind: "Literal['rebuild', 'rollback', 'retry', 'skip', 'pause', 'resume']"
    event_position: "int | None"
    reason: "str"
    requested_by: "str"
    status: "Literal['waiting', 'running', 'done', 'failed']"
    events_done: "int"
    events_total: "int"
    code: "str | None"
    outcome: "str | None"
    requested_at: "str"
    changed_at: "str"


class OperationResponse(TypedDict):
    id: "str"
    projection: "str"
    kind: "Literal['rebuild', 'rollback', 'retry', 'skip', 'pause', 'resume']"
    event_position: "int | None"
    reason: "str"
    requested_by: "str"
    status: "Literal['waiting', 'running', 'done', 'failed']"
    events_done: "int"
    events_total: "int"
    code: "str | None"
    outcome: "str | None"
    requested_at: "str"
    changed_at: "str"
    position: "int"


class PastAccountResource(TypedDict):
    id: "str"
    owner_id: "str"
    currency: "str"
    opened_at: "str"
    balance: "PastBalance"


class PastBalance(TypedDict):
    account_id: "str"
    currency: "str"
    posted: "int"
    axis: "Literal['recorded_at', 'occurred_at']"
    moment: "str"


class PastBalanceResponse(TypedDict):
    account_id: "str"
    currency: "str"
    posted: "int"
    axis: "Literal['recorded_at', 'occurred_at']"
    moment: "str"
    position: "int"


class PastTrialBalanceResponse(TypedDict):
    currencies: "list[CurrencyTrialBalance]"
    position: "int"
    axis: "Literal['recorded_at', 'occurred_at']"
    moment: "str"


class PersonalEvent(TypedDict):
    position: "int"
    event_id: "str"
    type: "str"
    schema_version: "int"
    data: "dict[str, Any]"
    recorded_at: "str"


class ProjectionResource(TypedDict):
    name: "str"
    generation: "int | None"
    state: "Literal['live', 'degraded', 'behind', 'rebuilding', 'paused', 'failed']"
    position: "int | None"
    lag_events: "int | None"
    lag_seconds: "float | None"
    dead_letters: "int"
    parked_streams: "int"
    cause: "str | None"


class RankedAccount(TypedDict):
    account_id: "str"
    posted: "int"


class ReceiptResponse(TypedDict):
    format: "Literal['daybook-receipt-1']"
    position: "int"
    event: "HashedEvent"
    hash: "str"
    leaf_index: "int"
    audit_path: "list[str]"
    seal: "SealResource"


class ReversalMember(TypedDict):
    id: "str"
    amount: "int"
    position: "int"


class RunResource(TypedDict):
    number: "int"
    due_at: "str"
    recorded_at: "str"
    position: "int"
    transfer_id: "NotRequired[str | None]"
    refused: "NotRequired[str | None]"


class ScheduleResource(TypedDict):
    id: "str"
    transfer: "PlannedTransferMember"
    rule: "RuleMember | None"
    status: "Literal['active', 'cancelled', 'ended']"
    next_run_at: "str | None"
    run_count: "int"
    refused_count: "int"
    created_at: "str"
    changed_at: "str"
    version: "int"


class ScheduleResponse(TypedDict):
    id: "str"
    transfer: "PlannedTransferMember"
    rule: "RuleMember | None"
    status: "Literal['active', 'cancelled', 'ended']"
    next_run_at: "str | None"
    run_count: "int"
    refused_count: "int"
    created_at: "str"
    changed_at: "str"
    version: "int"
    runs: "list[RunResource]"
    next: "str | None"
    position: "int"


class SealResource(TypedDict):
    ledger_id: "str"
    position: "int"
    root: "str"
    signature: "str"
    key_id: "str"
    sealed_at: "str"


class SearchPage(TypedDict):
    items: "list[FoundTransfer | FoundUser]"
    next: "str | None"
    position: "int"
    facets: "Facets"


class SpendingLimitsResource(TypedDict):
    per_transfer_min: "int | None"
    per_transfer_max: "int | None"
    per_day: "int | None"
    per_month: "int | None"


StatementResponse = TypedDict(
    "StatementResponse",
    {
        "account_id": "str",
        "currency": "str",
        "axis": "Literal['recorded_at', 'occurred_at']",
        "from": "str",
        "to": "str",
        "opening_balance": "int",
        "lines": "list[EntryResource]",
        "closing_balance": "int",
        "position": "int",
    },
)


class StatisticsResponse(TypedDict):
    users: "UsersByStatus"
    currencies: "list[CurrencyStatistics]"
    days: "list[DayStatistics]"
    busiest: "list[BusyAccount]"
    ranking: "list[RankedAccount] | None"
    position: "int"


class StreamEventResource(TypedDict):
    position: "int"
    event_id: "str"
    type: "str"
    schema_version: "int"
    data: "dict[str, Any]"
    metadata: "dict[str, Any]"
    recorded_at: "str"
    hash: "str"
    version: "int"


class TimelineEntry(TypedDict):
    account_id: "str"
    transfer_id: "str"
    kind: "Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange']"
    amount: "int"
    balance: "int"
    currency: "str"
    counterparty_account_id: "str | None"
    occurred_at: "str"
    recorded_at: "str"
    reference: "str | None"
    position: "int"


class TimelinePage(TypedDict):
    items: "list[TimelineEntry]"
    next: "str | None"
    position: "int"
    closing_balances: "list[ClosingBalance]"


class TotalsReport(TypedDict):
    page: "int"
    page_size: "int"
    total: "int"
    pages: "int"
    position: "int"
    items: "list[TotalsReportItem]"


class TotalsReportItem(TypedDict):
    owner_id: "NotRequired[str | None]"
    month: "NotRequired[str | None]"
    currency: "str"
    entries: "int"
    paid_in: "str"
    paid_out: "str"
    sum: "str"


class TransferResource(TypedDict):
    id: "str"
    kind: "Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange']"
    from_account_id: "str | None"
    to_account_id: "str | None"
    amount: "int"
    currency: "str"
    occurred_at: "str"
    recorded_at: "str"
    reference: "str | None"
    position: "int"
    postings: "list[PostingMember] | None"
    exchange: "ExchangeMember | None"
    metadata: "dict[str, str] | None"
    hold_id: "str | None"
    schedule_id: "str | None"
    reverses: "str | None"
    reversed: "int"
    reversals: "list[ReversalMember]"
    after_close: "bool"


class TrialBalanceResponse(TypedDict):
    currencies: "list[CurrencyTrialBalance]"
    position: "int"


class UserReport(TypedDict):
    page: "int"
    page_size: "int"
    total: "int"
    pages: "int"
    position: "int"
    items: "list[UserReportItem]"


class UserReportItem(TypedDict):
    id: "str"
    name: "str | None"
    email: "str | None"
    status: "Literal['active', 'inactive', 'erased']"
    created_at: "str"
    accounts: "int"
    sums: "list[CurrencyHolding]"


class UserResource(TypedDict):
    id: "str"
    name: "str | None"
    email: "str | None"
    metadata: "dict[str, str] | None"
    status: "Literal['active', 'inactive', 'erased']"
    created_at: "str"
    changed_at: "str"
    version: "int"


class UserResponse(TypedDict):
    id: "str"
    name: "str | None"
    email: "str | None"
    metadata: "dict[str, str] | None"
    status: "Literal['active', 'inactive', 'erased']"
    created_at: "str"
    changed_at: "str"
    version: "int"
    position: "int"


class UsersByStatus(TypedDict):
    active: "int"
    inactive: "int"
    erased: "int"


class VerificationResource(TypedDict):
    id: "str"
    reason: "str"
    requested_by: "str"
    status: "Literal['waiting', 'running', 'done', 'failed', 'cancelled']"
    step: "str | None"
    events_done: "int"
    events_total: "int"
    verdict: "Literal['ok', 'dead-letters', 'different'] | None"
    checks: "list[CheckResource]"
    outcome: "str | None"
    requested_at: "str"
    changed_at: "str"


class VerificationResponse(TypedDict):
    id: "str"
    reason: "str"
    requested_by: "str"
    status: "Literal['waiting', 'running', 'done', 'failed', 'cancelled']"
    step: "str | None"
    events_done: "int"
    events_total: "int"
    verdict: "Literal['ok', 'dead-letters', 'different'] | None"
    checks: "list[CheckResource]"
    outcome: "str | None"
    requested_at: "str"
    changed_at: "str"
    position: "int"


class WebhookResource(TypedDict):
    id: "str"
    url: "str"
    types: "list[str]"
    streams: "list[str]"
    status: "Literal['active', 'disabled']"
    notice: "str | None"
    delivered_position: "int"
    failures: "int"
    failing_since: "str | None"
    next_attempt_at: "str"
    created_at: "str"
    old_secret_until: "str | None"


class WebhookResponse(TypedDict):
    id: "str"
    url: "str"
    types: "list[str]"
    streams: "list[str]"
    status: "Literal['active', 'disabled']"
    notice: "str | None"
    delivered_position: "int"
    failures: "int"
    failing_since: "str | None"
    next_attempt_at: "str"
    created_at: "str"
    old_secret_until: "str | None"
    position: "int"


class ListUsersArguments(TypedDict):
    metadata: "NotRequired[dict[str, str] | None]"
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    email: "NotRequired[str | None]"
    status: "NotRequired[Literal['active', 'inactive', 'erased'] | None]"
    search: "NotRequired[str | None]"
    sort: "NotRequired[Literal['created_at', '-created_at', 'name', '-name']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetUserArguments(TypedDict):
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ExportUserArguments(TypedDict):
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ListAccountsArguments(TypedDict):
    at: "NotRequired[int | str | datetime | None]"
    axis: "NotRequired[Literal['recorded_at', 'occurred_at']]"
    metadata: "NotRequired[dict[str, str] | None]"
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    owner_id: "NotRequired[str | UUID | None]"
    currency: "NotRequired[str | None]"
    status: "NotRequired[Literal['open', 'frozen', 'closed'] | None]"
    sort: "NotRequired[Literal['opened_at', '-opened_at', 'posted', '-posted']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetAccountArguments(TypedDict):
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetBalanceArguments(TypedDict):
    at: "NotRequired[int | str | datetime | None]"
    axis: "NotRequired[Literal['recorded_at', 'occurred_at']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ListEntriesArguments(TypedDict):
    amount_gt: "NotRequired[int | None]"
    amount_gte: "NotRequired[int | None]"
    amount_lt: "NotRequired[int | None]"
    amount_lte: "NotRequired[int | None]"
    occurred_at_gt: "NotRequired[str | datetime | None]"
    occurred_at_gte: "NotRequired[str | datetime | None]"
    occurred_at_lt: "NotRequired[str | datetime | None]"
    occurred_at_lte: "NotRequired[str | datetime | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    reference: "NotRequired[str | None]"
    reference_prefix: "NotRequired[str | None]"
    recorded_at_gt: "NotRequired[str | datetime | None]"
    recorded_at_gte: "NotRequired[str | datetime | None]"
    recorded_at_lt: "NotRequired[str | datetime | None]"
    recorded_at_lte: "NotRequired[str | datetime | None]"
    counterparty: "NotRequired[str | UUID | None]"
    kind: "NotRequired[Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange'] | None]"
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    sort: "NotRequired[Literal['recorded_at', '-recorded_at', 'position', '-position', 'occurred_at', '-occurred_at', 'amount', '-amount', 'reference', '-reference']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetTimelineArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    month: "NotRequired[str | None]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetStatementArguments(TypedDict):
    from_: "NotRequired[str | datetime]"
    to: "NotRequired[str | datetime]"
    axis: "NotRequired[Literal['recorded_at', 'occurred_at']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ListTransfersArguments(TypedDict):
    amount_gt: "NotRequired[int | None]"
    amount_gte: "NotRequired[int | None]"
    amount_lt: "NotRequired[int | None]"
    amount_lte: "NotRequired[int | None]"
    occurred_at_gt: "NotRequired[str | datetime | None]"
    occurred_at_gte: "NotRequired[str | datetime | None]"
    occurred_at_lt: "NotRequired[str | datetime | None]"
    occurred_at_lte: "NotRequired[str | datetime | None]"
    metadata: "NotRequired[dict[str, str] | None]"
    reference: "NotRequired[str | None]"
    reference_prefix: "NotRequired[str | None]"
    recorded_at_gt: "NotRequired[str | datetime | None]"
    recorded_at_gte: "NotRequired[str | datetime | None]"
    recorded_at_lt: "NotRequired[str | datetime | None]"
    recorded_at_lte: "NotRequired[str | datetime | None]"
    counterparty: "NotRequired[str | UUID | None]"
    kind: "NotRequired[Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange'] | None]"
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    account_id: "NotRequired[str | UUID | None]"
    currency: "NotRequired[str | None]"
    sort: "NotRequired[Literal['recorded_at', '-recorded_at', 'position', '-position', 'occurred_at', '-occurred_at', 'amount', '-amount', 'reference', '-reference']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetTransferArguments(TypedDict):
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ListHoldsArguments(TypedDict):
    metadata: "NotRequired[dict[str, str] | None]"
    reference: "NotRequired[str | None]"
    reference_prefix: "NotRequired[str | None]"
    placed_at_gt: "NotRequired[str | datetime | None]"
    placed_at_gte: "NotRequired[str | datetime | None]"
    placed_at_lt: "NotRequired[str | datetime | None]"
    placed_at_lte: "NotRequired[str | datetime | None]"
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    account_id: "NotRequired[str | UUID | None]"
    counterparty: "NotRequired[str | UUID | None]"
    status: "NotRequired[Literal['active', 'captured', 'released', 'expired'] | None]"
    sort: "NotRequired[Literal['placed_at', '-placed_at', 'reference', '-reference']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetHoldArguments(TypedDict):
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ListSchedulesArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    account_id: "NotRequired[str | UUID | None]"
    counterparty: "NotRequired[str | UUID | None]"
    status: "NotRequired[Literal['active', 'cancelled', 'ended'] | None]"
    sort: "NotRequired[Literal['created_at', '-created_at']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetScheduleArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetReceiptArguments(TypedDict):
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetStatsArguments(TypedDict):
    currency: "NotRequired[str | None]"
    days: "NotRequired[int]"
    top: "NotRequired[int]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetTrialBalanceArguments(TypedDict):
    at: "NotRequired[int | str | datetime | None]"
    axis: "NotRequired[Literal['recorded_at', 'occurred_at']]"
    currency: "NotRequired[str | None]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ReportUsersArguments(TypedDict):
    page: "NotRequired[int]"
    page_size: "NotRequired[int]"
    status: "NotRequired[Literal['active', 'inactive', 'erased'] | None]"
    currency: "NotRequired[str | None]"
    search: "NotRequired[str | None]"
    sort: "NotRequired[Literal['created_at', '-created_at', 'name', '-name', 'accounts', '-accounts']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ReportTotalsArguments(TypedDict):
    page: "NotRequired[int]"
    page_size: "NotRequired[int]"
    currency: "NotRequired[str | None]"
    owner_id: "NotRequired[str | UUID | None]"
    account_id: "NotRequired[str | UUID | None]"
    kind: "NotRequired[Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange'] | None]"
    month_gte: "NotRequired[str | None]"
    month_lte: "NotRequired[str | None]"
    by: "NotRequired[Literal['owner', 'month', 'currency']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ReportEntriesArguments(TypedDict):
    page: "NotRequired[int]"
    page_size: "NotRequired[int]"
    currency: "NotRequired[str | None]"
    owner_id: "NotRequired[str | UUID | None]"
    account_id: "NotRequired[str | UUID | None]"
    kind: "NotRequired[Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange'] | None]"
    month_gte: "NotRequired[str | None]"
    month_lte: "NotRequired[str | None]"
    sort: "NotRequired[Literal['occurred_at', '-occurred_at', 'amount', '-amount', 'position', '-position']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class SearchArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    q: "NotRequired[str | None]"
    type: "NotRequired[Literal['transfer', 'user'] | None]"
    currency: "NotRequired[str | None]"
    kind: "NotRequired[Literal['deposit', 'withdrawal', 'transfer', 'reversal', 'postings', 'exchange'] | None]"
    month: "NotRequired[str | None]"
    account_id: "NotRequired[str | UUID | None]"
    sort: "NotRequired[Literal['relevance', 'recorded_at', '-recorded_at']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ListActivityArguments(TypedDict):
    limit: "NotRequired[int]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ListCurrenciesArguments(TypedDict):
    ledger: "NotRequired[str]"


class ListEventsArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    after: "NotRequired[int]"
    type: "NotRequired[Literal['UserCreated', 'UserChanged', 'UserDeactivated', 'UserReactivated', 'UserErased', 'AccountOpened', 'AccountFrozen', 'AccountUnfrozen', 'AccountClosed', 'OverdraftLimitChanged', 'AccountLimitsChanged', 'AccountMetadataChanged', 'HoldPlaced', 'HoldReleased', 'HoldExpired', 'FundsDeposited', 'FundsWithdrawn', 'FundsTransferred', 'HoldCaptured', 'TransferReversed', 'FundsMoved', 'FundsExchanged', 'ProjectionEventSkipped', 'LedgerCreated', 'LedgerChanged', 'LedgerClosed', 'DayClosed', 'ScheduleCreated', 'ScheduleChanged', 'ScheduleCancelled', 'ScheduleRunRefused'] | None]"
    stream: "NotRequired[str | None]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class StreamEventsArguments(TypedDict):
    after: "NotRequired[int | None]"
    type: "NotRequired[Literal['UserCreated', 'UserChanged', 'UserDeactivated', 'UserReactivated', 'UserErased', 'AccountOpened', 'AccountFrozen', 'AccountUnfrozen', 'AccountClosed', 'OverdraftLimitChanged', 'AccountLimitsChanged', 'AccountMetadataChanged', 'HoldPlaced', 'HoldReleased', 'HoldExpired', 'FundsDeposited', 'FundsWithdrawn', 'FundsTransferred', 'HoldCaptured', 'TransferReversed', 'FundsMoved', 'FundsExchanged', 'ProjectionEventSkipped', 'LedgerCreated', 'LedgerChanged', 'LedgerClosed', 'DayClosed', 'ScheduleCreated', 'ScheduleChanged', 'ScheduleCancelled', 'ScheduleRunRefused'] | None]"
    stream: "NotRequired[str | None]"
    ledger: "NotRequired[str]"


class ListStreamArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    after: "NotRequired[int]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ExplainBalanceArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetLimitsArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ListLedgersArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"


class GetLedgerArguments(TypedDict):
    ledger: "NotRequired[str]"


class ListProjectionsArguments(TypedDict):
    ledger: "NotRequired[str]"


class GetProjectionArguments(TypedDict):
    ledger: "NotRequired[str]"


class ListProjectionDeadLettersArguments(TypedDict):
    ledger: "NotRequired[str]"


class ListOperationsArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"


class GetOperationArguments(TypedDict):
    ledger: "NotRequired[str]"


class ListVerificationsArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"


class GetVerificationArguments(TypedDict):
    ledger: "NotRequired[str]"


class ListSealsArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"


class GetConsistencyArguments(TypedDict):
    from_: "int"
    ledger: "NotRequired[str]"


class ListDaysArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    sort: "NotRequired[Literal['day', '-day']]"
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class GetDayArguments(TypedDict):
    ledger: "NotRequired[str]"
    min_position: "NotRequired[int]"


class ListRefusalsArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"


class GetDoctorArguments(TypedDict):
    ledger: "NotRequired[str]"


class ListAuditRecordsArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"


class ListKeysArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"


class ListWebhooksArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"


class GetWebhookArguments(TypedDict):
    ledger: "NotRequired[str]"


class ListDeliveriesArguments(TypedDict):
    limit: "NotRequired[int]"
    cursor: "NotRequired[str | None]"
    ledger: "NotRequired[str]"


class GetCallerArguments(TypedDict):
    ledger: "NotRequired[str]"
