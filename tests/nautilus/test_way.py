# what is imported below needs what is looked for first
"""What a session over NautilusTrader is begun with: the account's balance, or a refusal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import asdict

from gpuscalp.nautilus.installed import LIVE
from tests.tools import no_nautilus

if reason := no_nautilus(LIVE):
    pytest.skip(reason, allow_module_level=True)

from gpuscalp.config import FeedConfig, LiveConfig, NautilusConfig
from gpuscalp.errors import ConfigError, FeedError
from gpuscalp.nautilus import way
from gpuscalp.nautilus.keys import Keys
from gpuscalp.nautilus.way import NautilusWay
from gpuscalp.schema import E8

KEYS = Keys("key", "secret")
CONFIG = LiveConfig(
    broker="nautilus",
    nautilus=NautilusConfig(where="local", rest_url="http://127.0.0.1:9"),
    feed=FeedConfig(rest_url="https://another"),
)


class Account:
    """An account with a balance, which answers or refuses."""

    def __init__(self, wallet_e8: int, refusal: Exception | None = None) -> None:
        self.wallet, self.refusal, self.checked = wallet_e8, refusal, False

    async def check(self) -> None:
        self.checked = True
        if self.refusal is not None:
            raise self.refusal

    async def wallet_e8(self) -> int:
        assert self.checked, "what cannot be traded is refused first"
        return self.wallet


def created(account: Account, monkeypatch: pytest.MonkeyPatch) -> LiveConfig:
    def open_account(*asked: Any) -> Account:
        assert asked == (CONFIG.nautilus, KEYS, ("BTCUSDT",))
        return account

    monkeypatch.setattr(way, "open_account", open_account)
    return NautilusWay(KEYS).created(CONFIG, ("BTCUSDT",))


def changed(config: LiveConfig) -> dict[str, Any]:
    """Return the sections that are not those of CONFIG."""
    before = asdict(CONFIG)
    return {name: each for name, each in asdict(config).items() if each != before[name]}


def test_a_session_begins_with_the_accounts_balance(monkeypatch: pytest.MonkeyPatch) -> None:
    (section,) = changed(created(Account(1_234 * E8 + E8 // 4), monkeypatch)).items()
    assert (section[0], section[1].start_usdt) == ("account", 1_234.25)


@pytest.mark.parametrize("wallet_e8", [0, -E8])
def test_an_empty_account_is_refused(wallet_e8: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="empty"):
        created(Account(wallet_e8), monkeypatch)
    created(Account(1), monkeypatch)


def test_an_account_that_cannot_be_traded_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = ConfigError("the account is in hedge mode")
    with pytest.raises(ConfigError) as told:
        created(Account(E8, refusal), monkeypatch)
    assert told.value is refusal


def test_an_exchange_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FeedError, match="cannot be looked at") as told:
        created(Account(E8, TimeoutError("no answer")), monkeypatch)
    assert (told.value.where, told.value.value) == ("http://127.0.0.1:9", "TimeoutError: no answer")


def test_a_session_asks_for_the_time_where_its_orders_go() -> None:
    (section,) = changed(NautilusWay(KEYS).running(CONFIG)).items()
    assert section == ("feed", FeedConfig(rest_url="http://127.0.0.1:9"))


def test_a_session_looks_at_its_own_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(way, "open_account", lambda *asked: made.append(asked) or "account")
    monkeypatch.setattr(way, "NautilusSource", lambda *parts: parts)
    instruments = [SimpleNamespace(symbol=each) for each in ("BTCUSDT", "ETHUSDT")]
    session: Any = SimpleNamespace(about=SimpleNamespace(instruments=instruments))
    parts: Any = NautilusWay(KEYS).source(session, CONFIG, "rest", "clock")  # type: ignore[arg-type]
    assert parts == (session, CONFIG, KEYS, "account", "rest", "clock")
    assert made == [(CONFIG.nautilus, KEYS, ["BTCUSDT", "ETHUSDT"])]
