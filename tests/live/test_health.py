"""Which symbols are silent, by which of their streams come over no connection; what the log says of it."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from gpuscalp.config import FeedConfig
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.live.directory import create
from gpuscalp.live.health import Health
from gpuscalp.live.records import HealthRecord
from gpuscalp.live.session import Session
from gpuscalp.schema import NS_PER_S
from tests.live.sessions import eager_config, instruments

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


def test_health_is_told_once_in_words_and_no_silence_before_first_messages_are_due(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every start had a warning, the fields of a record, of streams that had just been opened."""
    caplog.set_level(logging.INFO, "gpuscalp.session")
    path, began_ns = tmp_path / "session", 10**18
    create(path, eager_config(), bundle, instruments(), now_ns=began_ns)
    session = Session(path, now_ns=began_ns, clock_of=lambda work: lambda: work.now_ns)
    silent = HealthRecord(3.0, drifted=False, silent=(1,))
    for after_s, health in (
        (1, silent),
        (14, structs.replace(silent, clock_error_ms=9.0)),
        (15, structs.replace(silent, clock_error_ms=9.0)),
        (16, structs.replace(silent, device=("gpu0:memory",), off_tick=(0, 1), drifted=True)),
        (17, structs.replace(silent, silent=())),
        (18, structs.replace(silent, silent=(), clock_error_ms=9.0)),
    ):
        session.on_health(health, began_ns + after_s * NS_PER_S)
    session.close(now_ns=began_ns)
    told = [(each.levelname, each.message) for each in caplog.records if each.message.startswith("health")]
    one, two = (each.symbol for each in session.about.instruments[:2])
    all_of_it = f"gpu0:memory; silent: {two}; prices off the tick size: {one}, {two}; the clock is not to be"
    assert told == [
        ("WARNING", f"health: silent: {two}"),
        ("WARNING", f"health: {all_of_it} trusted"),
        ("INFO", "health: well again"),
    ]
