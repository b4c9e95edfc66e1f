"""Columns that a configuration adds to the default ones: ``features.add``.

Owns: what an entry may say. Never: says what is done with it (gpuscalp.features).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, final

from gpuscalp.errors import ConfigError
from gpuscalp.feature_columns import Context
from gpuscalp.feature_names import group_of

_KINDS: Final = {"leader": "leader", "market": "mean", "relative": "relative"}
_OWN_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+")


@final
class Additions:
    """What the entries of ``features.add`` ask for: each once, and none that is declared already.

    An entry is the name of a column (``price.slope.64``, ``leader.flow.imbalance.128``), or a new name and a
    formula (``my.pressure = ofi_kusdt.mean.8 / ofi_kusdt.std.128``).

    Raises
    ------
    ConfigError    an entry is neither, or a name has two formulas
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self.columns: list[str] = []
        self.context: list[Context] = []
        self.formulas: list[tuple[str, str]] = []
        for entry in entries:
            name, is_formula, text = (part.strip() for part in entry.partition("="))
            kind, _, source = name.partition(".")
            known = group_of(name) is not None
            of_others = kind in _KINDS and group_of(source) is not None
            if is_formula:
                if known or kind in (*_KINDS, "time") or not _OWN_NAME.fullmatch(name):
                    fix = "two or more words of a-z, 0-9 and _ with dots between, such as my.pressure"
                    raise _error("not a name of your own for a formula", entry, fix)
                if name in (other for other, _ in self.formulas):
                    raise _error("a name that has a formula already", entry, "give it another name")
                self.formulas.append((name, " ".join(text.split())))
            elif of_others:
                self.context.append(Context(_KINDS[kind], name, source))
            elif known:
                self.columns.append(name)
            else:
                fix = "docs/features.md says how columns are named; a formula is NAME = FORMULA"
                raise _error("no column of this name can be made", entry, fix)


def _error(what: str, entry: str, fix: str) -> ConfigError:
    return ConfigError(what, where="features.add", value=entry, fix=fix)
