"""The feature graph: the declared columns, compiled into tables for the ladder and the context.

Owns: names, order, units, warm-up and the hash that goes into every bundle. Never: runs a kernel.
"""

from __future__ import annotations

import difflib
import fnmatch
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Final, final

import numpy as np
from msgspec import structs

from gpuscalp.config import FeatureConfig, GridConfig, to_dict
from gpuscalp.contract import ColumnSpec
from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.feature_additions import Additions
from gpuscalp.feature_columns import CHANNEL_DELAY, CONTEXT, CYCLES, GROUPS, Context, Cycle
from gpuscalp.feature_formulas import FormulaBuilder
from gpuscalp.feature_names import Group, with_columns
from gpuscalp.ops.context_program import ContextProgram
from gpuscalp.ops.formula_program import FormulaProgram
from gpuscalp.ops.ladder_codes import (
    FINISH_FIELDS,
    GROUP_FIELDS,
    LEVELS,
    PATH_SIZE,
    SPECTRUM_BINS,
    SUMS_SIZE,
    Op,
    Program,
)
from gpuscalp.schema import F32

# Raised whenever the meaning of a number between a tick and a feature, or that of a label, changes: old
# bundles are then refused.
CONTRACT_VERSION: Final = 4


@final
class FeatureGraph:
    """All columns, in order, and the tables that compute them.

    Parameters
    ----------
    grid : GridConfig        part of the hash: the same window means something else on another grid
    features : FeatureConfig which leader, which columns to leave out and to add
    symbols : the symbols in the order of axis S; they are not part of the hash
    groups, context, cycles : the declared columns, by default those of gpuscalp.feature_columns

    Raises
    ------
    ConfigError              a ``drop`` pattern matches nothing, or removes the source of a column that stays,
                             or leaves nothing but the clock; an entry of ``add`` is no column and no formula
    """

    def __init__(
        self,
        grid: GridConfig,
        features: FeatureConfig,
        symbols: Iterable[str] = (),
        *,
        groups: Sequence[Group] = GROUPS,
        context: Sequence[Context] = CONTEXT,
        cycles: Sequence[Cycle] = CYCLES,
    ) -> None:
        self.grid = grid
        self.config = features
        self.symbols = tuple(symbols)
        names = _declared_names(groups, context, cycles)
        wanted = dict.fromkeys(entry.strip() for entry in features.add)
        dropped = _dropped(features.drop, names) - wanted.keys()
        added = Additions(entry for entry in wanted if entry not in names)
        context = (*context, *added.context)
        groups = with_columns(groups, added.columns)
        _check_sources(context, dropped, _declared_names(groups, (), ()))
        builder = _Builder(dropped)
        for group in groups:
            builder.add_group(group)
        if not builder.groups:
            raise ConfigError(
                "no column is left that is made from the market",
                where="features.drop",
                fix="keep at least one",
            )
        leader = self.symbols.index(features.leader) if features.leader in self.symbols else -1
        for item in context:
            builder.add_context(item)
        for cycle in cycles:
            builder.add_cycle(cycle)
        self.formulas = builder.add_formulas(added.formulas)
        self.columns: tuple[ColumnSpec, ...] = tuple(builder.columns)
        self.names: tuple[str, ...] = tuple(column.name for column in self.columns)
        self.program = builder.program()
        self.context = builder.context_program(leader)
        self.warm_up_frames = max(column.warm_up for column in self.columns)
        self.hash = self._digest()

    def __len__(self) -> int:
        return len(self.columns)

    def index(self, name: str) -> int:
        """Return the position of a column on axis F; ConfigError names the nearest columns."""
        try:
            return self.names.index(name)
        except ValueError:
            near = difflib.get_close_matches(name, self.names, n=5)
            fix = f"near it: {', '.join(near)}" if near else "gpuscalp features list shows all columns"
            raise ConfigError("no such column", value=name, fix=fix) from None

    def matching(self, patterns: Iterable[str]) -> tuple[ColumnSpec, ...]:
        """Return the columns that match any of the shell patterns, in order; all without one.

        Raises
        ------
        UsageError    a pattern matches no column
        """
        wanted: set[str] = set()
        for pattern in patterns:
            found = fnmatch.filter(self.names, pattern)
            if not found:
                raise UsageError(
                    "pattern matches no column",
                    where="columns",
                    value=pattern,
                    fix="quote it for the shell; gpuscalp features list shows all columns",
                )
            wanted.update(found)
        return tuple(column for column in self.columns if not wanted or column.name in wanted)

    def _digest(self) -> str:
        digest = hashlib.sha256()
        described = {
            "contract": CONTRACT_VERSION,
            "grid": to_dict(self.grid),
            "leader": self.config.leader,
            "columns": [structs.asdict(column) for column in self.columns],
        }
        digest.update(json.dumps(described, sort_keys=True).encode())
        tables = [self.program.groups, self.program.finishes, self.program.constants, self.context.table]
        if len(self.formulas.formulas):
            tables += self.formulas
        for table in tables:
            digest.update(np.ascontiguousarray(table).tobytes())
        return digest.hexdigest()


def _declared_names(
    groups: Sequence[Group], context: Sequence[Context], cycles: Sequence[Cycle]
) -> list[str]:
    names = [output.name for group in groups for output in group.outputs]
    return names + [item.name for item in context] + [cycle.name for cycle in cycles]


def _dropped(patterns: Iterable[str], names: Sequence[str]) -> frozenset[str]:
    dropped: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            raise ConfigError(
                "pattern matches no column",
                where="features.drop",
                value=pattern,
                fix="gpuscalp features list shows all columns",
            )
        dropped.update(found)
    return frozenset(dropped)


def _check_sources(context: Iterable[Context], dropped: frozenset[str], names: Sequence[str]) -> None:
    """Refuse a column of the leader or of all symbols whose source is dropped, or was never there."""
    for item in context:
        if item.name in dropped:
            continue
        if item.source in dropped:
            raise ConfigError(
                f"{item.name} is made from {item.source}, which is dropped",
                where="features.drop",
                fix=f"drop {item.name} too, or add {item.source}",
            )
        if item.source not in names:
            raise ConfigError(
                f"{item.name} is made from {item.source}, which is not there",
                where="features.add",
                fix=f"add {item.source} too",
            )


class _Builder:
    """Collects rows of the tables while columns are added in order."""

    def __init__(self, dropped: frozenset[str]) -> None:
        self.dropped = dropped
        self.columns: list[ColumnSpec] = []
        self.groups: list[list[int]] = []
        self.finishes: list[list[int]] = []
        self.constants: list[F32] = []
        self.constant_count = 0
        self.ring_rows = 0
        self.context_rows: dict[str, list[list[int]]] = {"leader": [], "mean": [], "relative": []}
        self.cycles: list[list[int]] = []
        self.steps: list[int] = []
        self.table: list[F32] = []

    def add_group(self, group: Group) -> None:
        outputs = [output for output in group.outputs if output.name not in self.dropped]
        if not outputs:
            return
        channels = (group.x, group.x if group.y is None else group.y)
        delay = max(CHANNEL_DELAY.get(channel, 0) for channel in channels)
        base = len(self.columns)
        for output in outputs:
            self.columns.append(
                ColumnSpec(output.name, output.unit, output.window, output.window + delay, group.source)
            )
        # Finishes run in the order of levels; columns keep the order of declaration.
        order = sorted(range(len(outputs)), key=lambda index: outputs[index].window)
        first_finish = len(self.finishes)
        for index in order:
            output = outputs[index]
            level = output.window.bit_length() - 1
            assert 1 << level == output.window, f"{output.name}: windows are powers of two"
            self.finishes.append([level, int(output.stat), base + index, output.a, output.b])
        top = max(output.window for output in outputs).bit_length() - 1
        size = _element_count(group)
        self.groups.append(
            [
                int(group.op),
                int(group.x),
                -1 if group.y is None else int(group.y),
                size,
                top,
                self.constant_count,
                first_finish,
                len(outputs),
                self.ring_rows,
            ]
        )
        self.ring_rows += size * ((1 << top) - 1)
        table = _constants(group, top)
        self.constants.append(table)
        self.constant_count += table.size

    def add_context(self, item: Context) -> None:
        if item.name in self.dropped:
            return
        names = [column.name for column in self.columns]
        source = names.index(item.source)
        made_from = self.columns[source]
        self.context_rows[item.kind].append([source, len(self.columns)])
        self.columns.append(
            ColumnSpec(
                item.name, made_from.unit, made_from.window, made_from.warm_up, f"{item.kind}({item.source})"
            )
        )

    def add_cycle(self, cycle: Cycle) -> None:
        if cycle.name in self.dropped:
            return
        position = np.arange(cycle.period_s // cycle.step_s, dtype=np.float64) * cycle.step_s / cycle.period_s
        values = {
            "sin": np.sin(2.0 * np.pi * position),
            "cos": np.cos(2.0 * np.pi * position),
            "left": 1.0 - position,
        }[cycle.wave]
        self.cycles.append([len(self.columns), cycle.period_s, sum(table.size for table in self.table)])
        self.steps.append(cycle.step_s)
        # Rounded to 1e-6: libraries differ in the last places of a sine, and the table is in the hash.
        self.table.append(np.round(values, 6).astype(np.float32))
        self.columns.append(ColumnSpec(cycle.name, "ratio", 1, 1, f"clock({cycle.period_s} s)"))

    def add_formulas(self, formulas: Iterable[tuple[str, str]]) -> FormulaProgram:
        """Add columns by name and formula; they read the columns that are there by now."""
        made_from = tuple(self.columns)
        builder = FormulaBuilder([column.name for column in made_from])
        for name, text in formulas:
            try:
                read = [made_from[at] for at in builder.add(len(self.columns), text)]
            except ConfigError as error:  # the builder knows no names
                entry = f"{name} = {text}"
                raise ConfigError(error.what, where=error.where, value=entry, fix=error.fix) from None
            window, warm_up = (max(column.window for column in read), max(column.warm_up for column in read))
            self.columns.append(ColumnSpec(name, "own", window, warm_up, text))
        return builder.program()

    def program(self) -> Program:
        return Program(
            np.array(self.groups, np.int64).reshape(-1, GROUP_FIELDS),
            np.array(self.finishes, np.int64).reshape(-1, FINISH_FIELDS),
            # Never empty: a kernel gets the address of it.
            np.concatenate([*self.constants, np.zeros(1, np.float32)]),
        )

    def context_program(self, leader: int) -> ContextProgram:
        def pairs(kind: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
            return np.array(self.context_rows[kind], np.int64).reshape(-1, 2)

        return ContextProgram(
            np.array([leader], np.int64),
            pairs("leader"),
            pairs("mean"),
            pairs("relative"),
            np.array(self.cycles, np.int64).reshape(-1, 3),
            np.array(self.steps, np.int64),
            np.concatenate([*self.table, np.zeros(1, np.float32)]),
        )


def _element_count(group: Group) -> int:
    sizes = {Op.MOMENTS: 2, Op.EXTREMES: 2, Op.SUMS: SUMS_SIZE, Op.CROSS: 5, Op.PATH: PATH_SIZE}
    if group.op == Op.DECAY:
        return len(group.spans)
    if group.op == Op.SPECTRUM:
        return 2 * SPECTRUM_BINS
    return sizes[group.op]


def _constants(group: Group, top: int) -> F32:
    """Return the host-made tables of one group, in float64 and rounded once.

    DECAY: lambda^(2^(level-1)) by (element, level), then the factor that makes a sum over 2^level frames a
    weighted mean. SPECTRUM: cos and sin of 2 pi k h / n by (level, bin), n the full window.
    """
    if group.op == Op.DECAY:
        table = np.zeros((2, len(group.spans), LEVELS))
        for element, span in enumerate(group.spans):
            decay = 1.0 - 2.0 / (span + 1.0)
            for level in range(LEVELS):
                table[0, element, level] = decay ** (2.0 ** (level - 1)) if level else 1.0
                table[1, element, level] = (1.0 - decay) / (1.0 - decay ** (2.0**level))
        return table.astype(np.float32).ravel()
    if group.op == Op.SPECTRUM:
        window = 1 << top
        twiddles = np.zeros((LEVELS, SPECTRUM_BINS, 2))
        for level in range(1, top + 1):
            angle = 2.0 * np.pi * np.arange(SPECTRUM_BINS) * (1 << (level - 1)) / window
            twiddles[level, :, 0] = np.cos(angle)
            twiddles[level, :, 1] = np.sin(angle)
        return twiddles.astype(np.float32).ravel()
    return np.zeros(0, np.float32)
