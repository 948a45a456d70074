"""All errors of Daybook, in one tree. A test compares the tree with the classes.

    DaybookError
    ├── Rejection             a rule said no to a command; no event was written
    │   ├── about accounts    AccountIsClosed · AccountIsFrozen · AccountNotEmpty · CurrencyMismatch · SameAccount
    │   ├── about amounts     BalanceOutOfRange · InsufficientFunds · PostingsUnbalanced
    │   ├── about users       EmailTaken · UserInactive · UserIsErased
    │   └── about any         IdTaken · NotFound · VersionMismatch
    ├── BadRequest            the request is not a valid command or query, or its caller may not send it
    │   ├── access            Forbidden · PasswordWrong · Unauthorized (LoginDenied, ResetTokenInvalid)
    │   ├── HTTP              HeadTooLarge · MalformedRequest · RequestTimeout
    │   ├── body              LengthRequired · MalformedJson · PayloadTooLarge · UnsupportedMediaType
    │   ├── content           AmountOutOfRange · CurrencyUnknown · CursorInvalid · ValidationFailed
    │   └── repetition        IdempotencyKeyInvalid · IdempotencyKeyRequired · IdempotencyKeyReused
    ├── Unavailable           the same request may succeed later
    │   ├── limits            Overloaded · RateLimited · TooManyStreams
    │   └── state             NotSealedYet · ProjectionBehind · Rebuilding · StoreUnavailable
    └── OperatorError         a person must act; processes and the CLI print it in one line and exit
        ├── set-up            MasterKeyUnknown · SchemaMismatch · SettingsInvalid · UnsafeSettings · UnsafeStore
        ├── data              EventImpossible · LogDamaged · ReadModelDamaged · UnknownEvent
        ├── projections       EventNotApplied · GenerationMismatch · NothingKept · ProjectionPaused
        └── commands          ApiKeyError · FileUnusable · LedgerFileInvalid · StackError

The first line of each class's docstring is the title that clients see. A `code` never changes. `retryable` says whether the same
command can succeed later. A retry needs a new Idempotency-Key, because the old key keeps its stored reply. `shared.web.problems`
has the HTTP status of each code. The rejections about holds are in `shared.hold_errors`, those about reversals in
`shared.reversal_errors`, those about schedules in `shared.schedule_errors`, those about ledgers in `shared.ledger_errors`,
those about business days in `shared.day_errors`, those about SQL reporting in `shared.reporting_errors`, that about search in
`shared.search_errors`, and that about the timeline in `shared.timeline_errors`. An error that only one module raises is defined
in that module.
"""

from collections.abc import Sequence
from typing import Any, ClassVar


class DaybookError(Exception):
    """The base class of all errors that Daybook raises."""

    code: ClassVar[str]
    retryable: ClassVar[bool] = False
    message: ClassVar[str] = ""
    """The detail of an error with `extra`, such as "available {available}". Without `extra`, the title is the detail."""

    def __init__(self, detail: str = "", **extra: Any) -> None:
        """Adds `extra` to the members of the problem document, such as `available` or `current_version`."""
        self.detail = detail or (self.message.format(**extra) if extra else "") or self.title()
        super().__init__(self.detail)
        self.extra = extra

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).partition("\n")[0].rstrip(".")


class Rejection(DaybookError):
    """The command was rejected."""


class PostingsUnbalanced(Rejection):
    """The postings of a currency do not add up to zero."""

    code = "postings-unbalanced"
    message = "The postings in {currency} do not add up to zero."


class SameAccount(Rejection):
    """An account cannot pay itself."""

    code = "same-account"


class NotFound(Rejection):
    """There is no such thing."""

    code = "not-found"


class AccountIsClosed(Rejection):
    """The account is closed."""

    code = "account-closed"


class AccountIsFrozen(Rejection):
    """The account is frozen."""

    code = "account-frozen"
    retryable = True


class UserInactive(Rejection):
    """The user is inactive."""

    code = "user-inactive"
    retryable = True


class CurrencyMismatch(Rejection):
    """The account is kept in another currency."""

    code = "currency-mismatch"
    message = "The account is kept in another currency: {account_currency}."


class UserIsErased(Rejection):
    """The user was erased."""

    code = "user-erased"


class InsufficientFunds(Rejection):
    """The account has not enough available."""

    code = "insufficient-funds"
    retryable = True
    message = "The account has not enough available: available {available}, required {required}."


class BalanceOutOfRange(Rejection):
    """The balance plus the overdraft limit would be larger than 2^53 − 1 minor units."""

    code = "balance-out-of-range"
    retryable = True
    message = "The balance of an account plus its overdraft limit would be larger than 9007199254740991 minor units."


class AccountNotEmpty(Rejection):
    """The account still has a balance."""

    code = "account-not-empty"
    retryable = True
    message = "The account still has a balance: posted {posted}, held {held}."


class EmailTaken(Rejection):
    """Another user has this e-mail address."""

    code = "email-taken"
    retryable = True


class IdTaken(Rejection):
    """This id is in use."""

    code = "id-taken"


class VersionMismatch(Rejection):
    """The version in If-Match is not the current one."""

    code = "stream-version-mismatch"
    message = "The version in If-Match is not the current one, which is {current_version}."


class BadRequest(DaybookError):
    """The request is not valid."""


class Unauthorized(BadRequest):
    """A valid credential is needed."""

    code = "unauthorized"


class LoginDenied(Unauthorized):
    """The e-mail address or the password is not right."""

    code = "login-refused"


class ResetTokenInvalid(Unauthorized):
    """The reset token is not valid, or no longer."""

    code = "reset-token-invalid"


class Forbidden(BadRequest):
    """This caller may not do this."""

    code = "forbidden"


class MalformedRequest(BadRequest):
    """The request is not valid HTTP."""

    code = "malformed-request"


class HeadTooLarge(BadRequest):
    """The headers are too many or too large."""

    code = "head-too-large"


class LengthRequired(BadRequest):
    """The request has a body whose length it does not say."""

    code = "length-required"


class RequestTimeout(BadRequest):
    """The request did not arrive in time."""

    code = "request-timeout"
    retryable = True


class PasswordWrong(BadRequest):
    """The current password is not right."""

    code = "password-wrong"


class MalformedJson(BadRequest):
    """The body is not JSON."""

    code = "malformed-json"


class UnsupportedMediaType(BadRequest):
    """The body must be application/json, unencoded."""

    code = "unsupported-media-type"


class PayloadTooLarge(BadRequest):
    """The body is too large."""

    code = "payload-too-large"
    message = "The body is too large: at most {bytes_max} bytes are read."


class ValidationFailed(BadRequest):
    """The request does not have the form that this operation takes."""

    code = "validation-failed"


class CursorInvalid(BadRequest):
    """The cursor was not issued by this list."""

    code = "cursor-invalid"


class AmountOutOfRange(BadRequest):
    """The amount is smaller than this member allows, or larger than 2^53 − 1 minor units."""

    code = "amount-out-of-range"


class CurrencyUnknown(BadRequest):
    """The currency is not an ISO 4217 code with a minor unit, or was withdrawn and no setting allows it."""

    code = "currency-unknown"


class IdempotencyKeyRequired(BadRequest):
    """Money moves only under an Idempotency-Key."""

    code = "idempotency-key-required"


class IdempotencyKeyInvalid(BadRequest):
    """An Idempotency-Key is 1 to 255 printable ASCII characters."""

    code = "idempotency-key-invalid"


class IdempotencyKeyReused(BadRequest):
    """This Idempotency-Key was used for another request."""

    code = "idempotency-key-reused"


class Unavailable(DaybookError):
    """Not now."""

    retryable = True


class RateLimited(Unavailable):
    """There were too many requests."""

    code = "rate-limited"
    message = "There were too many requests. Wait {retry_after_seconds} seconds."

    def __init__(self, headers: Sequence[tuple[bytes, bytes]] = (), retry_after_seconds: int = 1) -> None:
        """Creates the error. `headers` are response headers that state the limit."""
        super().__init__(retry_after_seconds=retry_after_seconds)
        self.limit_headers = tuple(headers)


class TooManyStreams(Unavailable):
    """The caller has as many streams of events open as it may have."""

    code = "too-many-streams"
    retryable = True
    message = "The caller has {streams_max} streams of events open, as many as it may have."


class StoreUnavailable(Unavailable):
    """A store does not answer."""

    code = "store-unavailable"


class Overloaded(Unavailable):
    """More commands are waiting than can be done in time."""

    code = "overloaded"


class Rebuilding(Unavailable):
    """The read model is being rebuilt."""

    code = "rebuilding"


class ProjectionBehind(Unavailable):
    """The read model has not reached the position asked for."""

    code = "projection-behind"
    message = "The read model is at position {position}, {lag_events} events before the position asked for."


class NotSealedYet(Unavailable):
    """No seal covers this event yet."""

    code = "not-sealed-yet"
    message = "No seal covers position {position} yet. The newest seal ends at position {sealed_position}."


class OperatorError(DaybookError):
    """A person must act."""


class SettingsInvalid(OperatorError):
    """The settings are incomplete or wrong."""

    code = "settings-invalid"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("settings: " + "; ".join(problems))
        self.problems = problems


class MasterKeyUnknown(OperatorError):
    """Some person keys are wrapped by a master key that the settings do not contain."""

    code = "master-key-unknown"


class SchemaMismatch(OperatorError):
    """The schema of PostgreSQL is not the one that this code was written for."""

    code = "schema-mismatch"


class UnsafeStore(OperatorError):
    """A store is set up so that acknowledged data could be lost."""

    code = "unsafe-store"


class UnsafeSettings(OperatorError):
    """Daybook is set up so that it should not be used in production."""

    code = "unsafe-settings"


class UnknownEvent(OperatorError):
    """The log holds an event that this code does not know."""

    code = "unknown-event"


class EventImpossible(OperatorError):
    """No command could have recorded this event here, or have got this stored reply."""

    code = "event-impossible"


class LogDamaged(OperatorError):
    """The log is damaged: its content differs from what was recorded."""

    code = "log-damaged"


class ReadModelDamaged(OperatorError):
    """A read model is damaged: its content differs from what was written."""

    code = "read-model-damaged"


class EventNotApplied(OperatorError):
    """An event cannot be applied to a read model."""

    code = "event-refused"


class GenerationMismatch(OperatorError):
    """The new generation of a read model does not match the log."""

    code = "generation-refused"


class NothingKept(OperatorError):
    """There is no generation of this read model to go back to."""

    code = "nothing-kept"


class ProjectionPaused(OperatorError):
    """The projection is paused."""

    code = "projection-paused"


class StackError(OperatorError):
    """The development stack cannot do this now."""

    code = "stack-error"


class FileUnusable(OperatorError):
    """A file cannot be read or written."""

    code = "file-unusable"


class LedgerFileInvalid(OperatorError):
    """A file cannot be imported as a ledger."""

    code = "ledger-file-refused"


class ApiKeyError(OperatorError):
    """The API key cannot be made, changed or ended."""

    code = "key-refused"
