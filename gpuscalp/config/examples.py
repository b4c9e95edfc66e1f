"""The commented files of ``configs/``, and what a configuration comes to with its file and environment.

Owns: which files there are, what each decodes into, and the two places they may lie in: the installed package
(``gpuscalp/_configs``, put there when the wheel is built) and the checkout (``configs/`` beside the package).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from gpuscalp.config.live import LiveConfig
from gpuscalp.config.load import flat, flat_dict, load, load_named, variable_of
from gpuscalp.config.trading import BacktestConfig
from gpuscalp.config.training import TrainConfig
from gpuscalp.config.tuning import TuneConfig
from gpuscalp.config.walkforward import WalkForwardConfig
from gpuscalp.errors import ConfigError

EXAMPLES: Final[Mapping[str, type[Struct]]] = {
    "train": TrainConfig,
    "backtest": BacktestConfig,
    "walkforward": WalkForwardConfig,
    "tune": TuneConfig,
    "paper": LiveConfig,
    "embedded": LiveConfig,
    "nautilus": LiveConfig,
}


def example_text(name: str) -> str:
    """Return the file of one of ``EXAMPLES``, comments and all.

    Raises
    ------
    ConfigError    it is in neither place
    """
    package = resources.files("gpuscalp")
    places = (package / "_configs" / f"{name}.toml", Path(str(package)).parent / "configs" / f"{name}.toml")
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise ConfigError(
        f"no example of a configuration {name!r}",
        where=" and ".join(map(str, places)),
        fix="reinstall gpuscalp, or run from a complete checkout",
    )


def resolved(name: str, path: Path | None, *, env: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return every value of a configuration as a command would take it, in order.

    Parameters
    ----------
    name : of ``EXAMPLES``: what kind of configuration it is
    path : TOML file; None: there is none
    env : as for ``load``

    Returns
    -------
    dicts: ``key`` with its sections, ``value``, and ``source``: "default", "file", or the variable's name

    Raises
    ------
    ConfigError    as ``load``; for a session as ``load_named``
    """
    kind = EXAMPLES[name]
    # As the commands of a session do, which may have a configuration of its own that no variable overrules.
    found = flat_dict((load_named if kind is LiveConfig else load)(kind, path, env=env) or kind())
    written = {} if path is None else dict(flat(tomllib.loads(path.read_text(encoding="utf-8"))))
    return [
        {
            "key": key,
            "value": value,
            "source": variable_of(key, env) or ("file" if _is_among(key, written) else "default"),
        }
        for key, value in found.items()
    ]


def _is_among(key: str, written: Mapping[str, Any]) -> bool:
    """Whether a file has a key, or one of the sections that it stands in as a value of its own."""
    parts = key.split(".")
    return any(".".join(parts[:count]) in written for count in range(1, len(parts) + 1))
