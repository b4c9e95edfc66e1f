"""NautilusTrader's Binance adapter against the exchange, from its own start-up to a fill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import DEMO_ACCOUNT, ServeSpec
from gpuscalp.nautilus.installed import LIVE
from tests.exchange.scripted import ScriptedSource
from tests.tools import no_nautilus

pytestmark = pytest.mark.skipif(bool(no_nautilus(LIVE)), reason=no_nautilus(LIVE))


def test_it_starts_listens_trades_and_hears_its_fill() -> None:
    # Its adapter opens the old paths for everything but user data.
    with Exchange(ScriptedSource(), ServeSpec(loop=True, lenient=True)) as exchange:
        script = Path(__file__).with_name("nautilus_session.py")
        urls = (exchange.urls["rest"], exchange.urls["stream"])
        words = [sys.executable, str(script), *urls, DEMO_ACCOUNT.api_key, DEMO_ACCOUNT.secret]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert lines, done.stdout[-3_000:] + done.stderr[-3_000:]
    seen = json.loads(lines[-1].removeprefix("RESULT "))
    assert seen["quotes"] >= 20
    assert seen["trades"] > 0
    assert seen["deltas"] > 0
    assert "refused" not in seen, seen
    assert seen["events"] == [
        *("OrderInitialized", "OrderSubmitted", "OrderAccepted", "OrderPendingUpdate", "OrderUpdated"),
        *("OrderPendingCancel", "OrderCanceled", "OrderInitialized", "OrderSubmitted", "OrderAccepted"),
        "OrderFilled",
    ]
    assert seen["amended_price"] == "59100.0"
    assert seen["fill"]["qty"] == "0.010"
