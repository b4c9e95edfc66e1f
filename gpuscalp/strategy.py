"""Signals to intents: when to enter, when to let go. Deterministic, no clock, no state of its own.

Owns: the entry and exit rules. Never: sizes an order to filters, checks a limit (that is the risk gate's), or
remembers anything: positions and open orders come in as :class:`Holdings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import numpy.typing as npt

from gpuscalp.config import CostConfig, StrategyConfig
from gpuscalp.ops import hurdles
from gpuscalp.orders import BUY, SELL, Intent, IntentKind, MarketRow, SignalRow
from gpuscalp.schema import F64, I64, NS_PER_MS

# Why a symbol brought no intent at a frame, in the order in which the reasons are tried, which is that of
# gpuscalp.ops.hurdles. The first one that holds is counted; the last is what remains when all are cleared.
SKIP_REASONS: Final = (
    "no_quote",
    "order_open",
    "holding",
    "no_signal",
    "low_confidence",
    "low_agreement",
    "low_edge",
    "intent",
)
# Reasons of intents that act upon a prediction. The others are not held up by doubts about model or device.
PREDICTED_REASONS: Final = frozenset({"edge", "opposite_signal"})

_NO_RESTS: Final = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What is held and what is on its way, symbol by symbol.

    Attributes
    ----------
    side : int64[S]       sign of the position
    waiting : bool[S]     an order is open; the symbol is left alone until it is done
    decided_ns : int64[S] when the position's entry was decided; 0 when flat
    rests_e8 : int64[S] or None  signed rest of an entry that may still be got, 0 = none; None = of no symbol
    """

    side: I64
    waiting: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    decided_ns: I64
    rests_e8: I64 | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Intents of one frame, in the order of symbols, and int64[len(SKIP_REASONS)] counts of symbols."""

    intents: tuple[Intent, ...]
    skips: I64


@final
class Strategy:
    """Enter on an edge that pays for its round trip; leave after the horizon or on an opposite signal.

    Parameters
    ----------
    config : thresholds and order size
    cost : fees that the edge has to earn
    horizon_ms : the model's label horizon; the holding time unless ``config.hold_ms`` says otherwise

    Attributes
    ----------
    hold_ns : the holding time

    Notes
    -----
    The hurdle is a whole round trip as a taker: the fee twice, and half the current spread twice (once to get
    in, once to get out; the spread at the exit is not known and is taken to be today's). The edge is a
    mid-to-mid return, therefore the two halves are counted in full. An opposite signal closes the position as
    soon as its confidence and agreement clear the thresholds; it need not pay for a new round trip, because
    the exit has to be paid anyway. There is no reversal in one order: flat first, then a new entry.
    """

    def __init__(self, config: StrategyConfig, cost: CostConfig, *, horizon_ms: int) -> None:
        self._config = config
        least = (config.min_confidence, config.min_agreement, config.min_edge_bps)
        self._limits = np.array([*least, 2.0 * cost.taker_fee_bps])
        self.hold_ns = (config.hold_ms if config.hold_ms is not None else horizon_ms) * NS_PER_MS

    def may_act(self, signals: SignalRow) -> npt.NDArray[np.bool_]:
        """Return bool[S]: the symbols for which an intent could follow from the signal, whatever is held.

        It is no decision: who doubts the signals checks these rows before they are acted upon.
        """
        config = self._config
        known = np.isfinite(signals.edge_bps) & (signals.edge_bps != 0)
        confident = _confidence(signals) >= config.min_confidence
        return np.asarray(known & confident & (signals.agreement >= config.min_agreement))

    def decide(self, market: MarketRow, signals: SignalRow, holdings: Holdings) -> Decision:
        """Return what is wanted at one frame.

        Parameters
        ----------
        market, signals, holdings : S symbols each; none is modified
        """
        edge, count = signals.edge_bps, len(signals.edge_bps)
        confidence, cost_bps, found = np.empty(count), np.empty(count), np.empty(count, np.int64)
        some = hurdles.try_hurdles(
            market.end_ns,
            market.bid_px,
            market.ask_px,
            signals.probability,
            signals.agreement,
            edge,
            holdings.side,
            holdings.waiting,
            holdings.decided_ns,
            _NO_RESTS if holdings.rests_e8 is None else holdings.rests_e8,
            self.hold_ns,
            self._limits,
            confidence,
            cost_bps,
            found,
        )
        intents: list[Intent] = []
        if some:
            for index in np.flatnonzero(found >= hurdles.CLEARED):
                if found[index] == hurdles.CLEARED:
                    wanted = BUY if edge[index] > 0 else SELL
                    kind, reason, notional = IntentKind.ENTER, "edge", self._config.order_usdt
                else:
                    wanted, kind, notional = -int(holdings.side[index]), IntentKind.EXIT, None
                    reason = "hold_elapsed" if found[index] == hurdles.ELAPSED else "opposite_signal"
                intents.append(
                    Intent(
                        symbol_index=int(index),
                        side=wanted,
                        kind=kind,
                        notional_usdt=notional,
                        reason=reason,
                        confidence=float(confidence[index]),
                        agreement=float(signals.agreement[index]),
                        edge_bps=float(edge[index]),
                        cost_bps=float(cost_bps[index]),
                    )
                )
        codes = np.minimum(found, hurdles.CLEARED) if some else found
        skips = np.bincount(codes, minlength=len(SKIP_REASONS)).astype(np.int64)
        return Decision(tuple(intents), skips)


def _confidence(signals: SignalRow) -> F64:
    """Return float64[S]: the probability of the side that the edge is on."""
    up, down = signals.probability[:, hurdles.UP], signals.probability[:, hurdles.DOWN]
    return np.asarray(np.where(signals.edge_bps > 0, up, down))
