"""The `daybook` command line. `cli.command_line` lists the subcommands; each has a module of its own."""

import typer

from cli.command_line import API_COMMANDS, CommandLine
from cli.running_stack import use_running_stack
from cli.standard_streams import give_up_output, prepare_streams
from shared.logs import configure_logs

app = typer.Typer(
    cls=CommandLine,
    help="Daybook, an event-sourced backend for money.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help is whole at every width, and when it is piped
    pretty_exceptions_enable=False,
)
STACK_COMMANDS = {"dev", "down", "env"}
"""The subcommands that start, end and show a development stack. They must not get the settings of a stack that runs already."""


@app.callback()
def find_stack(context: typer.Context) -> None:
    """Lets a command use the running stack, unless it starts one, or chooses by its profile which Daybook it means."""
    if context.invoked_subcommand not in STACK_COMMANDS | API_COMMANDS:
        use_running_stack()


def main() -> None:
    """Runs the command line. Only results go to stdout. Errors end as `cli.errors` says."""
    prepare_streams()
    configure_logs("WARNING", "stderr")
    try:
        app(prog_name="daybook")
    finally:
        give_up_output()


if __name__ == "__main__":
    main()
