"""A session trades on one market from its beginning to its end, with a model of that market."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.config import FeedConfig, LiveConfig, NautilusConfig
from gpuscalp.doctor.diagnosis import examine
from gpuscalp.errors import ConfigError, FeatureMismatchError, NotRunningError
from gpuscalp.live.control import OWN_MARKET, SYNTHETIC_MARKET, Request, ask
from gpuscalp.live.directory import create, read_about
from gpuscalp.live.embedded import embedded_defaults
from gpuscalp.live.replay import run_replay
from gpuscalp.live.run import run_live
from gpuscalp.live.venue import check_market, check_model_market
from gpuscalp.synthetic import VENUE
from tests.live.sessions import eager_config, instruments, write_eager_bundle

# Nobody listens there: a start that is not refused before it connects fails as one that could not.
NOWHERE = FeedConfig(
    rest_url="http://127.0.0.1:9", public_url="ws://127.0.0.1:9", market_url="ws://127.0.0.1:9"
)


def begun(path: Path, bundle: Path, market: str, config: LiveConfig | None = None) -> Path:
    create(path, config or eager_config(NOWHERE), bundle, instruments(), now_ns=1, market=market)
    return path


@pytest.mark.parametrize("venue", ["binance_usdm", "synthetic"])
def test_session_of_an_embedded_exchange_never_reaches_the_venue(
    bundle: Path, tmp_path: Path, venue: str
) -> None:
    """Started without --embedded it opened the real exchange, and said that its market was synthetic."""
    session = begun(tmp_path / "session", bundle, "synthetic", eager_config(NOWHERE, venue=venue))
    assert json.loads((session / "session.json").read_text())["market"] == "synthetic"
    with pytest.raises(ConfigError, match="another market") as refused:
        run_live(session, None, device="cpu", seconds=0.1)
    assert refused.value.exit_code == 4
    assert refused.value.value == "the venue's, the session has synthetic"
    assert str(refused.value.fix).startswith("go on with --embedded")


def test_session_of_a_venue_is_not_gone_on_with_on_another_market(bundle: Path, tmp_path: Path) -> None:
    session = begun(tmp_path / "session", bundle, OWN_MARKET)
    with pytest.raises(ConfigError, match="another market") as refused:
        run_live(session, None, device="cpu", seconds=0.1, embedded=True)
    assert refused.value.exit_code == 4
    assert refused.value.value == "synthetic, the session has the venue's"
    assert str(refused.value.fix).startswith("leave out --embedded")


def test_a_replayed_market_is_no_synthetic_one(bundle: Path, tmp_path: Path) -> None:
    session = begun(tmp_path / "session", bundle, "replayed")
    check_market(session, "replayed")
    with pytest.raises(ConfigError, match="another market") as refused:
        check_market(session, "synthetic")
    assert "--recording" in str(refused.value.fix)


def test_session_without_the_word_is_its_venues(bundle: Path, tmp_path: Path) -> None:
    session = begun(tmp_path / "session", bundle, "replayed")
    assert read_about(session).market_name == "replayed"
    file = session / "session.json"
    told = json.loads(file.read_text())
    del told["market"]
    file.write_text(json.dumps(told))
    check_market(session, OWN_MARKET)
    assert read_about(session).market_name == "binance_usdm"


@pytest.mark.parametrize("known", [True, False])
def test_the_real_exchange_is_not_taken_for_the_synthetic_market(
    bundle: Path, tmp_path: Path, known: bool
) -> None:
    """The configuration of an embedded session, and no --embedded: Binance, under the name of the other."""
    path = tmp_path / "session"
    config = embedded_defaults()
    if known:
        begun(path, bundle, OWN_MARKET, config)
    with pytest.raises(ConfigError, match="synthetic market") as refused:
        run_live(path, config, model=bundle, device="cpu", seconds=0.1)
    assert "fapi.binance.com" in str(refused.value.value)
    assert path.exists() == known


def test_new_session_refuses_a_model_of_another_market(tmp_path: Path) -> None:
    """A model of the synthetic market traded on the venue: only the names of its symbols were looked at."""
    assert SYNTHETIC_MARKET == VENUE
    model = write_eager_bundle(tmp_path / "model", venue=VENUE)
    with pytest.raises(FeatureMismatchError, match="another market") as refused:
        run_live(tmp_path / "session", eager_config(NOWHERE), model=model, device="cpu", seconds=0.1)
    assert refused.value.exit_code == 8
    assert refused.value.value == "synthetic, the session has binance_usdm"
    assert not (tmp_path / "session").exists()


@pytest.mark.parametrize(("where", "allowed"), [("local", True), ("testnet", False), ("live", False)])
def test_orders_to_an_account_are_those_of_a_model_of_its_market(
    tmp_path: Path, where: Any, allowed: bool
) -> None:
    model = write_eager_bundle(tmp_path / "model", venue=VENUE)
    config = LiveConfig(broker="nautilus", nautilus=NautilusConfig(where=where))
    if allowed:
        check_model_market(model, config)
        return
    with pytest.raises(FeatureMismatchError, match="another market"):
        check_model_market(model, config)


@pytest.mark.parametrize(("market", "status"), [(OWN_MARKET, "fail"), ("synthetic", "ok"), (None, "fail")])
def test_doctor_tells_of_a_model_of_another_market(tmp_path: Path, market: str | None, status: str) -> None:
    """``market`` is that of a session there; None: there is none, and the configuration decides."""
    model = write_eager_bundle(tmp_path / "model", venue=VENUE)
    session = None if market is None else begun(tmp_path / "session", model, market)
    found = examine(model=model, session_dir=session, device="cpu", offline=True)
    check = next(each for each in found.checks if each.name == "model")
    assert check.status == status, check.what
    if status == "fail":
        assert (check.code, found.exit_code) == (8, 8)
        assert "another market" in check.what
        assert "binance_usdm" in str(check.fix)


@pytest.mark.parametrize("market", [OWN_MARKET, "synthetic"])
def test_who_asks_a_session_that_has_ended_is_told_how_to_start_it(
    bundle: Path, tmp_path: Path, market: str
) -> None:
    session = begun(tmp_path / "my session", bundle, market)
    with pytest.raises(NotRunningError) as refused:
        ask(session, Request("stop"))
    embedded = " --embedded" if market == "synthetic" else ""
    assert refused.value.fix == f"gpuscalp live --session '{session}'{embedded} starts it again"


def test_a_replay_is_of_the_market_that_it_replays(bundle: Path, tmp_path: Path) -> None:
    origin = begun(tmp_path / "session", bundle, "synthetic")
    (origin / "journal").mkdir()
    with pytest.raises(Exception, match="journal"):  # there is nothing in it yet
        run_replay([origin], tmp_path / "again", device="cpu")
    assert read_about(tmp_path / "again").market == "synthetic"
