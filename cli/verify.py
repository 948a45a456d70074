"""`daybook verify`: folds the log again, and compares everything that was derived from the log with the result."""

from pathlib import Path
from typing import Annotated

import typer
import uvloop

from cli.arguments import LedgerOption
from cli.exit_codes import ExitCode
from cli.terminal_progress import TerminalProgress
from command_api.past_history import DOMAIN
from projector.verify.ledger import CheckOutcome, CheckVerdict, verify_ledger
from shared.settings import read_settings


def verify(
    ledger: LedgerOption = "main",
    seals: Annotated[
        Path | None, typer.Option(help="A file of published seals, as lines of JSON. Default: DAYBOOK_SEAL_FILE.", exists=True)
    ] = None,
) -> None:
    """Check the log, everything that is derived from it, and the read models.

    Folds the log again, and compares hash chains, seals, balances, person keys, audit records, streams and snapshots. Prints a
    line for each check. If something differs, the line names the first difference, with what was expected and what was found,
    and the exit code is 3. If nothing differs but a read model has dead letters, the exit code is 4. All processes may keep
    running.

    Example: daybook verify
    """
    verdicts = uvloop.run(verify_ledger(read_settings(), ledger, seals, DOMAIN, TerminalProgress, _print))
    if CheckVerdict.DIFFERENT in verdicts:
        raise typer.Exit(ExitCode.DIFFERENT)
    if CheckVerdict.PARKED in verdicts:
        raise typer.Exit(ExitCode.DEAD_LETTERS)


def _print(outcome: CheckOutcome) -> None:
    typer.echo(f"{outcome.name:<12} {outcome.verdict}  {outcome.text}")
