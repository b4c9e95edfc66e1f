# what is imported below needs what is looked for first
"""The start of a session, against an exchange that does not answer yet, through NautilusTrader's adapter."""

from __future__ import annotations

import asyncio
import time

import pytest

from gpuscalp.nautilus.installed import LIVE
from tests.tools import no_nautilus

if reason := no_nautilus(LIVE):
    pytest.skip(reason, allow_module_level=True)

from gpuscalp.config import NautilusConfig
from gpuscalp.errors import FeedError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from gpuscalp.exchange.server import DEMO_ACCOUNT, ServeSpec
from gpuscalp.execution.remote import RemoteBroker
from gpuscalp.feeds.rest import WeightBudget
from gpuscalp.nautilus import looks
from gpuscalp.nautilus.keys import Keys
from gpuscalp.nautilus.looks import Looks
from gpuscalp.nautilus.node import open_account
from gpuscalp.schema import E8
from tests.exchange.scripted import ScriptedSource, talking


async def test_a_check_outlives_what_the_adapter_raises_of_an_exchange(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its errors are of three kinds, and none of ours."""
    monkeypatch.setattr(looks, "_BREATH_S", 0.01)

    def looks_of(rest_url: str, secret: str) -> Looks:
        view = open_account(
            NautilusConfig(where="local", rest_url=rest_url), Keys(DEMO_ACCOUNT.api_key, secret), ["BTCUSDT"]
        )
        return Looks(
            view,
            RemoteBroker(1_000 * E8, 1),
            session_id="s",
            place=NautilusConfig(),
            symbols=("BTCUSDT",),
            now=time.time_ns,
            hear=lambda _: None,
            budget=WeightBudget(2_400, 200),
        )

    refusals = tuple(Fault(kind, path="*positionSide*", count=1) for kind in ("maintenance", "timestamp"))
    with Exchange(ScriptedSource(), ServeSpec(loop=True, faults=refusals)) as exchange:
        async with talking(exchange):
            away = asyncio.create_task(looks_of("http://127.0.0.1:9", "any").check())
            one = looks_of(exchange.urls["rest"], DEMO_ACCOUNT.secret)
            await asyncio.wait_for(one.check(), 30)
            assert one.counts.failed == 2
            with pytest.raises(FeedError, match="refuses the keys.*-1022"):
                await looks_of(exchange.urls["rest"], "other").check()
            assert not away.done()
            away.cancel()
