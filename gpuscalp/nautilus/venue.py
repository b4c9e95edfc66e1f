"""The exchange of a backtest in NautilusTrader, set as our configuration says.

Owns: which setting of ours becomes which of Nautilus's, and the sentences for those that become none.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, Literal

from nautilus_trader.backtest.config import BacktestEngineConfig, SimulationModuleConfig
from nautilus_trader.backtest.data_client import BacktestDataClient
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.backtest.models import FillModel, LatencyModel, MakerTakerFeeModel
from nautilus_trader.backtest.modules import SimulationModule
from nautilus_trader.common.config import LoggingConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import AccountType, BookType, OmsType
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.risk.config import RiskEngineConfig
from packaging.version import Version

from gpuscalp.config import BacktestConfig
from gpuscalp.execution.latency import least_ns, median_ns
from gpuscalp.nautilus.custom import CLIENT
from gpuscalp.schema import E8, NS_PER_MS

# Whose levels fill orders: those of the recorded books, or the best one of the quotes.
BookKind = Literal["books", "quotes"]

# From here on it keeps account of what orders have taken from a book, and of the queue before a resting one.
_TAKES_ONCE: Final = Version("1.222")


class _Exchange(SimulationModule):  # type: ignore[misc]
    """Nothing happens in it: it is how the simulated exchange, which moves an account's money, is got at."""

    def process(self, ts_now: int) -> None: ...

    def log_diagnostics(self, logger: Any) -> None: ...

    def reset(self) -> None: ...

    def pay(self, money_e8: int) -> None:
        self.exchange.adjust_account(Money(Decimal(money_e8) / E8, USDT))


def latency_ns(config: BacktestConfig) -> int:
    """Return what lies between an event at Nautilus's exchange and the arrival of the order that it caused.

    Nautilus shows the strategy every event at the exchange's own time, so the way of the event comes on top
    of computing and of the way of the order.
    """
    compute_ns = median_ns(config.cost.compute)
    return least_ns(config.paper.reply) + compute_ns + median_ns(config.paper.request)


def make_engine(
    config: BacktestConfig, venue: str, perpetuals: Sequence[Any], *, book: BookKind, version: str
) -> tuple[BacktestEngine, _Exchange]:
    """Return an engine with one exchange and its instruments, and the way to the account there.

    Parameters
    ----------
    venue : Nautilus's name
    book : see ``BookKind``
    version : of NautilusTrader
    """
    engine = BacktestEngine(
        BacktestEngineConfig(
            trader_id="GPUSCALP-001",
            logging=LoggingConfig(bypass_logging=True),
            # Our own gate has judged every order.
            risk_engine=RiskEngineConfig(bypass=True),
            run_analysis=False,
        )
    )
    module = _Exchange(SimulationModuleConfig())
    newer: dict[str, Any] = {}
    if Version(version) >= _TAKES_ONCE:
        newer = {"liquidity_consumption": True, "queue_position": True}
    engine.add_venue(
        Venue(venue),
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        starting_balances=[Money(Decimal(str(config.account.start_usdt)), USDT)],
        default_leverage=Decimal(config.paper.leverage),
        modules=[module],
        # A resting order at the touched price fills after its queue where that is known, else never there.
        fill_model=FillModel(
            prob_fill_on_limit=1.0 if newer else 0.0, prob_slippage=0.0, random_seed=config.paper.seed
        ),
        fee_model=MakerTakerFeeModel(),
        latency_model=LatencyModel(base_latency_nanos=latency_ns(config)),
        book_type=BookType.L2_MBP if book == "books" else BookType.L1_MBP,
        bar_execution=False,
        **newer,
    )
    for each in perpetuals:
        engine.add_instrument(each)
    kernel = engine.kernel
    kernel.data_engine.register_client(
        BacktestDataClient(client_id=CLIENT, msgbus=kernel.msgbus, cache=kernel.cache, clock=kernel.clock)
    )
    return engine, module


def not_modelled(config: BacktestConfig, *, book: BookKind, version: str) -> list[str]:
    """Return what Nautilus does otherwise than the configuration says, a sentence each."""
    paper = config.paper
    found = [
        f"Orders meet Nautilus's book as it is at the first event, of any symbol, at or after their arrival "
        f"(paper.meets = {paper.meets!r} is not known there).",
        "Rows of doubtful quality are in Nautilus's book like others.",
        "There is no liquidation, no margin by tiers and no bound on the price of market orders.",
    ]
    if book == "books":
        found.append("Its book is that of the last recorded depth; quotes in between do not move it.")
    else:
        found.append("Its book has one level; what exceeds it is filled one tick behind.")
    for name, leg, taken_ns in (
        ("cost.compute", config.cost.compute, median_ns(config.cost.compute)),
        ("paper.request", paper.request, median_ns(paper.request)),
        ("paper.reply", paper.reply, least_ns(paper.reply)),
    ):
        if leg.kind != "fixed":
            found.append(f"{name} always takes {taken_ns / NS_PER_MS:g} ms: Nautilus draws no latencies.")
    if Version(version) < _TAKES_ONCE:
        found.append(
            f"Nautilus {version} forgets what an order has taken from the book, and knows no queues: a "
            "resting order fills when its price is traded through."
        )
    elif paper.queue != "pessimistic":
        found.append(f"Its queue is one of its own, not paper.queue = {paper.queue!r}.")
    return found
