"""One message dated far ahead is refused, live as in an import, and costs the others nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpuscalp.archive.ingest import import_sources
from gpuscalp.config import FeedConfig
from gpuscalp.errors import DecodeError
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.lead import Lead
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.schema import E8, NS_PER_S, Instrument
from tests.archive import market

AHEAD = "event time is ahead of all others"


def test_lead_may_drift_but_not_jump() -> None:
    lead = Lead()
    for second in range(100):
        lead.check(second * NS_PER_S, second * NS_PER_S + second * NS_PER_S // 2)
    with pytest.raises(DecodeError, match=AHEAD):
        lead.check(100 * NS_PER_S, 152 * NS_PER_S)
    lead.check(101 * NS_PER_S, 90 * NS_PER_S)
    lead.check(102 * NS_PER_S, 152 * NS_PER_S)


def test_clock_that_was_changed_is_believed_after_eight_messages() -> None:
    lead, refused = Lead(), 0
    lead.check(0, 0)
    for second in range(1, 20):
        try:
            lead.check(second * NS_PER_S, (second + 3_600) * NS_PER_S)
        except DecodeError:
            refused += 1
    assert refused == 8


def _marks(ns: int, ahead_s: int = 0) -> dict[str, object]:
    each = {"e": "markPriceUpdate", "E": ns // 10**6 + 1_000 * ahead_s, "p": "100.1", "T": 0}
    return {"stream": "!markPrice@arr@1s", "data": [{**each, "s": "BTCUSDT"}, {**each, "s": "XRPUSDT"}]}


def _put_ahead(line: bytes, ms: int) -> bytes:
    stamp, _, body = line.partition(b" ")
    frame = json.loads(body)
    frame["data"]["E"] += ms
    return stamp + b" " + json.dumps(frame, separators=(",", ":")).encode()


def test_live_refuses_what_an_import_of_its_journal_refuses(tmp_path: Path) -> None:
    # Live took every event time up to 2100: one message an hour ahead made an hour of all symbols late.
    lines = market.lines(300)
    for place in (50, 51, 52, 90, *range(150, 160)):
        lines[place] = _put_ahead(lines[place], 3_600_000)
    for place, ahead_s in ((110, 0), (120, 3_600), (130, 0)):
        stamp = int(lines[place].partition(b" ")[0])
        lines.insert(place, f"{stamp} {json.dumps(_marks(stamp, ahead_s))}".encode())
    answer = import_sources([market.write(tmp_path / "a.gz", lines)], tmp_path / "archive").to_dict()
    ingest = Ingest([Instrument("BTCUSDT", "binance_usdm", E8 // 10, 1, 1, 1, "exchange_info")], FeedConfig())
    for line in lines[1:]:
        recv, _, body = line.partition(b" ")
        ingest.on_messages(0, int(recv), [body])
    assert ingest.rejects == answer["rejects_by_reason"] == {AHEAD: 3 + 1 + 1 + 8}
    ahead_ns = ingest.take()["exch_ns"] - market.START_NS > 3_000 * NS_PER_S
    # Of the ten in a row the last two are taken, as an import takes them; one of them makes a tick.
    assert 0 < ahead_ns.sum() <= 2


def test_copy_of_another_connection_stands_in_for_a_message_dated_ahead() -> None:
    ingest = Ingest([Instrument("BTCUSDT", "binance_usdm", E8 // 10, 1, 1, 1, "exchange_info")], FeedConfig())
    trades = [line for line in market.lines(30) if b"@trade" in line]
    for place, line in enumerate(trades):
        for number in (0, 1):
            recv, _, body = (_put_ahead(line, 60_000) if (place, number) == (5, 0) else line).partition(b" ")
            ingest.on_messages(number, int(recv), [body])
    ticks = ingest.take()
    assert len(ticks) == len(trades) == 10
    assert not ticks["quality"].any()
    assert ingest.rejects == {AHEAD: 1}


def test_snapshot_dated_ahead_is_refused() -> None:
    ingest = Ingest([Instrument("BTCUSDT", "binance_usdm", E8 // 10, 1, 1, 1, "exchange_info")], FeedConfig())
    recv, _, body = market.lines(1)[1].partition(b" ")
    ingest.on_messages(0, int(recv), [body])
    later_ns = int(recv) + NS_PER_S
    assert ingest.on_snapshot(later_ns, DepthSnapshot("BTCUSDT", later_ns + 10**10, 99, [], [])) == "reject"
    assert ingest.on_snapshot(later_ns, DepthSnapshot("BTCUSDT", later_ns, 99, [], [])) == "taken"
    assert ingest.rejects == {AHEAD: 1}
