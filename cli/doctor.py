"""`daybook doctor`: shows what is unsafe in the settings and the stores."""

import asyncio
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from cli.tables import terminal_columns
from shared.settings import read_settings
from shared.stores.doctor import examine_as_any_role
from shared.stores.findings import Finding


def doctor(*, json: Annotated[bool, typer.Option("--json", help="Print the findings as a JSON array.")] = False) -> None:
    """Check settings and stores, list what is unsafe, and say how to fix it. The exit code is 1 if a finding is dangerous.

    With DAYBOOK_ENVIRONMENT=production, a process does not start if a finding is dangerous.

    Example: daybook doctor --json
    """
    findings = asyncio.run(examine_as_any_role(read_settings()))
    if json:
        typer.echo(msgspec.json.encode(findings).decode())
    else:
        _show(findings)
    if any(finding.severity == "danger" for finding in findings):
        raise typer.Exit(1)


def _show(findings: list[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False, emoji=False, width=terminal_columns())
    for finding in findings:
        colour = "red" if finding.severity == "danger" else "yellow"
        console.print(f"[{colour}]{finding.severity}[/] [bold]{finding.name}[/]: ", end="")
        console.print(finding.what, markup=False)
        console.print(f"    {finding.fix}", markup=False)
    dangers = sum(finding.severity == "danger" for finding in findings)
    console.print(f"{dangers} dangerous, {len(findings) - dangers} to consider")
