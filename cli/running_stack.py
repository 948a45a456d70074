"""Lets a command use the development stack that runs."""

import os
from typing import Final

from dev.data_folder import stack_environment

ADDRESSES: Final = (
    *("DAYBOOK_DATABASE_URL", "DAYBOOK_MIGRATION_DATABASE_URL", "DAYBOOK_MONGO_URL", "DAYBOOK_REDIS_URL"),
    *("DAYBOOK_COMMAND_URL", "DAYBOOK_QUERY_URL"),
)


def use_running_stack() -> None:
    """Sets the variables of the running development stack, except those that the environment sets already.

    If the environment has an address that is not the stack's, it means something else, and the stack is left alone. Otherwise a
    command would read a part of its data here and a part there, or send the stack's API key elsewhere.
    """
    stack = stack_environment()
    if any(os.environ.get(name) not in {None, "", stack.get(name)} for name in ADDRESSES):
        return
    for variable, value in stack.items():
        if not os.environ.get(variable):
            os.environ[variable] = value
