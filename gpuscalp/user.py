"""Who does something on this machine, for the records of it.

Owns: a name in every case: a container may run under a number that no file of users knows.
"""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """Return the name of this process's user, or "user" and its number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on
        return f"user {os.getuid()}"
