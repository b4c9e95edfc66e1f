"""A made-up market as a venue would tell it: messages of USD-M streams without holes, and snapshots that fit.

Owns: prices, books and ids of S symbols, and how they are written. Never: sends, or reads a clock. Bodies are
written once and kept: a message costs a microsecond, so that one core can make many more of them than another
one takes.
"""

from __future__ import annotations

from functools import cache
from itertools import cycle
from typing import Final, final

import msgspec
import numpy as np

from gpuscalp.schema import E8, Instrument

VENUE: Final = "binance_usdm"
# A symbol's streams, in this order; the number of a stream is 4 · symbol + kind.
KINDS: Final = ("bookTicker", "aggTrade", "depth@100ms", "markPrice@1s")
# The mix of USD-M recordings.
_SHARES: Final = (0.70, 0.18, 0.11, 0.01)
# A stream that pauses for five seconds passes for silent: at a small rate marks are more than their share.
_PAUSE_MAX_S: Final = 3.0
# The price in ticks of 0.1 moves within these places from the base; a tick is a third of a basis point.
_PLACES: Final = 64
_BASE: Final = 30_000
_REACH: Final = 3  # how far quotes go away from the book until its next update
_VARIANTS: Final = 8  # of the quantities
_DRAWN: Final = 1 << 16
_FIRST_ID: Final = 10**12
_DEEP: Final = 1_000  # levels of the largest snapshot


@final
class Flow:
    """S symbols.

    Parameters
    ----------
    symbols : S
    rate : messages a second that will be asked for
    seed : of all that is drawn

    Attributes
    ----------
    names : of the symbols
    """

    def __init__(self, symbols: int, rate: int, seed: int = 7) -> None:
        self.names = tuple(f"S{index:03d}USDT" for index in range(symbols))
        rng = np.random.default_rng(seed)
        marks = max(_SHARES[3], symbols / (_PAUSE_MAX_S * rate))
        shares = np.array([*(share * (1 - marks) / (1 - _SHARES[3]) for share in _SHARES[:3]), marks])
        self._drawn = list(
            zip(
                rng.choice(len(KINDS), _DRAWN, p=shares / shares.sum()).tolist(),
                rng.choice([-1, 0, 1], _DRAWN, p=[0.15, 0.7, 0.15]).tolist(),
                rng.integers(0, _VARIANTS, _DRAWN).tolist(),
                strict=True,
            )
        )
        self._next = 0
        # In each stream the symbols take turns, each kind in its own order: none is silent for long.
        self._turns = [cycle(rng.permutation(symbols).tolist()) for _ in KINDS]
        self._place = rng.integers(8, _PLACES - 8, symbols).tolist()
        self._booked = list(self._place)  # where the last update has left the book
        self._variant = [bytearray(_PLACES + 2 * _REACH + 2) for _ in range(symbols)]
        self._ids = [[_FIRST_ID] * symbols for _ in KINDS]
        self._templates = [[_template(kind, name) for name in self.names] for kind in range(len(KINDS))]

    def streams(self) -> dict[str, int]:
        """Return the number of each stream by its name."""
        return {
            f"{name.lower()}@{kind}": len(KINDS) * index + place
            for index, name in enumerate(self.names)
            for place, kind in enumerate(KINDS)
        }

    def draw(self, count: int, now_ms: int) -> list[tuple[int, bytes]]:
        """Return the next messages, dated now, each with the number of its stream."""
        start = self._next
        self._next = (start + count) % _DRAWN
        drawn = self._drawn[start : start + count]
        while len(drawn) < count:
            drawn += self._drawn[: count - len(drawn)]
        made = []
        for kind, step, variant in drawn:
            symbol = next(self._turns[kind])
            made.append((len(KINDS) * symbol + kind, self._message(kind, symbol, step, variant, now_ms)))
        return made

    def _message(self, kind: int, symbol: int, step: int, variant: int, now_ms: int) -> bytes:
        template, ids = self._templates[kind][symbol], self._ids[kind]
        if kind == 3:
            # Two marks of a symbol never have one time: the second would count as a copy.
            ids[symbol] = max(ids[symbol] + 1, now_ms)
            return template % (
                ids[symbol],
                _mark(self._place[symbol]),
                now_ms // 28_800_000 * 28_800_000 + 28_800_000,
            )
        ident = ids[symbol] = ids[symbol] + 1
        if kind == 0:
            place = self._place[symbol] + step
            if abs(place - self._booked[symbol]) <= _REACH and 0 <= place < _PLACES:
                self._place[symbol] = place
            return template % (ident, _quote(self._place[symbol], variant), now_ms, now_ms)
        if kind == 1:
            return template % (now_ms, ident, _trade(self._place[symbol], variant), ident, ident, now_ms)
        place = self._booked[symbol] = self._place[symbol]
        self._variant[symbol][place + 1 : place + 1 + 2 * _REACH] = bytes((variant,)) * (2 * _REACH)
        return template % (now_ms, now_ms, ident, ident, ident - 1, _diff(place, variant))

    def snapshot(self, symbol: int, limit: int, now_ms: int) -> bytes:
        """Return the body of the reply to ``/fapi/v1/depth``: the book after the last update."""
        place, variants = self._booked[symbol], self._variant[symbol]

        def level(at: int) -> tuple[str, str]:
            # Byte k of the variants is the level k - _REACH.
            inside = 0 <= at + _REACH < len(variants)
            return _price(at), _qty(at, variants[at + _REACH] if inside else 0)

        return msgspec.json.encode(
            {
                "lastUpdateId": self._ids[2][symbol],
                "E": now_ms,
                "T": now_ms,
                "bids": [level(place - depth) for depth in range(min(limit, _DEEP))],
                "asks": [level(place + 1 + depth) for depth in range(min(limit, _DEEP))],
            }
        )

    def exchange_info(self) -> bytes:
        """Return the body of the reply to ``/fapi/v1/exchangeInfo``, as far as it is read."""
        filters = [
            {"filterType": "PRICE_FILTER", "tickSize": "0.1"},
            {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001"},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ]
        return msgspec.json.encode({"symbols": [{"symbol": name, "filters": filters} for name in self.names]})


def instruments(names: tuple[str, ...]) -> list[Instrument]:
    """Return what :meth:`Flow.exchange_info` says."""
    return [
        Instrument(name, VENUE, E8 // 10, E8 // 1_000, E8 // 1_000, 5 * E8, "exchange_info") for name in names
    ]


def _template(kind: int, name: str) -> bytes:
    head = f'{{"stream":"{name.lower()}@{KINDS[kind]}","data":{{"e":'
    body = (
        f'"bookTicker","u":%d,"s":"{name}",%b,"T":%d,"E":%d}}}}',
        f'"aggTrade","E":%d,"a":%d,"s":"{name}",%b,"f":%d,"l":%d,"T":%d}}}}',
        f'"depthUpdate","E":%d,"T":%d,"s":"{name}","U":%d,"u":%d,"pu":%d,%b}}}}',
        f'"markPriceUpdate","E":%d,"s":"{name}",%b,"T":%d}}}}',
    )[kind]
    return (head + body).encode()


def _price(place: int) -> str:
    return f"{(_BASE + place) / 10:.1f}"


def _qty(place: int, variant: int) -> str:
    """Return the quantity at a level: what it was last set to decides, and nothing else."""
    return f"{1 + (place * 37 + variant * 1_013) % 9_000 / 1_000:.3f}"


@cache
def _quote(place: int, variant: int) -> bytes:
    bid_qty, ask_qty = _qty(place, variant), _qty(place + 1, variant)
    return f'"b":"{_price(place)}","B":"{bid_qty}","a":"{_price(place + 1)}","A":"{ask_qty}"'.encode()


@cache
def _trade(place: int, variant: int) -> bytes:
    sold = variant % 2
    price, qty = _price(place + 1 - sold), f"{(1 + variant) * 0.013:.3f}"
    return f'"p":"{price}","q":"{qty}","m":{"true" if sold else "false"}'.encode()


@cache
def _mark(place: int) -> bytes:
    return f'"p":"{_price(place)}","i":"{_price(place)}","P":"{_price(place)}","r":"0.00010000"'.encode()


@cache
def _diff(place: int, variant: int) -> bytes:
    """Set the best levels of both sides, and remove what the way from the last place may have left: 12 in
    all."""
    above, below = range(place + 1, place + 1 + _REACH), range(place, place - _REACH, -1)
    bids = [(at, "0.000") for at in above] + [(at, _qty(at, variant)) for at in below]
    asks = [(at, "0.000") for at in below] + [(at, _qty(at, variant)) for at in above]
    b, a = (",".join(f'["{_price(at)}","{qty}"]' for at, qty in side) for side in (bids, asks))
    return f'"b":[{b}],"a":[{a}]'.encode()
