"""What decides a trade: strategy, sizing, limits, costs, and how the exchange is played on paper."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct

from gpuscalp.config.fields import Count, Fraction, Limit, NonNegative, Positive, PositiveInt, Real, Seed

QueueModel = Literal["pessimistic", "probabilistic", "proportional"]


class StrategyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """When a signal becomes an intent, and when a position is let go."""

    min_edge_bps: Real = 0.0  # expected edge after fees must exceed this
    min_confidence: Fraction = 0.4
    min_agreement: Fraction = 0.5
    hold_ms: PositiveInt | None = None  # default: the label horizon
    order_usdt: Positive = 1_000.0


class RiskConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the risk gate. "off" takes a rule out of force; docs/risk.md tells what each one is for."""

    # Money
    max_position_usdt: Positive = 5_000.0  # per symbol
    max_gross_usdt: Positive = 20_000.0  # all symbols
    max_order_usdt: Positive = 2_000.0
    max_leverage: Limit = 3.0  # all positions over the equity
    max_trade_risk_pct: Limit = 0.5  # of the equity, lost by one order that goes wrong
    risk_sigmas: Positive = 4.0  # so many standard deviations of the holding time are "wrong" …
    stop_bps: Positive | None = None  # … unless a distance is given here
    max_daily_loss_usdt: Positive = 500.0
    max_drawdown_pct: Annotated[float, Meta(gt=0, le=100)] = 10.0
    # Orders
    max_orders_per_s: PositiveInt = 20
    max_orders_per_minute: PositiveInt = 600
    exit_reserve: Annotated[float, Meta(ge=0, lt=1)] = 0.25  # share of both that entries leave to exits
    min_interval_ms: Count = 0  # from the last execution in a symbol to its next entry
    max_open_orders_total: PositiveInt = 100
    # Market
    max_spread_bps: Positive = 5.0
    max_quote_age_ms: PositiveInt = 2_000
    max_collar_bps: Limit = 100.0  # between the price that is crossed to and the mark price
    max_jump_bps: Limit = 50.0  # of the mid, from one frame to the next
    volatility_ms: PositiveInt = 1_000  # the short horizon
    max_volatility_bps: Limit = 30.0  # standard deviation over that horizon
    volatility_pause_ms: PositiveInt = 30_000
    blocked_quality: tuple[str, ...] = ("GAP", "RESYNC", "STALE", "CROSSED", "CLOCK_DRIFT", "WARM_UP")
    # Prediction
    max_clock_error_ms: Limit = 500.0
    max_prediction_age_ms: Limit = 500.0  # from the end of the frame to the decision
    max_model_age_h: Limit = 168.0  # from the end of the training
    max_edge_bps: Limit = 100.0  # more than this is not believed
    min_confidence: Fraction = 0.34
    min_agreement: Fraction = 0.0
    # Breakers that end by themselves, until they have tripped too often in a day (UTC)
    max_losses: PositiveInt | Literal["off"] = 10  # losing trades in a row, all symbols
    loss_pause_ms: PositiveInt = 300_000
    breaker_trips_max: Count = 3


class SizingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What scales ``strategy.order_usdt`` before the limits cut it. "off" leaves a factor at 1."""

    target_volatility_bps: Limit = 10.0  # over the holding time; a wilder market gets less
    volatility_ms: PositiveInt = 60_000  # how long the estimate of the volatility remembers
    kelly_fraction: Limit = 0.25
    drawdown: bool = True  # smaller, the nearer the drawdown comes to risk.max_drawdown_pct
    max_scale: Positive = 1.0  # of each factor and of their product


class OrdersConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How a position is entered, and what protects it. docs/orders.md tells what happens when.

    ``taker`` enters by a market order; ``post_only`` by a limit order at the own side of the quote that is
    refused where it would take. The bracket closes the position at a distance from its entry price.
    """

    entry: Literal["taker", "post_only"] = "taker"
    post_only_ms: PositiveInt = 1_000  # so long the limit order may rest; then it is cancelled …
    then: Literal["take", "leave"] = "leave"  # … and what it has not bought is taken, or left
    take_profit_bps: Annotated[float, Meta(gt=0, lt=10_000)] | None = None
    stop_loss_bps: Annotated[float, Meta(gt=0, lt=10_000)] | None = None


class LegConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How long something takes, in milliseconds: one way between here and the exchange, or a decision.

    ``fixed`` takes ``low_ms``; ``uniform`` draws between ``low_ms`` and ``high_ms``; ``empirical`` draws from
    ``samples_ms`` (measured by a session, in any order).
    """

    kind: Literal["fixed", "uniform", "empirical"] = "fixed"
    low_ms: NonNegative = 10.0
    high_ms: NonNegative = 10.0
    samples_ms: tuple[NonNegative, ...] = ()


class CostConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """What trading costs. Defaults: Binance USD-M, regular user, no BNB discount."""

    taker_fee_bps: NonNegative = 5.0
    maker_fee_bps: Real = 2.0
    # From hearing the message that closes a frame to sending its orders.
    compute: LegConfig = LegConfig(low_ms=1.0, high_ms=1.0)


class AccountConfig(Struct, frozen=True, forbid_unknown_fields=True):
    start_usdt: Positive = 10_000.0


class PaperConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How the paper broker plays the exchange. Fees are in CostConfig. See docs/paper_broker.md."""

    request: LegConfig = LegConfig()
    reply: LegConfig = LegConfig()
    # The state of the book that an arriving order meets: the first one at or after its arrival, or the last.
    meets: Literal["next", "last"] = "next"
    max_wait_ms: PositiveInt = 5_000  # an order that has met no sound book for so long expires
    # How much displayed quantity that leaves a level without a trade moves us ahead in the queue.
    queue: QueueModel = "pessimistic"
    queue_power: Annotated[int, Meta(ge=1, le=6)] = 3  # of the probabilistic queue
    # Levels behind the best one are taken only from a book younger than this.
    depth_age_ms: PositiveInt = 1_000
    max_open_orders: PositiveInt = 200  # per symbol
    max_orders_per_10s: PositiveInt | Literal["off"] = 300  # new ones, of the account
    max_orders_per_minute: PositiveInt | Literal["off"] = 1_200
    leverage: Annotated[int, Meta(ge=1, le=125)] = 20
    liquidation_fee_bps: NonNegative = 125.0
    percent_price_up: Positive = 1.05
    percent_price_down: Positive = 0.95
    market_take_bound: Fraction = 0.05  # how far from the mark price a market order may fill
    seed: Seed = 7


Several = Meta(min_length=1, max_length=8)


class BandConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The grid of assumptions of ``gpuscalp backtest --band``: every combination is traded.

    Fees: (maker, taker), regular user, VIP 3 and VIP 9 of Binance USD-M.
    """

    queue: Annotated[tuple[QueueModel, ...], Several] = ("pessimistic", "probabilistic", "proportional")
    # Every message takes this quantile of its leg; a leg that is fixed takes so many times its time instead.
    latency_quantiles: Annotated[tuple[Fraction, ...], Several] = (0.5, 0.9, 0.99)
    fixed_factors: Annotated[tuple[NonNegative, ...], Several] = (1.0, 2.0, 5.0)
    fees_bps: Annotated[tuple[tuple[Real, NonNegative], ...], Several] = ((2.0, 5.0), (1.2, 3.2), (0.0, 1.7))
    compute_ms: Annotated[tuple[NonNegative, ...], Several] = (1.0, 5.0, 20.0)


class TradingConfig(Protocol):
    """What a trader goes by: these sections of a backtest's and of a live session's configuration."""

    @property
    def strategy(self) -> StrategyConfig: ...
    @property
    def orders(self) -> OrdersConfig: ...
    @property
    def sizing(self) -> SizingConfig: ...
    @property
    def risk(self) -> RiskConfig: ...
    @property
    def cost(self) -> CostConfig: ...
    @property
    def account(self) -> AccountConfig: ...


class BacktestConfig(Struct, frozen=True, forbid_unknown_fields=True):
    strategy: StrategyConfig = StrategyConfig()
    orders: OrdersConfig = OrdersConfig()
    sizing: SizingConfig = SizingConfig()
    risk: RiskConfig = RiskConfig()
    cost: CostConfig = CostConfig()
    account: AccountConfig = AccountConfig()
    paper: PaperConfig = PaperConfig()
    band: BandConfig = BandConfig()
    trials: PositiveInt = 1  # configurations tried so far: deflates the Sharpe ratio
