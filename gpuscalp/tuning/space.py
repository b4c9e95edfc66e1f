"""What may be tuned, and what a trial's values make of the configuration.

Owns: the keys that may be tuned, the check that every end and choice can be used, and the form in which
Optuna is told of them. Never: suggests a value.
"""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, final

import msgspec

from gpuscalp.config import DimensionConfig, StrategyConfig, TrainConfig, TuneConfig, to_dict
from gpuscalp.config.tuning import Choice
from gpuscalp.errors import ConfigError
from gpuscalp.features import FeatureGraph
from gpuscalp.labels import horizon_frames

# Left out on purpose: booster.rounds is what the rungs are made of; grid, split and stride decide which rows
# a trial is scored on, and scores of other rows cannot be compared; hold_ms is the horizon labels measure.
TUNABLE: Final = (
    "label.horizon_ms",
    "label.threshold_bps",
    "label.upper_bps",
    "label.lower_bps",
    "features.drop",
    "features.add",
    "booster.early_stopping_rounds",
    "booster.eta",
    "booster.max_depth",
    "booster.max_bin",
    "booster.min_child_weight",
    "booster.reg_lambda",
    "booster.gamma",
    "booster.subsample",
    "booster.colsample_bytree",
    "ensemble.members",
    "ensemble.calibration",
    "strategy.min_edge_bps",
    "strategy.min_confidence",
    "strategy.min_agreement",
)
# Most values in between are none at all.
_CHOICES_ONLY: Final = frozenset(
    {"label.horizon_ms", "features.drop", "features.add", "ensemble.calibration"}
)
# Digits of a suggested number. More would say nothing, and the last ones may differ between processors.
_DIGITS: Final = 4

Params = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dimension:
    """One tuned key.

    Attributes
    ----------
    choices : where it is one of some; else it is a number from ``low`` to ``high``
    whole : a whole number
    log : spread over the orders of magnitude
    """

    name: str
    choices: tuple[Choice, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False

    def distribution(self) -> Any:
        """Return it as Optuna knows it; a choice is told by its place."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choices:
            return CategoricalDistribution(range(len(self.choices)))
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def from_optuna(self, value: float) -> Choice:
        """Return what a suggestion means, a number with few digits."""
        if self.choices:
            return self.choices[int(value)]
        if self.whole:
            return int(value)
        return min(max(float(f"{value:.{_DIGITS}g}"), self.low), self.high)

    def to_optuna(self, value: Choice) -> Any:
        return self.choices.index(value) if self.choices else value

    def holds(self, value: Choice) -> bool:
        """Say whether the value is one of this dimension."""
        if self.choices:
            return value in self.choices
        within = isinstance(value, int | float) and self.low <= value <= self.high
        return within and (not self.whole or value == int(cast(float, value)))

    def place(self, value: Choice) -> float:
        """Return where a value lies between the ends, 0 … 1."""
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high, at = float(self.low), float(self.high), float(cast(float, value))
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)


@final
class Space:
    """The tuned keys in the order of the configuration.

    Raises
    ------
    ConfigError
        a key may not be tuned, a dimension has no sense, or one of its values cannot be used
    """

    def __init__(self, config: TuneConfig) -> None:
        if config.strategy.hold_ms is not None:
            raise ConfigError(
                "a trial is scored by the return of the label, which knows no other holding time",
                where="strategy.hold_ms",
                value=config.strategy.hold_ms,
                fix="leave it out here; the backtest may have it",
            )
        if config.train.label.kind == "barrier" and config.score.metric == "net":
            raise ConfigError(
                "a barrier label ends at a touch, but the strategy holds for the horizon: returns would be "
                "counted that nobody gets",
                where="train.label.kind",
                value="barrier",
                fix='score.metric = "log_loss", or label.kind = "forward"',
            )
        self._train, self._strategy = config.train, config.strategy
        if not config.space:
            raise ConfigError(
                "nothing is tuned", where="space", fix='give at least one key, as "booster.eta" = {…}'
            )
        self.dimensions = tuple(_dimension(name, given) for name, given in config.space.items())
        for dimension in self.dimensions:
            for value in dimension.choices or (dimension.low, dimension.high):
                self._check(dimension, value)
        columns = [dimension for dimension in self.dimensions if dimension.name.startswith("features.")]
        for values in itertools.product(*(dimension.choices for dimension in columns)):
            names = (dimension.name for dimension in columns)
            train, _ = self.decode(dict(zip(names, values, strict=True)))
            FeatureGraph(train.grid, train.features)

    def decode(self, params: Mapping[str, Any]) -> tuple[TrainConfig, StrategyConfig]:
        """Return the configuration that a trial's values make.

        Raises
        ------
        ConfigError
            they make none
        """
        train, strategy = to_dict(self._train), to_dict(self._strategy)
        for name, value in params.items():
            section, key = name.split(".")
            (strategy if section == "strategy" else train[section])[key] = value
        try:
            return msgspec.convert(train, TrainConfig), msgspec.convert(strategy, StrategyConfig)
        except msgspec.ValidationError as error:
            raise ConfigError(
                f"these values make no configuration: {error}", where="space", value=dict(params)
            ) from None

    def configured(self) -> Params | None:
        """Return the values of the configuration as it stands; None where one lies outside of the space."""
        found: Params = {}
        for dimension in self.dimensions:
            section, key = dimension.name.split(".")
            value = getattr(self._strategy if section == "strategy" else getattr(self._train, section), key)
            if not dimension.holds(value):
                return None
            found[dimension.name] = value
        return found

    def read(self, params: Mapping[str, Any]) -> Params:
        """Return values out of JSON as they were: a list of patterns is a tuple."""
        return {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}

    def _check(self, dimension: Dimension, value: Choice) -> None:
        train, _ = self.decode({dimension.name: value})
        horizon_frames(train.label, train.grid)


def _dimension(name: str, given: DimensionConfig) -> Dimension:
    where = f'space."{name}"'
    if name not in TUNABLE:
        near = difflib.get_close_matches(name, TUNABLE, n=1)
        guess = f"did you mean {near[0]!r}?" if near else f"one of: {', '.join(TUNABLE)}"
        raise ConfigError("this key cannot be tuned", where=where, value=name, fix=guess)
    if given.choices:
        if given.low is not None or given.high is not None or len(set(given.choices)) < len(given.choices):
            raise ConfigError(
                "either low and high, or choices that differ", where=where, fix="take one of the two out"
            )
        return Dimension(name, choices=given.choices)
    if given.low is None or given.high is None or not given.low < given.high:
        raise ConfigError(
            "needs choices, or low and a larger high", where=where, value=f"{given.low} … {given.high}"
        )
    if name in _CHOICES_ONLY:
        raise ConfigError("this key takes choices", where=where, fix="such as { choices = [500, 1_000] }")
    if given.log and given.low <= 0:
        raise ConfigError("a logarithmic scale begins above zero", where=where, value=given.low)
    whole = isinstance(given.low, int) and isinstance(given.high, int)
    return Dimension(name, low=given.low, high=given.high, whole=whole, log=given.log)
