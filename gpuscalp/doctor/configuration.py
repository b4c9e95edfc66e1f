"""The check ``config``: the file that a live session would be given.

Owns: how a bad file is told. What the other checks need of it, they get from here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gpuscalp.config import LiveConfig, load_named
from gpuscalp.doctor.check import Check, failed_by, ok
from gpuscalp.errors import ConfigError


def read_config(config: Path | None, env: Mapping[str, str] = os.environ) -> tuple[Check, LiveConfig | None]:
    """Decode a file as ``gpuscalp live`` does; without one the defaults.

    Returns
    -------
    the check, and the configuration (None where it cannot be used)
    """
    title = "the defaults" if config is None else str(config)
    try:
        found = load_named(LiveConfig, config, env=env) or LiveConfig()
        return ok("config", f"{title}: can be read", title), found
    except ConfigError as error:
        return failed_by("config", error, fix="correct the file, or leave out --config"), None
