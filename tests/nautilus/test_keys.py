"""Every refusal before a connection is opened, and where keys may come from."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from gpuscalp.config import LiveConfig, NautilusConfig
from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.nautilus.keys import VARIABLES, Keys, permit, rest_url

LOCAL = {"rest_url": "http://127.0.0.1:1", "stream_url": "ws://localhost:1", "ws_api_url": "ws://[::1]:1"}
ENV = {
    "BINANCE_API_KEY": "k",
    "BINANCE_API_SECRET": "s",
    "GPUSCALP_LOCAL_API_KEY": "lk",
    "GPUSCALP_LOCAL_API_SECRET": "ls",
}


def config(**place: Any) -> LiveConfig:
    return LiveConfig(broker="nautilus", nautilus=NautilusConfig(**place))


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "1.231.0")


def test_keys_are_those_of_the_place_and_do_not_show() -> None:
    keys = permit(config(where="local", **LOCAL), ENV, confirmed=True)
    assert (keys.api_key, keys.secret) == ("lk", "ls")
    assert permit(config(where="live"), ENV, confirmed=True) == Keys("k", "s")
    assert "ls" not in repr(keys)
    assert len({name for names in VARIABLES.values() for name in names}) == 6


def test_calls_go_where_the_keys_are_of() -> None:
    assert rest_url(NautilusConfig(where="live")) == "https://fapi.binance.com"
    assert rest_url(NautilusConfig(where="testnet")) == "https://demo-fapi.binance.com"
    assert rest_url(NautilusConfig(where="local", **LOCAL)) == LOCAL["rest_url"]


@pytest.mark.parametrize("where", ["live", "testnet", "local"])
def test_nothing_is_sent_without_a_confirmation(where: str) -> None:
    with pytest.raises(UsageError, match="--confirm-live"):
        permit(config(where=where, **(LOCAL if where == "local" else {})), ENV, confirmed=False)


@pytest.mark.parametrize("found", [None, "1.221.0", "1.230.9", "odd"])
def test_older_nautilus_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, found: str | None
) -> None:
    def version(_: str) -> str:
        if found is None:
            raise metadata.PackageNotFoundError
        return found

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(ConfigError, match=r"1\.231.*April 2026") as refusal:
        permit(config(where="live"), ENV, confirmed=True)
    assert found is None or found in str(refusal.value)
    assert refusal.value.exit_code == 4


@pytest.mark.parametrize(
    ("place", "what"),
    [
        ({"where": "testnet"}, "no API key"),
        ({"where": "live", "rest_url": "http://127.0.0.1:1"}, "URLs of its own"),
        ({"where": "local"}, "on this machine"),
        ({"where": "local", **LOCAL, "stream_url": "wss://fstream.binance.com"}, "on this machine"),
        ({"where": "local", **LOCAL, "rest_url": "http://127.0.0.1.evil.example"}, "on this machine"),
    ],
)
def test_what_is_not_where_it_has_to_be_is_refused(place: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as refusal:
        permit(config(**place), ENV, confirmed=True)
    assert "lk" not in str(refusal.value)
