"""Which symbols are silent, by which of their streams come over no connection."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.live.health import Health

SYMBOLS = ("BTCUSDT", "ETHUSDT", "XRPUSDT")
OWN = tuple(f"{symbol.lower()}@depth20@100ms" for symbol in SYMBOLS)
EVERY = "!markPrice@arr@1s"
RARE = ("!forceOrder@arr", "ethusdt@forceOrder")
STREAMS = (*OWN, EVERY, *RARE)


def _client(*connections: tuple[str, ...]) -> Any:
    """Return what a client shows of connections: the streams that each brings."""
    return SimpleNamespace(
        delivering_streams=lambda: frozenset(name for each in connections for name in each)
    )


def _without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in STREAMS if name not in names)


@pytest.mark.parametrize(
    ("connections", "silent"),
    [
        ([STREAMS], ()),
        ([_without(OWN[1])], (1,)),
        ([_without(EVERY)], (0, 1, 2)),
        ([_without(EVERY, OWN[0]), _without(OWN[0])], (0,)),
        ([_without(EVERY), _without(OWN[2])], ()),
        ([(), _without(EVERY)], (0, 1, 2)),
        ([_without(*RARE)], ()),
        ([()], (0, 1, 2)),
        ([], (0, 1, 2)),
    ],
)
def test_symbol_is_silent_while_a_stream_of_its_own_or_of_all_comes_from_nowhere(
    connections: list[tuple[str, ...]], silent: tuple[int, ...]
) -> None:
    health = Health(SYMBOLS, STREAMS)
    assert health.judge(_client(*connections), ClockOffset(FeedConfig())).silent == silent


def test_liquidations_alone_silence_nobody_while_their_connection_is_away() -> None:
    health = Health(SYMBOLS, RARE)
    assert health.judge(_client(), ClockOffset(FeedConfig())).silent == ()
