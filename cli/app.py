"""The `daybook` command line. `cli.command_line` lists the subcommands; each has a module of its own."""

import os

import typer

from cli.command_line import CommandLine
from cli.standard_streams import give_up_output, prepare_streams
from dev.data_folder import stack_environment
from shared.logs import configure_logs

app = typer.Typer(
    cls=CommandLine,
    help="Daybook, an event-sourced backend for money.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help is whole at every width, and when it is piped
    pretty_exceptions_enable=False,
)
STACK_COMMANDS = {"dev", "down", "env"}
"""The subcommands that start, end and show a development stack. They must not get the settings of a stack that runs already."""

ADDRESSES = (
    *("DAYBOOK_DATABASE_URL", "DAYBOOK_MIGRATION_DATABASE_URL", "DAYBOOK_MONGO_URL", "DAYBOOK_REDIS_URL"),
    *("DAYBOOK_COMMAND_URL", "DAYBOOK_QUERY_URL"),
)


@app.callback()
def find_stack(context: typer.Context) -> None:
    """Sets the variables of the running development stack, except those that the environment sets already.

    If the environment has an address that is not the stack's, it means something else, and the stack is left alone. Otherwise a
    command would read a part of its data here and a part there, or send the stack's API key elsewhere.
    """
    if context.invoked_subcommand in STACK_COMMANDS:
        return
    stack = stack_environment()
    if any(os.environ.get(name) not in {None, "", stack.get(name)} for name in ADDRESSES):
        return
    for variable, value in stack.items():
        if not os.environ.get(variable):
            os.environ[variable] = value


def main() -> None:
    """Runs the command line. Only results go to stdout. Errors end as `cli.errors` says."""
    prepare_streams()
    configure_logs("WARNING", "stderr")
    try:
        app()
    finally:
        give_up_output()


if __name__ == "__main__":
    main()
