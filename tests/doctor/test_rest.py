"""REST: what is asked, and what a refusal is told as."""

from __future__ import annotations

import json
import re

import pytest

from gpuscalp.doctor.rest import Listing, RestProbe, check_rest, check_symbols, parse_listing, probe_rest
from gpuscalp.errors import DataError, FeedError
from gpuscalp.feeds.rest import RestReply
from gpuscalp.schema import E8, Instrument

MS, S = 1_000_000, 1_000_000_000


def _info(*symbols: tuple[str, str, str]) -> RestReply:
    listed = [
        {
            "symbol": name,
            "status": status,
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": tick},
                {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001"},
            ],
        }
        for name, status, tick in symbols
    ]
    return RestReply("GET /info", 0, 1, json.dumps({"symbols": listed}).encode())


class FakeClient:
    """Answers in turn with round trips of ``trips_ms``; ``error`` comes in the place of call ``fails_at``."""

    def __init__(self, trips_ms=(10,) * 9, *, fails_at=-1, error=None):
        self.trips_ms, self.fails_at, self.error, self.calls = trips_ms, fails_at, error, 0

    def _count(self):
        self.calls += 1
        if self.calls - 1 == self.fails_at:
            raise self.error

    def server_time(self):
        self._count()
        trip = self.trips_ms[self.calls - 1] * MS
        return 0, trip, trip // 2

    def exchange_info(self):
        self._count()
        return _info(("BTCUSDT", "TRADING", "0.10"), ("OLDUSDT", "SETTLING", "0.01"))


def test_first_call_opens_the_connection_and_is_not_counted():
    probe = probe_rest(FakeClient((900, *[10] * 8)))
    check = check_rest(probe)
    assert (check.status, len(probe.samples)) == ("ok", 8)
    assert check.value["worst_ms"] == 10
    assert probe.listing is not None
    assert probe.listing.trading == {"BTCUSDT"}
    assert set(probe.listing.instruments) == {"BTCUSDT", "OLDUSDT"}


def test_slow_server_is_a_warning():
    assert check_rest(probe_rest(FakeClient((1_200,) * 9))).status == "warn"


@pytest.mark.parametrize(
    ("what", "until_ns", "fix"),
    [
        ("the venue refuses: HTTP 418", 90 * S, "90 s"),
        ("the venue refuses: HTTP 429", 61 * S - 1, "61 s"),
        ("the venue refuses: HTTP 503", 0, "maintenance"),
        ("the venue refuses: HTTP 451", 0, "serves"),
        ("the venue refuses: HTTP 404", 0, "feed.rest_url"),
        ("the venue's REST server cannot be reached", 0, "DNS"),
    ],
)
@pytest.mark.parametrize("fails_at", [0, 5, 9])
def test_refusal_ends_the_calls_and_is_told_with_its_fix(what, until_ns, fix, fails_at):
    client = FakeClient(fails_at=fails_at, error=FeedError(what, where="url", value="-1003"))
    probe = probe_rest(client, blocked_until_ns=lambda: until_ns, clock=lambda: 0)
    check = check_rest(probe)
    assert client.calls == fails_at + 1, "nothing is sent after a refusal"
    assert (check.status, check.code) == ("fail", 5)
    assert fix in (check.fix or "")
    assert "-1003" in check.what


def test_page_of_somebody_else_is_no_listing():
    with pytest.raises(DataError):
        parse_listing(RestReply("GET /info", 0, 1, b"<html>log in</html>"))


def _instrument(name: str, tick: float) -> Instrument:
    return Instrument(name, "binance_usdm", round(tick * E8), E8, E8, 0, "exchange_info")


LISTING = Listing(
    {name: _instrument(name, 0.1) for name in ("AUSDT", "BUSDT", "CUSDT")}, frozenset({"AUSDT", "BUSDT"})
)


@pytest.mark.parametrize(
    ("symbols", "trained", "status", "code", "told"),
    [
        (["AUSDT", "BUSDT"], None, "ok", 0, "all 2"),
        (["AUSDT"], {"AUSDT": 0.1}, "ok", 0, "all 1"),
        (["AUSDT"], {"BUSDT": 0.5}, "ok", 0, "all 1"),
        (["AUSDT", "XUSDT"], None, "fail", 8, "XUSDT"),
        (["AUSDT"], {"AUSDT": 0.01}, "fail", 8, "AUSDT 0.01 → 0.1"),
        (["CUSDT"], None, "warn", 0, "CUSDT"),
    ],
)
def test_symbols_are_compared_with_the_listing(symbols, trained, status, code, told):
    known = None if trained is None else {name: _instrument(name, tick) for name, tick in trained.items()}
    check = check_symbols(symbols, LISTING, known)
    assert (check.status, check.code) == (status, code)
    assert told in check.what
    assert all(re.fullmatch(r"[A-Z]+", name) for name in check.value["tick_sizes"])


def test_probe_without_listing_is_still_judged():
    assert check_rest(RestProbe(((0, MS, 0),), None)).status == "ok"
