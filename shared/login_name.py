"""Names the person who runs a command."""

import getpass
import os


def login_name() -> str:
    """Returns the name of the user's login, or the number of the user if the system knows no name, as in many containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
