"""Who does something on this machine, for the records of it; and where what belongs to that user lies.

Owns: a name in every case: a container may run under a number that no file of users knows.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from pathlib import Path

from gpuscalp.errors import ConfigError


def user_name() -> str:
    """Return the name of this process's user, or "user" and its number."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on
        return f"user {os.getuid()}"


def user_folder(variable: str, default: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder ``gpuscalp`` below ``$variable``, else below ``default`` of the home directory.

    Raises
    ------
    ConfigError    neither the variable nor a home is there, as for a number that no file of users knows
    """
    named = environ.get(variable)
    try:
        return Path(named or f"~/{default}").expanduser() / "gpuscalp"
    except RuntimeError:
        raise ConfigError(
            "this user has no home directory", value=named or user_name(), fix=f"set HOME, or {variable}"
        ) from None
