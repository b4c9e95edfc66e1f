"""Configuration: TOML decoded into frozen structs. Unknown keys and values out of range are errors.

Later sources win: built-in defaults < file < environment (``GPUSCALP__SECTION__KEY``) < flags.
Secrets never live here. Parts get the struct they need; there is no global settings object.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import Meta, Struct

from gpuscalp.errors import ConfigError

ENV_PREFIX = "GPUSCALP__"

PositiveInt = Annotated[int, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class GridConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The frame grid in exchange time, the same for all symbols."""

    frame_ms: Annotated[int, Meta(ge=1, le=60_000)] = 100
    lateness_ms: Annotated[int, Meta(ge=0, le=10_000)] = 20
    stale_ms: PositiveInt = 5_000
    max_gap_ms: PositiveInt = 60_000  # a longer silence ends the run of frames: what follows starts cold


class FeatureConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which columns the graph has. ``drop`` takes shell patterns over column names."""

    leader: str = "BTCUSDT"
    drop: tuple[str, ...] = ()


class LabelConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """``forward``: class by the mid return over the horizon against ±threshold.

    ``barrier``: class by which of +upper, −lower (in bps of the entry mid) or the horizon is met first.
    """

    kind: Literal["forward", "barrier"] = "forward"
    horizon_ms: PositiveInt = 1_000
    threshold_bps: NonNegative = 1.0
    upper_bps: Positive = 3.0
    lower_bps: Positive = 3.0


class SplitConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Walk-forward folds. Purging is by label interval and cannot be turned off; ``embargo_ms`` < horizon
    is refused."""

    folds: Annotated[int, Meta(ge=2, le=50)] = 4
    mode: Literal["expanding", "rolling"] = "expanding"
    embargo_ms: int | None = None  # default: the label horizon
    min_train_fraction: Annotated[float, Meta(gt=0, lt=1)] = 0.3


class BoosterConfig(Struct, frozen=True, forbid_unknown_fields=True):
    rounds: PositiveInt = 300
    early_stopping_rounds: PositiveInt = 30
    eta: Annotated[float, Meta(gt=0, le=1)] = 0.05
    max_depth: Annotated[int, Meta(ge=1, le=8)] = 6
    max_bin: Annotated[int, Meta(ge=2, le=1024)] = 256
    min_child_weight: NonNegative = 20.0
    reg_lambda: NonNegative = 1.0
    gamma: NonNegative = 0.0
    subsample: Annotated[float, Meta(gt=0, le=1)] = 0.8
    colsample_bytree: Annotated[float, Meta(gt=0, le=1)] = 0.5


class EnsembleConfig(Struct, frozen=True, forbid_unknown_fields=True):
    members: Annotated[int, Meta(ge=1, le=64)] = 5
    seed: int = 7
    calibration: Literal["vector", "none"] = "vector"


class StrategyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a signal becomes an intent, and when a position is let go."""

    min_edge_bps: float = 0.0  # expected edge after fees must exceed this
    min_confidence: Fraction = 0.4
    min_agreement: Fraction = 0.5
    hold_ms: PositiveInt | None = None  # default: the label horizon
    order_usdt: Positive = 1_000.0


class RiskConfig(Struct, frozen=True, forbid_unknown_fields=True):
    max_position_usdt: Positive = 5_000.0  # per symbol
    max_gross_usdt: Positive = 20_000.0  # all symbols
    max_order_usdt: Positive = 2_000.0
    max_daily_loss_usdt: Positive = 500.0
    max_drawdown_pct: Annotated[float, Meta(gt=0, le=100)] = 10.0
    max_spread_bps: Positive = 5.0
    max_quote_age_ms: PositiveInt = 2_000
    min_confidence: Fraction = 0.34
    min_agreement: Fraction = 0.0
    blocked_quality: tuple[str, ...] = ("GAP", "RESYNC", "STALE", "CROSSED", "CLOCK_DRIFT", "WARM_UP")


class CostConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What trading costs. Defaults: Binance USD-M, regular user, no BNB discount."""

    taker_fee_bps: NonNegative = 5.0
    maker_fee_bps: float = 2.0
    order_latency_ms: NonNegative = 20.0
    compute_latency_ms: NonNegative = 1.0


class AccountConfig(Struct, frozen=True, forbid_unknown_fields=True):
    start_usdt: Positive = 10_000.0


class TrainConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that decides a bundle."""

    symbols: tuple[str, ...] = ()  # empty: all symbols of the archive
    venue: str = "binance_usdm"
    stride_frames: PositiveInt = 1  # take every n-th frame as a training row
    grid: GridConfig = GridConfig()
    features: FeatureConfig = FeatureConfig()
    label: LabelConfig = LabelConfig()
    split: SplitConfig = SplitConfig()
    booster: BoosterConfig = BoosterConfig()
    ensemble: EnsembleConfig = EnsembleConfig()


class BacktestConfig(Struct, frozen=True, forbid_unknown_fields=True):
    strategy: StrategyConfig = StrategyConfig()
    risk: RiskConfig = RiskConfig()
    cost: CostConfig = CostConfig()
    account: AccountConfig = AccountConfig()
    trials: PositiveInt = 1  # configurations tried so far: deflates the Sharpe ratio


class FeedConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where market data come from and how its connections are kept. Testnet or a local exchange: other URLs.

    ``trade_route``: the venue's sources disagree on which route carries the undocumented ``@trade``.
    Silence: a stream is silent after ``stale_factor`` times its longest usual pause, within the two limits.
    """

    public_url: str = "wss://fstream.binance.com/public"
    market_url: str = "wss://fstream.binance.com/market"
    private_url: str = "wss://fstream.binance.com/private"
    rest_url: str = "https://fapi.binance.com"
    # Base URLs of further redundant connections in place of the first ones; {route} is filled in.
    redundant_urls: tuple[str, ...] = ()
    redundancy: Annotated[int, Meta(ge=1, le=4)] = 2
    streams: tuple[str, ...] = ("aggTrade", "bookTicker", "depth@100ms", "markPrice@1s")
    trade_route: Literal["public", "market"] = "public"
    max_streams: Annotated[int, Meta(ge=1, le=200)] = 200  # per connection
    max_messages_per_s: Annotated[int, Meta(ge=1, le=10)] = 5  # that we send; the venue cuts off above 10
    open_timeout_ms: PositiveInt = 10_000
    reply_timeout_ms: PositiveInt = 5_000
    idle_timeout_ms: PositiveInt = 30_000  # not one byte: the connection is half open
    backoff_min_ms: PositiveInt = 250
    backoff_max_ms: PositiveInt = 30_000
    stable_ms: PositiveInt = 60_000  # open for so long: the next failure is the first again
    rotate_ms: PositiveInt = 23 * 3_600_000  # the venue cuts every connection after 24 hours
    overlap_max_ms: PositiveInt = 300_000
    first_message_ms: PositiveInt = 15_000  # after the reply to SUBSCRIBE
    stale_factor: Positive = 4.0
    stale_min_ms: PositiveInt = 5_000
    stale_max_ms: PositiveInt = 60_000
    hold_ms: Count = (
        250  # how long a message waits for the missing ones before it while others may bring them
    )
    weight_per_minute: PositiveInt = 2_400
    weight_reserve: Count = 400  # kept for orders
    clock_limit_ms: PositiveInt = 500  # a larger offset, or a larger disagreement, is drift
    clock_interval_ms: PositiveInt = 10_000


class BatchConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a micro-batch closes, and how much may wait."""

    max_ticks: Annotated[int, Meta(ge=1, le=1 << 20)] = 4_096
    max_age_ms: PositiveInt = 10
    # Above this many waiting ticks quotes, books and marks conflate to the newest of each symbol.
    conflate_above: Annotated[int, Meta(ge=1, le=1 << 22)] = 65_536
    hard_limit: Annotated[int, Meta(ge=1, le=1 << 24)] = 1 << 20


class JournalConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How a session is written down. A power cut loses at most ``flush_ms + sync_ms`` and one fsync."""

    flush_ms: PositiveInt = 20  # to the kernel, from where a killed process loses nothing
    sync_ms: PositiveInt = 200  # to the disk
    block_bytes: Annotated[int, Meta(ge=4_096, le=1 << 24)] = 1 << 20  # a full block is flushed at once
    segment_bytes: Annotated[int, Meta(ge=65_536, le=1 << 34)] = 1 << 28
    level: Annotated[int, Meta(ge=1, le=19)] = 1  # of zstd


class LegConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """One way between here and the exchange, in milliseconds.

    ``fixed`` takes ``low_ms``; ``uniform`` draws between ``low_ms`` and ``high_ms``; ``empirical`` draws from
    ``samples_ms`` (measured by a session, in any order).
    """

    kind: Literal["fixed", "uniform", "empirical"] = "fixed"
    low_ms: NonNegative = 10.0
    high_ms: NonNegative = 10.0
    samples_ms: tuple[NonNegative, ...] = ()


class PaperConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How the paper broker plays the exchange. Fees are in CostConfig. See docs/paper_broker.md."""

    request: LegConfig = LegConfig()
    reply: LegConfig = LegConfig()
    # The state of the book that an arriving order meets: the first one at or after its arrival, or the last.
    meets: Literal["next", "last"] = "next"
    max_wait_ms: PositiveInt = 5_000  # an order that has met no sound book for so long expires
    # How much displayed quantity that leaves a level without a trade moves us ahead in the queue.
    queue: Literal["pessimistic", "probabilistic", "proportional"] = "pessimistic"
    queue_power: Annotated[int, Meta(ge=1, le=6)] = 3  # of the probabilistic queue
    # Levels behind the best one are taken only from a book younger than this.
    depth_age_ms: PositiveInt = 1_000
    max_open_orders: PositiveInt = 200  # per symbol
    leverage: Annotated[int, Meta(ge=1, le=125)] = 20
    liquidation_fee_bps: NonNegative = 125.0
    percent_price_up: Positive = 1.05
    percent_price_down: Positive = 0.95
    market_take_bound: Fraction = 0.05  # how far from the mark price a market order may fill
    seed: Count = 7


T = TypeVar("T", bound=Struct)


def load(
    kind: type[T],
    path: Path | None = None,
    *,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> T:
    """Decode one configuration from its sources.

    Parameters
    ----------
    kind : the struct to decode into
    path : TOML file; None takes the defaults
    env : environment to read ``GPUSCALP__SECTION__KEY`` from; values are TOML literals, else strings
    overrides : dotted key → value, from flags; None values are ignored

    Raises
    ------
    ConfigError
        the file is missing or not TOML, a key is unknown (the nearest known key is named), or a value is of
        the wrong type or out of range
    """
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(
                "no such configuration file", where=str(path), fix="correct --config, or leave it out"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"cannot read the configuration: {error.strerror}",
                where=str(path),
                fix="name a readable file",
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"not a TOML file: {error}", where=str(path), fix="configs/ of the project has examples"
            ) from None
    sources = [] if path is None else [str(path)]
    for name, text in (env or {}).items():
        if name.startswith(ENV_PREFIX):
            sources.append(name)
            _assign(
                data,
                name.removeprefix(ENV_PREFIX).lower().split("__"),
                _literal(text),
                where=f"environment {name}",
            )
    for dotted, value in (overrides or {}).items():
        if value is not None:
            _assign(data, dotted.split("."), value, where=f"option {dotted}")
    where = ", ".join(sources) or "configuration"
    _check_keys(data, kind, where, ())
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        what, _, at = str(error).partition(" - at ")
        keys = re.findall(r"\w+", at)  # `$.grid.frame_ms` or `$.symbols[...]`
        raise ConfigError(
            f"{'.'.join(keys) or 'the configuration'}: {what[0].lower()}{what[1:]}",
            where=where,
            value=_found(data, keys),
            fix="correct the value: configs/ of the project explains the keys",
        ) from None


def _found(data: object, keys: list[str]) -> object:
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            break
        data = data[key]
    return data


def to_dict(config: Struct) -> dict[str, Any]:
    """Return the resolved configuration as plain data, for freezing into a run directory."""
    return cast(dict[str, Any], msgspec.to_builtins(config))


def _assign(data: dict[str, Any], keys: list[str], value: object, *, where: str) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{key} is a value, not a section", where=where, value=value)
    data[keys[-1]] = value


def _literal(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _check_keys(data: Mapping[str, Any], kind: type[Struct], where: str, path: tuple[str, ...]) -> None:
    """Refuse unknown keys here rather than in msgspec, so that the nearest known key can be named."""
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
    for key, value in data.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            raise ConfigError(
                "unknown key",
                where=where,
                value=".".join((*path, key)),
                fix=f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(fields)}",
            )
        inner = fields[key]
        if isinstance(inner, type) and issubclass(inner, Struct) and isinstance(value, dict):
            _check_keys(value, inner, where, (*path, key))
