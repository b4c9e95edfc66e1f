"""What a live session needs beside a model and a strategy: feeds, batches, journal, state."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gpuscalp.config.fields import Count, Hours, Positive, PositiveInt, Seconds
from gpuscalp.config.trading import (
    AccountConfig,
    CostConfig,
    OrdersConfig,
    PaperConfig,
    RiskConfig,
    SizingConfig,
    StrategyConfig,
)


class FeedConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where market data come from and how its connections are kept. Testnet or a local exchange: other URLs.

    ``trade_route``: the venue's sources disagree on which route carries the undocumented ``@trade``.
    Silence: a stream is silent after ``stale_factor`` times its longest usual pause, within the two limits;
    after the longer one until it has been seen for so long.
    """

    public_url: str = "wss://fstream.binance.com/public"
    market_url: str = "wss://fstream.binance.com/market"
    rest_url: str = "https://fapi.binance.com"
    # Base URLs of further redundant connections in place of the first ones; {route} is filled in.
    redundant_urls: tuple[str, ...] = ()
    redundancy: Annotated[int, Meta(ge=1, le=4)] = 2
    # Kinds, one stream for each symbol; one that begins with "!" is over all symbols. "depth20@100ms"
    # in place of "depth@100ms" gives books of 20 levels without snapshots (docs/feeds.md).
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
    """How a session is written down. A power cut loses at most ``flush_ms + sync_ms`` and one fsync,
    or two where one takes longer than ``sync_ms``."""

    flush_ms: PositiveInt = 20  # to the kernel, from where a killed process loses nothing
    sync_ms: PositiveInt = 200  # to the disk
    block_bytes: Annotated[int, Meta(ge=4_096, le=1 << 24)] = 1 << 20  # a full block is flushed at once
    segment_bytes: Annotated[int, Meta(ge=65_536, le=1 << 34)] = 1 << 28
    level: Annotated[int, Meta(ge=1, le=19)] = 1  # of zstd


class SessionConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How a live session keeps time and state."""

    # A frame that no message closes is closed by the clock, so long after its end: more than messages take.
    clock_close_ms: PositiveInt = 250
    predict_within_ms: PositiveInt = 1_000  # a frame that is older when its turn comes gets no prediction
    book_interval_ms: Count = 0  # as the archive that the model was trained on was imported
    checkpoint_s: Seconds = 30.0
    checkpoints_kept: Annotated[int, Meta(ge=1, le=100)] = 2
    status_ms: PositiveInt = 500


class EngineConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How predictions are made in time, and what becomes of a device that fails.

    On a GPU they are made in worker processes. The CPU computes the features too, compares, and takes over.
    """

    # On a GPU: our forest kernel, or XGBoost's own predictor on the same memory.
    predictor: Literal["forest", "xgboost"] = "forest"
    # A prediction that is there later than this after its batch was taken never reaches the gate.
    deadline_ms: PositiveInt = 200
    # "cpu": a worker that runs the CPU's twins, to rehearse its failures where there is no GPU.
    workers: Literal["gpu", "cpu"] = "gpu"
    gpus: Annotated[int, Meta(ge=0, le=64)] = 0  # that share the symbols; 0 = all that are visible
    answer_ms: PositiveInt = 250  # a worker that owes an answer for so long hangs
    start_ms: PositiveInt = 120_000  # until a worker has loaded its driver, kernels and model
    agree_batches: PositiveInt = 50  # equal to the CPU's, in a row, before a worker's answers count
    restart_ms: PositiveInt = 30_000  # until a failed worker is replaced; doubled by each further failure
    restart_max_ms: PositiveInt = 3_600_000
    canary_ms: PositiveInt = 1_000  # how often a worker predicts the bundle's canary rows


class GpuHealthConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How the GPUs of a session are watched, and from where on nothing new is opened upon their word.

    A card that has failed (lost, a critical Xid, memory that could not be corrected) is never used: that has
    no threshold.
    """

    poll_ms: Annotated[int, Meta(ge=100, le=60_000)] = 500
    silent_ms: PositiveInt = 10_000  # without an answer of the driver: a dead card can hold it for ever
    min_free_mib: Count = 256  # of the card's memory, or of its MIG slice
    margin_celsius: Count = 5  # to the temperature at which the card slows itself down
    on_slowdown: Literal["refuse", "ignore"] = "refuse"  # by its hardware: heat, or the power supply's brake


class MetricsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where metrics can be fetched in Prometheus' format."""

    address: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 0  # 0 = off


class LogsConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What a session writes into ``logs/`` of its directory (docs/logs.md)."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # To standard error as well, for journald and containers; on a terminal it would run into the display.
    stderr: Literal["off", "text", "json"] = "off"
    file_bytes: Annotated[int, Meta(ge=4_096, le=1 << 34)] = 10_000_000
    files: Annotated[int, Meta(ge=1, le=1_000)] = 5  # kept beside the one that is written
    queue: Annotated[int, Meta(ge=1, le=1 << 20)] = (
        10_000  # entries that may wait; more are dropped and counted
    )


class NotifyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a session tells somebody what is wrong with it (docs/alerts.md).

    Whom it tells is a secret and not here: the environment or a file that only its owner may read says it.
    """

    severity: Literal["critical", "warning", "info"] = "warning"  # and what is graver
    every_s: Seconds = 5.0  # how often it looks
    # How long anything but a critical alert waits for others.
    group_s: Annotated[float, Meta(ge=0, le=1e9)] = 10.0
    repeat_s: Seconds = 3_600.0  # a critical alert that goes on is told again
    max_per_hour: Annotated[int, Meta(ge=4, le=1_000)] = 20  # a quarter of them is kept for critical ones
    resolved: bool = True  # also tell when it is over


class AdaptationConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a session corrects its model's calibration by what came, and how far (docs/drift.md).

    A bias is added to the logarithm of a class's probability before the classes share one again; a scale is
    the factor of all logarithms. Both are counted from the calibration that the model came with.
    """

    recalibrate: bool = False
    every_s: Annotated[float, Meta(ge=60.0, le=3_600.0)] = 600.0
    window_s: Annotated[float, Meta(ge=600.0, le=86_400.0)] = 7_200.0  # of matured rows that count
    # Labels that do not overlap; until so many have matured nothing is done.
    min_independent: Annotated[float, Meta(ge=100.0, le=1e12)] = 1_000.0
    max_bias: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.3
    max_bias_per_hour: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.15
    max_log_scale: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.2
    max_log_scale_per_hour: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.1


class NautilusConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Orders through NautilusTrader to a real account (docs/nautilus_live.md). Keys: environment only."""

    where: Literal["live", "testnet", "local"] = "testnet"
    # Of "local": an exchange on this machine (gpuscalp exchange --lenient).
    rest_url: str = ""
    stream_url: str = ""
    ws_api_url: str = ""
    # What becomes of a position or an order at the exchange that nobody here knows.
    unknown: Literal["block", "adopt", "close"] = "block"
    look_s: Seconds = 30.0  # how often orders, trades, positions and balance are compared
    # The exchange refuses a request that comes later; an order it does not know after that never arrived.
    recv_window_ms: Annotated[int, Meta(ge=100, le=60_000)] = 5_000
    silent_ms: PositiveInt = 5_000  # a symbol without quotes, or without marks, for so long is not traded
    connect_s: Seconds = 30.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "WARNING"


class RetrainingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a session trains its next model, and what that may take of the machine (docs/retraining.md).

    The result predicts in the shadow. Whether it is promoted is another question: ``[promotion]``.
    """

    # After the last attempt, or the beginning of the session; 0 = never.
    every_hours: Annotated[float, Meta(ge=0, le=1e6)] = 0.0
    train_hours: Hours = 24.0  # of the market, up to then
    rows_min: PositiveInt = 100_000  # frames times symbols of the session, within train_hours
    timeout_hours: Hours = 6.0
    cores: Annotated[int, Meta(ge=1, le=1_024)] = 1
    memory_mb: Annotated[int, Meta(ge=256, le=1 << 30)] = 4_096
    device: Literal["cpu", "cuda"] = "cpu"
    # That training on a GPU is made to fit into.
    gpu_memory_mb: Annotated[int, Meta(ge=1_024, le=1 << 30)] = 4_096
    registry: str = ""  # folder, / or ~/ before it; "" = the candidate is kept in the session alone


class PromotionConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a shadow takes the lead, and when the lead before it is taken up again (docs/retraining.md)."""

    by: Literal["nobody", "rule"] = "nobody"  # "rule": promoted and rolled back without anybody asked
    rows_min: PositiveInt = 20_000  # matured, that both models have predicted
    confidence: Annotated[float, Meta(ge=0.5, le=0.999999)] = 0.99  # of both tests
    # In which a new lead's calibration is watched.
    window_s: Annotated[float, Meta(ge=10.0, le=1e9)] = 3_600.0
    tolerance: Annotated[float, Meta(ge=0, lt=1)] = 0.05  # of a gap in a probability (or nats), beyond chance
    errors: Positive = 6.0  # standard errors that chance is granted: it is looked at all day long


class LiveConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A live session. Frames and features are the model's own."""

    venue: str = "binance_usdm"
    broker: Literal["paper", "nautilus"] = "paper"
    nautilus: NautilusConfig = NautilusConfig()
    feed: FeedConfig = FeedConfig()
    batch: BatchConfig = BatchConfig()
    journal: JournalConfig = JournalConfig()
    strategy: StrategyConfig = StrategyConfig()
    orders: OrdersConfig = OrdersConfig()
    sizing: SizingConfig = SizingConfig()
    risk: RiskConfig = RiskConfig()
    cost: CostConfig = CostConfig()
    account: AccountConfig = AccountConfig()
    paper: PaperConfig = PaperConfig()
    session: SessionConfig = SessionConfig()
    engine: EngineConfig = EngineConfig()
    gpu_health: GpuHealthConfig = GpuHealthConfig()
    metrics: MetricsConfig = MetricsConfig()
    logs: LogsConfig = LogsConfig()
    notify: NotifyConfig = NotifyConfig()
    retraining: RetrainingConfig = RetrainingConfig()
    promotion: PromotionConfig = PromotionConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
