"""Small markets in whole numbers: one price tick and one lot are 1, times are milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from gpuscalp.config import CostConfig, LegConfig, PaperConfig
from gpuscalp.execution.broker import PaperBroker
from gpuscalp.execution.messages import OrderKind, OrderRequest, Report, TimeInForce
from gpuscalp.schema import Instrument

E8 = 10**8
MS = 1_000_000
FAR_BID, FAR_ASK, FAR_QTY = 80, 120, 500
INSTRUMENT = Instrument("TESTUSDT", "synthetic", E8, E8, E8, 0, "synthetic")
COST = CostConfig(taker_fee_bps=5.0, maker_fee_bps=2.0)


def paper(**changes: object) -> PaperConfig:
    """Return settings without latency and wide filters."""
    base: dict[str, object] = {
        "request": LegConfig(low_ms=0.0),
        "reply": LegConfig(low_ms=0.0),
        "market_take_bound": 0.0,
        "percent_price_up": 10.0,
        "percent_price_down": 0.01,
        "depth_age_ms": 10_000_000,
        "max_wait_ms": 1_000_000,
    }
    return PaperConfig(**{**base, **changes})  # type: ignore[arg-type]


def broker(*, start: int = 1_000_000, symbols: int = 1, **changes: object) -> PaperBroker:
    return PaperBroker([INSTRUMENT] * symbols, cost=COST, paper=paper(**changes), start_e8=start * E8)


def request(
    order_id: int,
    side: int,
    qty: int,
    price: int = 0,
    *,
    tif: str = "gtc",
    reduce_only: bool = False,
    symbol: int = 0,
) -> OrderRequest:
    """Return a request; a price of 0 makes a market order, ``tif`` "stop" one that waits for its price."""
    kind = OrderKind.LIMIT if price else OrderKind.MARKET
    if price and tif == "stop":
        kind, tif = OrderKind.STOP_MARKET, "ioc"
    tif = "ioc" if tif == "stop" else tif
    return OrderRequest(order_id, symbol, side, qty * E8, price * E8, kind, TimeInForce(tif), reduce_only)


def book(
    target: PaperBroker,
    at_ms: int,
    bids: list[tuple[int, int]],
    asks: list[tuple[int, int]],
    *,
    symbol: int = 0,
    sound: bool = True,
) -> tuple[Report, ...]:
    """Show a book of (price, quantity), best first."""
    sides = [[price * E8 for price, _ in bids], [qty * E8 for _, qty in bids]]
    sides += [[price * E8 for price, _ in asks], [qty * E8 for _, qty in asks]]
    return target.on_book(symbol, at_ms * MS, *sides, sound=sound)


def quote(
    target: PaperBroker, at_ms: int, bid: int, bid_qty: int, ask: int, ask_qty: int
) -> tuple[Report, ...]:
    return target.on_quote(0, at_ms * MS, bid * E8, bid_qty * E8, ask * E8, ask_qty * E8)


def trade(target: PaperBroker, at_ms: int, price: int, qty: int, side: int) -> tuple[Report, ...]:
    return target.on_trade(0, at_ms * MS, price * E8, qty * E8, side)


def fills(reports: tuple[Report, ...] | list[Report]) -> list[tuple[int, int, int, bool]]:
    """Return (order, price, quantity, maker) of the fills among reports."""
    return [
        (report.order_id, report.fill.price_e8 // E8, report.fill.qty_e8 // E8, report.maker)
        for report in reports
        if report.fill is not None
    ]


# Scripts for Hypothesis: tuples whose first entry is the step in time (ms) and whose second is the kind.
QTYS = st.lists(st.integers(0, 6), min_size=4, max_size=4)
SIDE = st.sampled_from((1, -1))
STEP = st.integers(1, 4)
PRICE = st.integers(95, 105)
BOOK = st.tuples(STEP, st.just("book"), st.integers(98, 101), st.integers(1, 2), QTYS, QTYS)
TRADE = st.tuples(STEP, st.just("trade"), PRICE, st.integers(1, 8), SIDE)
SUBMIT = st.tuples(
    st.integers(0, 2),
    st.just("submit"),
    SIDE,
    st.integers(1, 9),
    st.one_of(st.just(0), PRICE),
    st.sampled_from(("gtc", "gtc", "ioc", "fok", "gtx")),
    st.sampled_from((False, False, False, True)),
)
STOP = st.tuples(
    st.integers(0, 2), st.just("submit"), SIDE, st.integers(1, 9), PRICE, st.just("stop"), st.booleans()
)
CANCEL = st.tuples(st.integers(0, 2), st.just("cancel"), st.integers(1, 6))
MARK = st.tuples(STEP, st.just("mark"), st.integers(80, 120), st.integers(-300, 300), st.integers(0, 30))
Step = tuple  # of mixed content


def levels(best: int, sign: int, qtys: list[int]) -> list[tuple[int, int]]:
    """Return four levels outwards from a best price, the best never empty, and one far away, never empty."""
    sizes = [max(1, qtys[0]), *qtys[1:]]
    near = [(best + sign * index, qty) for index, qty in enumerate(sizes) if qty]
    return [*near, (FAR_ASK if sign > 0 else FAR_BID, FAR_QTY)]


@dataclass
class Play:
    """What a script did: reports, arrivals by order, and the books by time."""

    reports: list[Report] = field(default_factory=list)
    arrivals: dict[int, int] = field(default_factory=dict)
    requests: dict[int, OrderRequest] = field(default_factory=dict)
    books: list[tuple[int, list[tuple[int, int]], list[tuple[int, int]]]] = field(default_factory=list)
    end_ms: int = 0


def play(target: PaperBroker, script: list[Step]) -> Play:
    """Give a script to a broker."""
    done = Play()
    now, order_id = 0, 0
    for step, kind, *what in script:
        now += step
        if kind == "book":
            bid, gap, bid_qtys, ask_qtys = what
            bids, asks = levels(bid, -1, bid_qtys), levels(bid + gap, 1, ask_qtys)
            done.books.append((now * MS, bids, asks))
            done.reports += book(target, now, bids, asks)
        elif kind == "trade":
            done.reports += trade(target, now, *what)
        elif kind == "mark":
            price, rate, ahead = what
            done.reports += target.on_mark(0, now * MS, price * E8, rate * 1_000, (now + ahead) * MS)
        elif kind == "submit":
            order_id += 1
            side, qty, price, tif, reduce_only = what
            sent = request(order_id, side, qty, price, tif=tif, reduce_only=reduce_only)
            done.requests[order_id] = sent
            done.arrivals[order_id] = target.submit(sent, now * MS)
        elif kind == "cancel":
            target.cancel(what[0], now * MS)
    done.end_ms = now + 1_000
    done.reports += target.advance(done.end_ms * MS)
    return done
