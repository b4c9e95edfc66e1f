# what is imported below needs what is looked for first
"""What a session in NautilusTrader holds against its market, without a node."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gpuscalp.nautilus.installed import LIVE
from tests.tools import no_nautilus

if reason := no_nautilus(LIVE):
    pytest.skip(reason, allow_module_level=True)

from gpuscalp.config import LiveConfig
from gpuscalp.live.off_tick import OffTick
from gpuscalp.nautilus import live
from gpuscalp.nautilus.streams import Streams
from gpuscalp.schema import TickKind
from tests.live.sessions import instruments
from tests.nautilus.test_source import Scene


def test_prices_off_the_tick_are_part_of_its_health() -> None:
    counts = [(0, 0), (0, 0), (0, 3)]
    scene = Scene()
    scene.source._off_tick = OffTick(instruments(), counts[0])
    scene.source._clock = SimpleNamespace(uncertainty_ns=None, has_drifted=False)  # type: ignore[assignment]
    scene.source._looks = SimpleNamespace(objections=())  # type: ignore[assignment]
    scene.source._link = SimpleNamespace(  # type: ignore[assignment]
        rows=SimpleNamespace(off_ticks=lambda: counts.pop(0))
    )
    scene.source._streams = SimpleNamespace(silent=lambda _: ())  # type: ignore[assignment]
    assert [scene.source.health(()).off_tick for _ in range(3)] == [(), (), (1,)]


def test_health_says_which_symbols_streams_are_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = 0
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic_ns=lambda: now_ns))
    source = Scene().source
    source._streams, source._open = Streams(("BTCUSDT",), LiveConfig(), 0), False
    source._link.rows = SimpleNamespace(take=lambda: None, off_ticks=lambda: (0,))  # type: ignore[assignment]
    source._off_tick = OffTick(instruments()[:1], (0,))
    source._clock = SimpleNamespace(uncertainty_ns=None, has_drifted=False)  # type: ignore[assignment]
    source._looks.objections = ()  # type: ignore[misc]
    for kind in (TickKind.TRADE, TickKind.QUOTE, TickKind.BOOK):
        source.on_rows(0, kind)
    assert source.health(()).silent == (0,), "no mark has come yet"
    source.on_rows(0, TickKind.MARK)
    assert source.health(()).silent == ()
    now_ns = 6_000_000_000
    source.on_rows(0, TickKind.QUOTE)
    assert source.health(()).silent == (0,), "quotes do not stand for marks"
    ages_s = {"aggTrade": 6.0, "bookTicker": 0.0, "depth20@100ms": 6.0, "markPrice@1s": 6.0}
    assert source.stream_ages_s() == {f"btcusdt@{name}": age_s for name, age_s in ages_s.items()}
