"""Which symbols are silent, by the time since each of their streams has brought something."""

from __future__ import annotations

import pytest

from gpuscalp.config import FeedConfig, LiveConfig, NautilusConfig
from gpuscalp.nautilus.streams import Streams
from gpuscalp.schema import NS_PER_S, TickKind

CONFIG = LiveConfig(nautilus=NautilusConfig(silent_ms=5_000), feed=FeedConfig(stale_max_ms=60_000))
KINDS = (TickKind.TRADE, TickKind.QUOTE, TickKind.BOOK, TickKind.MARK)


def lively(streams: Streams, from_s: int, to_s: int, *, but: tuple[int, TickKind] | None = None) -> None:
    """Let every stream of two symbols bring something each second, but one of them."""
    for second in range(from_s, to_s + 1):
        for symbol in (0, 1):
            for kind in KINDS:
                if (symbol, kind) != but:
                    streams.on_event(symbol, kind, second * NS_PER_S)


@pytest.mark.parametrize("kind", KINDS)
def test_a_symbol_is_silent_until_each_stream_has_brought_something(kind: TickKind) -> None:
    streams = Streams(("AUSDT", "BUSDT"), CONFIG, 0)
    assert streams.silent(1) == (0, 1)
    lively(streams, 0, 3, but=(1, kind))
    assert streams.silent(3 * NS_PER_S) == (1,)
    streams.on_event(1, kind, 3 * NS_PER_S)
    assert streams.silent(3 * NS_PER_S) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_no_stream_answers_for_another(kind: TickKind) -> None:
    """Quotes once stood for marks and the other way round, and nobody watched trades: positions were opened
    on a market of which the half was missing. Of what came each second for two minutes 5 s are a silence."""
    streams = Streams(("AUSDT", "BUSDT"), CONFIG, 0)
    lively(streams, 0, 120)
    lively(streams, 121, 130, but=(0, kind))
    assert streams.silent(125 * NS_PER_S - 1) == ()
    assert streams.silent(125 * NS_PER_S + 1) == (0,)
    streams.on_event(0, kind, 131 * NS_PER_S)
    assert streams.silent(131 * NS_PER_S) == ()


def test_trades_may_pause_as_they_use_to_quotes_may_not() -> None:
    """In a market where little happens: trades 12 s apart may pause for 48 s, and no stream for a minute."""
    streams = Streams(("AUSDT",), CONFIG, 0)
    for second in range(241):
        for kind in KINDS if second % 12 == 0 else KINDS[1:]:
            streams.on_event(0, kind, second * NS_PER_S)
    others = KINDS[1:]

    def silent_at(second: int) -> bool:
        for kind in others:
            streams.on_event(0, kind, second * NS_PER_S)
        return bool(streams.silent(second * NS_PER_S))

    assert [silent_at(second) for second in (250, 280, 287, 289, 305)] == [False, False, False, True, True]


@pytest.mark.parametrize("kind", KINDS)
def test_quotes_and_marks_may_not_pause_longer_than_is_configured_whatever_is_usual(kind: TickKind) -> None:
    """By what is usual alone a price of 48 s ago would have been traded on."""
    streams = Streams(("AUSDT",), CONFIG, 0)
    for second in range(241):
        for each in KINDS:
            if each is not kind or second % 12 == 0:
                streams.on_event(0, each, second * NS_PER_S)
    for each in set(KINDS) - {kind}:
        streams.on_event(0, each, 245 * NS_PER_S)
    assert streams.silent(245 * NS_PER_S) == ()
    prompt = kind in (TickKind.QUOTE, TickKind.MARK)
    assert streams.silent(245 * NS_PER_S + 1) == ((0,) if prompt else ())


def test_ages_are_those_of_what_has_come() -> None:
    streams = Streams(("AUSDT", "BUSDT"), CONFIG, 0)
    streams.on_event(1, TickKind.TRADE, NS_PER_S)
    streams.on_event(1, TickKind.BOOK, 2 * NS_PER_S)
    assert streams.ages_s(3 * NS_PER_S) == {"busdt@aggTrade": 2.0, "busdt@depth20@100ms": 1.0}
