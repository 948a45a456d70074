"""An exception for each problem code. `make client` writes this file from the OpenAPI documents."""

from typing import Final

from daybook_client.problem import Problem


class MalformedRequest(Problem):
    """The request is not valid HTTP."""

    CODE = "malformed-request"


class MalformedJson(Problem):
    """The body is not JSON."""

    CODE = "malformed-json"


class CursorInvalid(Problem):
    """The cursor was not issued by this list."""

    CODE = "cursor-invalid"


class IdempotencyKeyRequired(Problem):
    """Money moves only under an Idempotency-Key."""

    CODE = "idempotency-key-required"


class IdempotencyKeyInvalid(Problem):
    """An Idempotency-Key is 1 to 255 printable ASCII characters."""

    CODE = "idempotency-key-invalid"


class Unauthorized(Problem):
    """A valid credential is needed."""

    CODE = "unauthorized"


class LoginRefused(Problem):
    """The e-mail address or the password is not right."""

    CODE = "login-refused"


class ResetTokenInvalid(Problem):
    """The reset token is not valid, or no longer."""

    CODE = "reset-token-invalid"


class Forbidden(Problem):
    """This caller may not do this."""

    CODE = "forbidden"


class PasswordWrong(Problem):
    """The current password is not right."""

    CODE = "password-wrong"


class NotFound(Problem):
    """There is no such thing."""

    CODE = "not-found"


class ReportingOff(Problem):
    """There are no reports here: SQL reporting is off."""

    CODE = "reporting-off"


class SearchOff(Problem):
    """There is no search here: it is off."""

    CODE = "search-off"


class TimelineOff(Problem):
    """There is no timeline here: it is off."""

    CODE = "timeline-off"


class MethodNotAllowed(Problem):
    """This path does not allow this method."""

    CODE = "method-not-allowed"


class ParquetOff(Problem):
    """There are no Parquet files here: the package pyarrow is not installed."""

    CODE = "parquet-off"


class RequestTimeout(Problem):
    """The request did not arrive in time."""

    CODE = "request-timeout"


class LedgerClosed(Problem):
    """The ledger is closed."""

    CODE = "ledger-closed"


class LedgerLimitExceeded(Problem):
    """The amount is larger than the ledger allows in one transfer."""

    CODE = "ledger-limit-exceeded"


class AccountClosed(Problem):
    """The account is closed."""

    CODE = "account-closed"


class AccountFrozen(Problem):
    """The account is frozen."""

    CODE = "account-frozen"


class UserInactive(Problem):
    """The user is inactive."""

    CODE = "user-inactive"


class UserErased(Problem):
    """The user was erased."""

    CODE = "user-erased"


class InsufficientFunds(Problem):
    """The account has not enough available."""

    CODE = "insufficient-funds"


class AccountNotEmpty(Problem):
    """The account still has a balance."""

    CODE = "account-not-empty"


class BalanceOutOfRange(Problem):
    """The balance plus the overdraft limit would be larger than 2^53 − 1 minor units."""

    CODE = "balance-out-of-range"


class AmountOutsideLimits(Problem):
    """The amount is smaller or larger than the account may spend in one transfer."""

    CODE = "amount-outside-limits"


class LimitExceeded(Problem):
    """The account would spend more in a day or a month than its limit."""

    CODE = "limit-exceeded"


class HoldNotActive(Problem):
    """The hold has ended."""

    CODE = "hold-not-active"


class HoldAmountExceeded(Problem):
    """The hold holds less than that."""

    CODE = "hold-amount-exceeded"


class TooManyHolds(Problem):
    """The account has as many holds as it may have."""

    CODE = "too-many-holds"


class TransferNotReversible(Problem):
    """A reversal cannot be reversed, and neither can an exchange or a transfer with postings."""

    CODE = "transfer-not-reversible"


class DayNotEnded(Problem):
    """The day has not ended yet."""

    CODE = "day-not-ended"


class DayOutOfOrder(Problem):
    """Days are closed in order, and this one is not the next."""

    CODE = "day-out-of-order"


class TransferAlreadyReversed(Problem):
    """All money of the transfer has moved back already."""

    CODE = "transfer-already-reversed"


class ReversalAmountExceeded(Problem):
    """Less than that can still be reversed."""

    CODE = "reversal-amount-exceeded"


class TooManyReversals(Problem):
    """The transfer was reversed in as many parts as it may be."""

    CODE = "too-many-reversals"


class ScheduleNotActive(Problem):
    """The schedule has ended."""

    CODE = "schedule-not-active"


class ScheduleRunDue(Problem):
    """A run of the schedule is due and not recorded yet."""

    CODE = "schedule-run-due"


class TooManyWebhooks(Problem):
    """The ledger has as many webhooks as it may have."""

    CODE = "too-many-webhooks"


class OperationUnderWay(Problem):
    """Another operation on this read model is under way."""

    CODE = "operation-under-way"


class ProjectionPaused(Problem):
    """The projection is paused."""

    CODE = "projection-paused"


class NothingKept(Problem):
    """There is no generation of this read model to go back to."""

    CODE = "nothing-kept"


class EventRefused(Problem):
    """An event cannot be applied to a read model."""

    CODE = "event-refused"


class GenerationRefused(Problem):
    """The new generation of a read model does not match the log."""

    CODE = "generation-refused"


class EmailTaken(Problem):
    """Another user has this e-mail address."""

    CODE = "email-taken"


class IdTaken(Problem):
    """This id is in use."""

    CODE = "id-taken"


class LengthRequired(Problem):
    """The request has a body whose length it does not say."""

    CODE = "length-required"


class StreamVersionMismatch(Problem):
    """The version in If-Match is not the current one."""

    CODE = "stream-version-mismatch"


class PayloadTooLarge(Problem):
    """The body is too large."""

    CODE = "payload-too-large"


class UnsupportedMediaType(Problem):
    """The body must be application/json, unencoded."""

    CODE = "unsupported-media-type"


class ValidationFailed(Problem):
    """The request does not have the form that this operation takes."""

    CODE = "validation-failed"


class AmountOutOfRange(Problem):
    """The amount is smaller than this member allows, or larger than 2^53 − 1 minor units."""

    CODE = "amount-out-of-range"


class CurrencyUnknown(Problem):
    """The currency is not an ISO 4217 code with a minor unit, or was withdrawn and no setting allows it."""

    CODE = "currency-unknown"


class PostingsUnbalanced(Problem):
    """The postings of a currency do not add up to zero."""

    CODE = "postings-unbalanced"


class SameAccount(Problem):
    """An account cannot pay itself."""

    CODE = "same-account"


class CurrencyMismatch(Problem):
    """The account is kept in another currency."""

    CODE = "currency-mismatch"


class CurrencyNotAllowed(Problem):
    """The ledger has no accounts in this currency."""

    CODE = "currency-not-allowed"


class HoldExpiryPassed(Problem):
    """The hold would have expired already."""

    CODE = "hold-expiry-passed"


class TimeZoneUnknown(Problem):
    """The time zone is not in the IANA database of this machine."""

    CODE = "time-zone-unknown"


class ScheduleNeverDue(Problem):
    """The schedule would have no run that is due from now on."""

    CODE = "schedule-never-due"


class WebhookUrlRefused(Problem):
    """Daybook may not send to this URL."""

    CODE = "webhook-url-refused"


class IdempotencyKeyReused(Problem):
    """This Idempotency-Key was used for another request."""

    CODE = "idempotency-key-reused"


class RateLimited(Problem):
    """There were too many requests."""

    CODE = "rate-limited"


class TooManyStreams(Problem):
    """The caller has as many streams of events open as it may have."""

    CODE = "too-many-streams"


class HeadTooLarge(Problem):
    """The headers are too many or too large."""

    CODE = "head-too-large"


class InternalError(Problem):
    """Daybook made a mistake."""

    CODE = "internal-error"


class StoreUnavailable(Problem):
    """A store does not answer."""

    CODE = "store-unavailable"


class Overloaded(Problem):
    """More commands are waiting than can be done in time."""

    CODE = "overloaded"


class Rebuilding(Problem):
    """The read model is being rebuilt."""

    CODE = "rebuilding"


class ProjectionBehind(Problem):
    """The read model has not reached the position asked for."""

    CODE = "projection-behind"


class NotSealedYet(Problem):
    """No seal covers this event yet."""

    CODE = "not-sealed-yet"


PROBLEM_OF_CODE: Final = {
    MalformedRequest.CODE: MalformedRequest,
    MalformedJson.CODE: MalformedJson,
    CursorInvalid.CODE: CursorInvalid,
    IdempotencyKeyRequired.CODE: IdempotencyKeyRequired,
    IdempotencyKeyInvalid.CODE: IdempotencyKeyInvalid,
    Unauthorized.CODE: Unauthorized,
    LoginRefused.CODE: LoginRefused,
    ResetTokenInvalid.CODE: ResetTokenInvalid,
    Forbidden.CODE: Forbidden,
    PasswordWrong.CODE: PasswordWrong,
    NotFound.CODE: NotFound,
    ReportingOff.CODE: ReportingOff,
    SearchOff.CODE: SearchOff,
    TimelineOff.CODE: TimelineOff,
    MethodNotAllowed.CODE: MethodNotAllowed,
    ParquetOff.CODE: ParquetOff,
    RequestTimeout.CODE: RequestTimeout,
    LedgerClosed.CODE: LedgerClosed,
    LedgerLimitExceeded.CODE: LedgerLimitExceeded,
    AccountClosed.CODE: AccountClosed,
    AccountFrozen.CODE: AccountFrozen,
    UserInactive.CODE: UserInactive,
    UserErased.CODE: UserErased,
    InsufficientFunds.CODE: InsufficientFunds,
    AccountNotEmpty.CODE: AccountNotEmpty,
    BalanceOutOfRange.CODE: BalanceOutOfRange,
    AmountOutsideLimits.CODE: AmountOutsideLimits,
    LimitExceeded.CODE: LimitExceeded,
    HoldNotActive.CODE: HoldNotActive,
    HoldAmountExceeded.CODE: HoldAmountExceeded,
    TooManyHolds.CODE: TooManyHolds,
    TransferNotReversible.CODE: TransferNotReversible,
    DayNotEnded.CODE: DayNotEnded,
    DayOutOfOrder.CODE: DayOutOfOrder,
    TransferAlreadyReversed.CODE: TransferAlreadyReversed,
    ReversalAmountExceeded.CODE: ReversalAmountExceeded,
    TooManyReversals.CODE: TooManyReversals,
    ScheduleNotActive.CODE: ScheduleNotActive,
    ScheduleRunDue.CODE: ScheduleRunDue,
    TooManyWebhooks.CODE: TooManyWebhooks,
    OperationUnderWay.CODE: OperationUnderWay,
    ProjectionPaused.CODE: ProjectionPaused,
    NothingKept.CODE: NothingKept,
    EventRefused.CODE: EventRefused,
    GenerationRefused.CODE: GenerationRefused,
    EmailTaken.CODE: EmailTaken,
    IdTaken.CODE: IdTaken,
    LengthRequired.CODE: LengthRequired,
    StreamVersionMismatch.CODE: StreamVersionMismatch,
    PayloadTooLarge.CODE: PayloadTooLarge,
    UnsupportedMediaType.CODE: UnsupportedMediaType,
    ValidationFailed.CODE: ValidationFailed,
    AmountOutOfRange.CODE: AmountOutOfRange,
    CurrencyUnknown.CODE: CurrencyUnknown,
    PostingsUnbalanced.CODE: PostingsUnbalanced,
    SameAccount.CODE: SameAccount,
    CurrencyMismatch.CODE: CurrencyMismatch,
    CurrencyNotAllowed.CODE: CurrencyNotAllowed,
    HoldExpiryPassed.CODE: HoldExpiryPassed,
    TimeZoneUnknown.CODE: TimeZoneUnknown,
    ScheduleNeverDue.CODE: ScheduleNeverDue,
    WebhookUrlRefused.CODE: WebhookUrlRefused,
    IdempotencyKeyReused.CODE: IdempotencyKeyReused,
    RateLimited.CODE: RateLimited,
    TooManyStreams.CODE: TooManyStreams,
    HeadTooLarge.CODE: HeadTooLarge,
    InternalError.CODE: InternalError,
    StoreUnavailable.CODE: StoreUnavailable,
    Overloaded.CODE: Overloaded,
    Rebuilding.CODE: Rebuilding,
    ProjectionBehind.CODE: ProjectionBehind,
    NotSealedYet.CODE: NotSealedYet,
}
