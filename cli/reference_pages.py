"""Makes the pages of reference from the code, and writes all that the site of the documentation is built from: `make docs`."""

from collections.abc import Iterator
from typing import Any, Final

import typer
from typer.main import get_command

from cli.app import app
from dev.api_reference import api_reference
from dev.data_folder import ROOT
from dev.docs_site import REFERENCE, write_site
from dev.event_reference import event_reference
from dev.write_client import documents
from shared.log.events import EVENT_TYPES

COLUMNS: Final = 100


def reference_pages() -> dict[str, str]:
    """Returns the pages of REFERENCE and the schemas that they link to, by their paths in the site."""
    apis = documents()
    query = apis["query"]
    events = event_reference(EVENT_TYPES.values(), query["components"]["schemas"]["EventResource"], query["info"]["version"])
    return {**api_reference(apis), **events, REFERENCE["Command line"]: _help_page()}


def _help_page() -> str:
    """What `daybook --help` prints, and then each subcommand with its own help."""
    return "\n\n".join(["# The command line", *_helps(get_command(app), None, "daybook")]) + "\n"


def _helps(command: Any, parent: typer.Context | None, name: str) -> Iterator[str]:
    context = typer.Context(command, parent=parent, info_name=name, terminal_width=COLUMNS, max_content_width=COLUMNS)
    yield f"## {context.command_path}"
    yield f"```text\n{command.get_help(context).replace(f'{ROOT}/', '')}\n```"
    for each, subcommand in getattr(command, "commands", {}).items():
        yield from _helps(subcommand, context, each)


if __name__ == "__main__":
    write_site(ROOT / "site", reference_pages())
