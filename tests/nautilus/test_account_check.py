"""Which accounts are refused, by what the exchange says of them."""

from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("nautilus_trader", reason="NautilusTrader is not installed (extra nautilus)")

from nautilus_trader.core.nautilus_pyo3 import HttpMethod

from gpuscalp.config import NautilusConfig
from gpuscalp.errors import ConfigError
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import DEMO_ACCOUNT, ServeSpec
from gpuscalp.nautilus.account import AccountView
from gpuscalp.nautilus.installed import LIVE
from gpuscalp.nautilus.keys import Keys
from gpuscalp.schema import E8
from tests.exchange.scripted import ScriptedSource, talking
from tests.tools import no_nautilus


def checked(
    assets: tuple[str, ...],
    *,
    hedge: bool = False,
    multi: bool = False,
    burn: bool = False,
    isolated: tuple[str, ...] = ("XRPUSDT",),
) -> AccountView:
    """Return a view of an account that was checked."""

    async def mode() -> Any:
        return SimpleNamespace(dualSidePosition=hedge)

    async def info() -> Any:
        return SimpleNamespace(assets=[SimpleNamespace(asset=each, walletBalance="5000") for each in assets])

    async def sign(method: Any, path: str, payload: dict[str, str]) -> bytes:
        assert (method, list(payload)) == (HttpMethod.GET, ["timestamp"])
        assert abs(int(payload["timestamp"]) / 1_000 - time.time()) < 60
        told = {
            "/fapi/v1/multiAssetsMargin": {"multiAssetsMargin": multi},
            "/fapi/v1/feeBurn": {"feeBurn": burn},
        }
        return json.dumps(told[path]).encode()

    async def settings() -> list[Any]:
        kinds = {name: "ISOLATED" if name in isolated else "CROSSED" for name in ("BTCUSDT", "XRPUSDT")}
        return [SimpleNamespace(symbol=name, marginType=kind, leverage=20) for name, kind in kinds.items()]

    api = SimpleNamespace(
        query_futures_hedge_mode=mode,
        query_futures_account_info=info,
        query_futures_symbol_config=settings,
        client=SimpleNamespace(sign_request=sign),
    )
    view = AccountView(api, ["BTCUSDT"])
    asyncio.run(view.check())
    return view


def test_an_account_that_settles_in_the_quote_is_taken() -> None:
    assert asyncio.run(checked(("USDT", "BNB", "USDC")).wallet_e8()) == 5_000 * E8


@pytest.mark.parametrize(
    ("assets", "modes", "words"),
    [
        (("USDT", "BNFCR"), {}, "credits trading mode.*BNFCR.*USDT"),
        (("USDT", "BNFCR"), {"multi": True}, "credits trading mode"),
        (("USDT",), {"multi": True}, "multi-assets mode"),
        (("USDT",), {"hedge": True}, "hedge mode"),
        (("USDT", "BNB"), {"burn": True}, "fees in BNB.*balance in USDT.*switch it off"),
        (("USDT",), {"isolated": ("BTCUSDT",)}, "isolated margin.*BTCUSDT 20x.*cross margin"),
    ],
)
def test_an_account_whose_money_is_elsewhere_is_refused(
    assets: tuple[str, ...], modes: dict[str, Any], words: str
) -> None:
    """Fees and profits in credits, fees in BNB were none of the balance, so that no loss limit knew of them;
    other margin was liquidated unseen; at 125x an isolated position is, before most stops."""
    with pytest.raises(ConfigError, match=words):
        checked(assets, **modes)


@pytest.mark.skipif(bool(no_nautilus(LIVE)), reason=no_nautilus(LIVE))
async def test_an_account_is_checked_through_the_adapter() -> None:
    from gpuscalp.nautilus.node import open_account

    with Exchange(ScriptedSource(), ServeSpec(loop=True)) as exchange:
        async with talking(exchange) as client:
            place = NautilusConfig(where="local", rest_url=exchange.urls["rest"])
            view = open_account(place, Keys(DEMO_ACCOUNT.api_key, DEMO_ACCOUNT.secret), ["BTCUSDT"])
            await view.check()
            setting = {"symbol": "BTCUSDT", "marginType": "ISOLATED"}
            assert (await client.signed("POST", "/fapi/v1/marginType", **setting))[0] == 200
            with pytest.raises(ConfigError, match="isolated margin.*BTCUSDT"):
                await view.check()
