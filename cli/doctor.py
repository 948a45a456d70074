"""`daybook doctor`: what is unsafe about how Daybook is set up."""

import asyncio
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from shared.connections import Role
from shared.doctor import Finding, examine
from shared.settings import Settings, read_settings

# Whichever of them the login may act as.
ROLES: Final[tuple[Role, ...]] = ("daybook_query", "daybook_command", "daybook_projector")


def doctor(*, json: Annotated[bool, typer.Option("--json", help="Print the findings as a JSON array.")] = False) -> None:
    """Check settings and stores for what is unsafe, and say what to do; exit code 1 when something is dangerous.

    With DAYBOOK_ENVIRONMENT=production, the processes do not start on what is dangerous.

    Example: daybook doctor --json
    """
    findings = asyncio.run(_examine(read_settings()))
    if json:
        typer.echo(msgspec.json.encode(findings).decode())
    else:
        _show(findings)
    if any(finding.severity == "danger" for finding in findings):
        raise typer.Exit(1)


async def _examine(settings: Settings) -> list[Finding]:
    findings: list[Finding] = []
    for role in ROLES:
        findings = await examine(settings, role)
        if not any(finding.name == "no-answer" and finding.what.startswith("PostgreSQL") for finding in findings):
            break
    return findings


def _show(findings: list[Finding]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for finding in findings:
        colour = "red" if finding.severity == "danger" else "yellow"
        console.print(f"[{colour}]{finding.severity}[/] [bold]{finding.name}[/]: ", end="")
        console.print(finding.what, markup=False)
        console.print(f"    {finding.fix}", markup=False)
    dangers = sum(finding.severity == "danger" for finding in findings)
    console.print(f"{dangers} dangerous, {len(findings) - dangers} to think about")
