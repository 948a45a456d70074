"""`daybook send`, `deposit` and `withdraw`: show what a command would do, ask, and send it once.

The amount is read as it is written, and never rounded. Each command has one idempotency key. If its outcome is not known, the
user is told the key, with which the same command can be sent again.
"""

import re
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from operator import methodcaller
from typing import Annotated, Any, Final, NamedTuple
from uuid import UUID, uuid4

import typer
from daybook_client import Daybook, Money, NoAnswer, Problem

from cli.api_access import ApiLedgerOption, ProfileOption, find_profile, open_api
from cli.arguments import utf8, utf8_or_none
from cli.exit_codes import ExitCode
from cli.money_cells import amount_cell
from cli.request_errors import OutcomeUnknown
from cli.row_writers import OutputFormat, OutputOption, print_item
from shared.http_values import read_header_value

AMOUNT: Final = re.compile(r"([0-9]{1,17})(?:\.([0-9]{1,17}))?")

Call = Callable[..., Any]
"""A method of the client that sends the command, with everything but `dry_run` and `idempotency_key`."""


def _header(value: str | None) -> str | None:
    try:
        return value and read_header_value(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


AmountArgument = Annotated[
    str, typer.Argument(metavar="AMOUNT", help="The amount in major units, such as 12.50. It is never rounded.", callback=utf8)
]
CurrencyArgument = Annotated[str, typer.Argument(metavar="CURRENCY", help="The currency, such as EUR.", callback=utf8)]
ReferenceOption = Annotated[
    str | None, typer.Option(help="A text for the statements, of at most 140 characters.", callback=utf8_or_none)
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Send it without asking.")]
RehearseOption = Annotated[bool, typer.Option("--dry-run", help="Show what it would do, and send nothing.")]
KeyOption = Annotated[
    str | None,
    typer.Option(help="The key of an earlier attempt whose outcome is not known: it takes effect once.", callback=_header),
]


class Consent(NamedTuple):
    """How far a command may go."""

    yes: bool
    dry_run: bool
    idempotency_key: str | None


def send(
    amount: AmountArgument,
    currency: CurrencyArgument,
    *,
    from_: Annotated[UUID, typer.Option("--from", help="The account that pays.")],
    to: Annotated[UUID, typer.Option(help="The account that is paid.")],
    reference: ReferenceOption = None,
    yes: YesOption = False,
    dry_run: RehearseOption = False,
    idempotency_key: KeyOption = None,
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Transfer money from one account to another, after showing what that does.

    Nothing is sent before you say yes, unless you give --yes. The answer goes to stdout, and the question to stderr.

    Example: daybook send 12.50 EUR --from ada00000-0000-4000-8000-000000000978 --to 9ace0000-0000-4000-8000-000000000978
    """

    def call(api: Daybook, money: Money) -> Call:
        return lambda **how: api.transfer_funds(amount=money, from_account_id=from_, to_account_id=to, reference=reference, **how)

    _carry_out(
        f"from {from_} to {to}", (amount, currency), call, Consent(yes, dry_run, idempotency_key), (profile, ledger), output
    )


def deposit(
    amount: AmountArgument,
    currency: CurrencyArgument,
    *,
    to: Annotated[UUID, typer.Option(help="The account that gets the money.")],
    reference: ReferenceOption = None,
    yes: YesOption = False,
    dry_run: RehearseOption = False,
    idempotency_key: KeyOption = None,
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Bring money into an account, after showing what that does.

    Example: daybook deposit 100 EUR --to ada00000-0000-4000-8000-000000000978 --yes
    """

    def call(api: Daybook, money: Money) -> Call:
        return lambda **how: api.deposit(amount=money, account_id=to, reference=reference, **how)

    _carry_out(
        f"from outside to {to}", (amount, currency), call, Consent(yes, dry_run, idempotency_key), (profile, ledger), output
    )


def withdraw(
    amount: AmountArgument,
    currency: CurrencyArgument,
    *,
    from_: Annotated[UUID, typer.Option("--from", help="The account that the money leaves.")],
    reference: ReferenceOption = None,
    yes: YesOption = False,
    dry_run: RehearseOption = False,
    idempotency_key: KeyOption = None,
    output: OutputOption = OutputFormat.TABLE,
    profile: ProfileOption = None,
    ledger: ApiLedgerOption = None,
) -> None:
    """Take money out of an account, after showing what that does.

    Example: daybook withdraw 20 EUR --from ada00000-0000-4000-8000-000000000978 --yes
    """

    def call(api: Daybook, money: Money) -> Call:
        return lambda **how: api.withdraw(amount=money, account_id=from_, reference=reference, **how)

    _carry_out(
        f"from {from_} to outside", (amount, currency), call, Consent(yes, dry_run, idempotency_key), (profile, ledger), output
    )


def _carry_out(
    way: str,
    amount: tuple[str, str],
    call_of: Callable[[Daybook, Money], Call],
    consent: Consent,
    where: tuple[str | None, str | None],
    output: OutputFormat,
) -> None:
    """Shows what the command would do, asks, and sends it. `amount` and `where` are texts as they were given."""
    with open_api(*where) as api:
        money = read_money(api.money, *amount)
        call = call_of(api, money)
        if not consent.yes or consent.dry_run:
            source, chosen = find_profile(where[0])
            lines = [f"{money} {way}", f"at {chosen.command_url} ({source})", *_rehearse(api, call, money, consent)]
            typer.echo("\n".join(lines), err=not consent.dry_run)
            if consent.dry_run:
                return
            _ask()
        answer = _send_once(call, consent.idempotency_key or str(uuid4()))
        cells = {name: methodcaller("get", name) for name in ("id", "currency", "from_account_id", "to_account_id", "account_id")}
        print_item(answer, {"amount": amount_cell(api), **cells, "reference": methodcaller("get", "reference")}, output)


def read_money(money_of: Callable[[str, str], Money], amount: str, currency: str) -> Money:
    """Reads an amount in major units exactly. `money_of` is `Daybook.money`, which knows the currencies.

    Raises:
        typer.BadParameter: it is no amount above zero, the currency is unknown, or it has fewer decimal places.
    """
    code, found = currency.upper(), AMOUNT.fullmatch(amount)
    if not found:
        raise typer.BadParameter(
            "write digits and a decimal point, such as 1250.00, and nothing between thousands", param_hint="AMOUNT"
        )
    try:
        exponent = money_of("0", code).exponent
    except ValueError:
        raise typer.BadParameter("no currency has this code: write one of ISO 4217, such as EUR", param_hint="CURRENCY") from None
    decimals = len(found[2] or "")
    if decimals > exponent:
        advice = f"write at most {exponent}" if exponent else "write whole units"
        raise typer.BadParameter(
            f"{amount} has {decimals} decimal places, and {code} has {exponent}: {advice}", param_hint="AMOUNT"
        )
    money = money_of(amount, code)
    if not money.minor_units:
        raise typer.BadParameter("give an amount above zero", param_hint="AMOUNT")
    return money


def _rehearse(api: Daybook, call: Call, money: Money, consent: Consent) -> Iterator[str]:
    """Yields who asks, and the balances as a dry run leaves them."""
    caller = api.get_caller()
    yield f"as {caller['principal']} in ledger {caller['ledger_id']}"
    try:
        answer = call(dry_run=True)
    except Problem as problem:
        if not consent.idempotency_key:
            raise
        # The first attempt may have taken the last of the money. A repeated command gets the first answer all the same.
        yield f"a new command would be refused now: {problem.title} ({problem.code})"
        return
    for each in answer["balances"]:
        posted, available = (Money(each[name], money.currency, money.exponent) for name in ("posted", "available"))
        yield f"then {each['account_id']} has {posted}, of which {available.decimal:f} is available"


def _ask() -> None:
    if not sys.stdin.isatty():
        raise typer.BadParameter("nobody can be asked here, because stdin is no terminal: nothing was sent", param_hint="--yes")
    # The question of typer would write to stdout, which is for the answer.
    typer.echo("Send it? [y/N] ", err=True, nl=False)
    try:
        answer = sys.stdin.readline()
    except (OSError, UnicodeDecodeError):
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        typer.echo("nothing was sent", err=True)
        raise typer.Exit(ExitCode.NO)


def _send_once(call: Call, key: str) -> Any:
    """Sends the command.

    Raises:
        OutcomeUnknown: no answer came.
    """
    try:
        return call(idempotency_key=key)
    except NoAnswer as lost:
        raise OutcomeUnknown(f"{lost}; {_advice(key)}") from lost
    except Problem as problem:
        if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        raise OutcomeUnknown(f"the API answered {problem}; {_advice(key)}") from problem
    except KeyboardInterrupt:
        typer.echo(f"daybook: interrupted; {_advice(key)}", err=True)
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _advice(key: str) -> str:
    again = f"send the same command again with `--idempotency-key {key}`"
    return f"it is not known whether this took effect: {again}, which takes effect once"
