"""Every error of ours, in one tree.

    DaybookError
    ├── Rejection                    the command was understood and refused; no event was written
    │   ├── SameAccount · NotFound · AccountClosed · AccountFrozen · UserInactive · CurrencyMismatch
    │   ├── InsufficientFunds · BalanceOutOfRange · AccountNotEmpty · EmailTaken · IdTaken · UserIsErased
    │   └── VersionMismatch
    ├── BadRequest                   the request cannot be a command or a query; nothing was looked at
    │   ├── Unauthorized (LoginRefused) · Forbidden · PasswordWrong
    │   ├── MalformedRequest · HeadTooLarge · RequestTimeout
    │   ├── MalformedJson · UnsupportedMediaType · PayloadTooLarge · ValidationFailed · CursorInvalid
    │   └── AmountOutOfRange · CurrencyUnknown · IdempotencyKeyRequired · IdempotencyKeyInvalid · IdempotencyKeyReused
    ├── Unavailable                  not now; the same request may succeed later
    │   └── TooManyStreams · RateLimited · StoreUnavailable · Overloaded · Rebuilding · ProjectionBehind · NotSealedYet
    └── OperatorError                a person must act: the processes and the CLI say it in one line and exit
        ├── SettingsInvalid · MasterKeyUnknown · SchemaMismatch · UnsafeStore · UnsafeSettings · StackError · KeyRefused
        ├── LedgerFileRefused
        └── UnknownEvent · LogDamaged · ReadModelDamaged · EventRefused · GenerationRefused · NothingKept · ProjectionPaused

The first line of a docstring is the title that clients see; `code` is stable; `retryable` says whether the same
command can succeed later; under a new Idempotency-Key, since an answered key keeps its answer. The HTTP status of each code
stands in `shared.http`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar


class DaybookError(Exception):
    """Something went wrong in Daybook."""

    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str = "", **extra: Any) -> None:
        """`extra` are members of the problem document that help the caller: `available`, `current_version`, …"""
        super().__init__(detail or self.title())
        self.detail = detail or self.title()
        self.extra = extra

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or cls.__name__).partition("\n")[0].rstrip(".")


class Rejection(DaybookError):
    """The command was refused."""


class SameAccount(Rejection):
    """An account cannot pay itself."""

    code = "same-account"


class NotFound(Rejection):
    """There is no such thing."""

    code = "not-found"


class AccountClosed(Rejection):
    """The account is closed."""

    code = "account-closed"


class AccountFrozen(Rejection):
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


class UserIsErased(Rejection):
    """The user was erased."""

    code = "user-erased"


class InsufficientFunds(Rejection):
    """The account has not enough available."""

    code = "insufficient-funds"
    retryable = True


class BalanceOutOfRange(Rejection):
    """The amount, or the balance after it, is outside the range of 2^53 − 1 minor units."""

    code = "amount-out-of-range"
    retryable = True


class AccountNotEmpty(Rejection):
    """The account still has a balance."""

    code = "account-not-empty"
    retryable = True


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


class BadRequest(DaybookError):
    """The request cannot be read as what it should be."""


class Unauthorized(BadRequest):
    """A valid credential is needed."""

    code = "unauthorized"


class LoginRefused(Unauthorized):
    """The e-mail address or the password is not right."""

    code = "login-refused"


class Forbidden(BadRequest):
    """This caller may not do this."""

    code = "forbidden"


class MalformedRequest(BadRequest):
    """This is not HTTP."""

    code = "malformed-request"


class HeadTooLarge(BadRequest):
    """The headers are too many or too large."""

    code = "head-too-large"


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


class ValidationFailed(BadRequest):
    """The request does not have the form that this operation takes."""

    code = "validation-failed"


class CursorInvalid(BadRequest):
    """The cursor was not issued by this list."""

    code = "cursor-invalid"


class AmountOutOfRange(BadRequest):
    """The amount is not within 1 and 2^53 − 1 minor units."""

    code = "amount-out-of-range"


class CurrencyUnknown(BadRequest):
    """The currency is not an ISO 4217 code with a minor unit."""

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

    def __init__(self, headers: Sequence[tuple[bytes, bytes]] = (), retry_after_seconds: int = 1) -> None:
        """`headers` say what the limit is."""
        super().__init__(retry_after_seconds=retry_after_seconds)
        self.limit_headers = tuple(headers)


class TooManyStreams(Unavailable):
    """The caller has as many streams of events open as it may have."""

    code = "too-many-streams"
    retryable = True


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


class NotSealedYet(Unavailable):
    """No seal covers this event yet."""

    code = "not-sealed-yet"


class OperatorError(DaybookError):
    """A person must act."""


class SettingsInvalid(OperatorError):
    """The settings are incomplete or wrong."""

    code = "settings-invalid"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("settings: " + "; ".join(problems))


class MasterKeyUnknown(OperatorError):
    """Keys of people are wrapped by a master key that the settings do not name."""

    code = "master-key-unknown"


class SchemaMismatch(OperatorError):
    """The database's schema is not the one this code was written for."""

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


class LogDamaged(OperatorError):
    """The log is not what was written."""

    code = "log-damaged"


class ReadModelDamaged(OperatorError):
    """A read model is not what was written."""

    code = "read-model-damaged"


class EventRefused(OperatorError):
    """An event cannot be applied to a read model."""

    code = "event-refused"


class GenerationRefused(OperatorError):
    """What was built of a read model is not what the log says."""

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


class LedgerFileRefused(OperatorError):
    """A file cannot be imported as a ledger."""

    code = "ledger-file-refused"


class KeyRefused(OperatorError):
    """The API key cannot be made, changed or ended."""

    code = "key-refused"
