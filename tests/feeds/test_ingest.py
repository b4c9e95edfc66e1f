"""Raw messages to live ticks: the same bits as an import, whatever the connections do."""

from __future__ import annotations

import gzip
import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuscalp.archive import Archive
from gpuscalp.archive.ingest import import_sources
from gpuscalp.config import FeedConfig
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.schema import E8, Instrument, Quality, TickKind
from tests.thorough import examples

CONFIG = FeedConfig()
START_MS = 1_700_000_000_000


def _instrument(symbol="BTCUSDT", tick_e8=E8 // 10):
    return Instrument(symbol, "binance_usdm", tick_e8, E8 // 1000, E8 // 1000, 5 * E8, "exchange_info")


def _trade(number, symbol="btcusdt"):
    return (
        f'{{"stream":"{symbol}@aggTrade","data":{{"e":"aggTrade","E":{START_MS + number},"a":{number},'
        f'"s":"{symbol.upper()}","p":"100.{number % 10}","q":"1.5","m":false}}}}'
    ).encode()


def _quote(number, symbol="btcusdt"):
    return (
        f'{{"stream":"{symbol}@bookTicker","data":{{"e":"bookTicker","u":{7 * number},"s":"{symbol.upper()}",'
        f'"b":"100.{number % 10}","B":"2","a":"101.0","A":"3","T":1,"E":{START_MS + number}}}}}'
    ).encode()


def _depth(number, symbol="btcusdt"):
    return (
        f'{{"stream":"{symbol}@depth@100ms","data":{{"e":"depthUpdate","E":{START_MS + number},'
        f'"s":"{symbol.upper()}","U":{number},"u":{number},"pu":{number - 1},'
        f'"b":[["{100 - number % 7}.0","{number}.5"],["{99 - number % 3}.5","{number % 2}"]],'
        f'"a":[["{101 + number % 5}.0","{number % 4}"]]}}}}'
    ).encode()


def _mixed(count):
    return [make(number) for number in range(1, count + 1) for make in (_trade, _quote)]


@pytest.fixture(scope="module")
def excerpt(recordings_folder, tmp_path_factory):
    """The first lines of a recording, as a file and as (receive time, message)."""
    path = tmp_path_factory.mktemp("excerpt") / "btcusdt.dat"
    with gzip.open(recordings_folder / "usdm" / "btcusdt_20240718.gz") as file:
        lines = list(itertools.islice(file, 4_000))
    path.write_bytes(b"".join(lines))
    rows = [line.rstrip().split(b" ", 1) for line in lines]
    return path, [(int(stamp), body) for stamp, body in rows]


@pytest.fixture(scope="module")
def recordings_folder(request):
    return request.getfixturevalue("recordings")


def _run(ingest, rows, symbol="BTCUSDT", together=1):
    decoder, waiting = Decoder(), []

    def flush():
        for _, group in itertools.groupby(waiting, key=lambda row: row[0]):
            ingest.on_messages(0, *_split(list(group)))
        waiting.clear()

    for recv_ns, body in rows:
        if body.startswith(b'{"lastUpdateId"'):
            flush()
            found = decoder.decode(body)
            ingest.on_snapshot(
                recv_ns, DepthSnapshot(symbol, found.exch_ns, found.last_id, found.bids, found.asks)
            )
        else:
            waiting.append((recv_ns, body))
            if len(waiting) >= together:
                flush()
    flush()
    return ingest.take()


def _split(group):
    return group[0][0], [body for _, body in group]


def test_live_ticks_are_the_bits_of_an_imported_recording(excerpt, tmp_path):
    path, rows = excerpt
    import_sources([path], tmp_path / "archive")
    archive = Archive.open(tmp_path / "archive")
    (instrument,) = archive.instruments("binance_usdm")
    stored = np.concatenate(list(archive.tick_batches("binance_usdm", ["BTCUSDT"])))
    for together in (1, 7, 500):
        ingest = Ingest([instrument], CONFIG)
        live = _run(ingest, rows, together=together)
        assert len(live) == len(stored) > 3_000
        assert set(np.unique(live["kind"])) >= {TickKind.TRADE, TickKind.QUOTE, TickKind.BOOK}
        assert live.tobytes() == stored.tobytes()
        assert ingest.rejects == {}
        assert ingest.off_tick_count == 0


@settings(
    max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)
@given(data=st.data())
def test_two_connections_give_the_ticks_of_one_whoever_dies(data):
    messages = _mixed(10)
    alone = Ingest([_instrument()], CONFIG)
    alone.on_messages(0, 5, messages)
    expected = alone.take()

    ingest = Ingest([_instrument()], CONFIG)
    at = {0: 0, 1: data.draw(st.integers(0, 6))}
    ingest.on_messages(0, 5, messages[:8])
    at[0] = 8
    killed = None
    while any(place < len(messages) for place in at.values()):
        number = data.draw(st.sampled_from(sorted(at)))
        size = data.draw(st.integers(1, 5))
        ingest.on_messages(number, 5, messages[at[number] : at[number] + size])
        at[number] = min(at[number] + size, len(messages))
        if killed is None and at.get(1, 0) >= 8 and data.draw(st.integers(0, 5)) == 0:
            killed = data.draw(st.sampled_from([0, 1]))
            ingest.on_lost(killed, 5)
            del at[killed]
    got = ingest.take()
    # The order between the streams of a symbol is that of whoever was first; within each it is the venue's.
    for kind in (TickKind.TRADE, TickKind.QUOTE):
        assert got[got["kind"] == kind].tobytes() == expected[expected["kind"] == kind].tobytes()
    assert not (got["quality"] & Quality.GAP).any()


@settings(
    max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example]
)
@given(data=st.data())
def test_books_over_two_connections_are_those_of_one_whoever_comes_late(data):
    # What waits for another connection has left the reader's arrays by the time that it is used.
    depths = [_depth(number) for number in range(1, 40)]
    snapshot = DepthSnapshot("BTCUSDT", 0, 3, [(98 * E8, 7 * E8)], [(103 * E8, 9 * E8)])

    def start():
        ingest = Ingest([_instrument()], CONFIG)
        ingest.on_messages(0, 5, depths[:6])
        ingest.on_snapshot(5, snapshot)
        return ingest

    alone = start()
    alone.on_messages(0, 5, depths[6:])
    ingest = start()
    ingest.on_messages(1, 5, depths[4:8])
    at = {0: 6, 1: 8}
    lost = data.draw(st.sets(st.integers(8, 37), max_size=6))  # by connection 0
    while min(at.values()) < len(depths):
        number = data.draw(st.sampled_from([each for each in at if at[each] < len(depths)]))
        place, at[number] = at[number], min(at[number] + data.draw(st.integers(1, 7)), len(depths))
        wanted = range(place, at[number])
        ingest.on_messages(number, 5, [depths[each] for each in wanted if number == 1 or each not in lost])
    assert ingest.take().tobytes() == alone.take().tobytes()
    assert ingest.unsynced() == ()


def test_quantities_beyond_the_whole_numbers_of_a_float_are_those_of_the_archive():
    qty = next(q for q in range(2**53 + 10**8, 2**53 + 10**9) if q / 10**8 != float(q) / 1e8)
    text = f"{qty // 10**8}.{qty % 10**8:08d}"
    bodies = [each.replace(b'"1.5"', f'"{text}"'.encode()) for each in (_trade(1),)]
    bodies += [_quote(1).replace(b'"2"', f'"{text}"'.encode())]
    ingest = Ingest([_instrument()], CONFIG)
    ingest.on_messages(0, 1, bodies)
    expected = (np.array([qty], np.int64) / E8)[0]
    assert ingest.take()["q0"].tolist() == [expected, expected]


def test_loss_on_a_single_connection_shows_as_gap_bits():
    ingest = Ingest([_instrument()], CONFIG)
    ingest.on_messages(0, 1, _mixed(5))
    ingest.on_lost(0, 2)
    ingest.on_messages(1, 3, _mixed(12)[16:])
    ticks = ingest.take()
    after = ticks[10:]
    assert (after["quality"][:2] & Quality.GAP).all()
    assert not (after["quality"][2:] & Quality.GAP).any()
    assert [gap[:2] for gap in ingest.gaps()] == [("BTCUSDT", "agg_trade_id")]


def test_copies_bad_messages_and_other_symbols_are_counted():
    ingest = Ingest([_instrument()], CONFIG)
    ingest.on_messages(0, 1, [_trade(1), b'{"result":null,"id":1}', b"{", _quote(1, "ethusdt"), _trade(2)])
    ingest.on_messages(1, 2, [_trade(1), _trade(2)])
    assert len(ingest.take()) == 2
    account = ingest.account()
    assert (account["taken"], account["duplicates"], account["rejects"]) == (2, 2, 1)
    assert ingest.fates["other_symbol"] == 1
    assert ingest.fates["reply"] == 1


def test_price_that_does_not_fit_the_instrument_makes_no_tick_and_is_counted():
    ingest = Ingest([_instrument("ETHUSDT"), _instrument(tick_e8=E8)], CONFIG)
    ingest.on_messages(0, 1, [_trade(1), _trade(10), _quote(1)])
    assert ingest.take()["px0"].tolist() == [100]
    assert ingest.off_tick_count == 2
    assert ingest.off_ticks() == (0, 2)


def test_all_mark_prices_come_in_one_message():
    ingest = Ingest([_instrument(), _instrument("ETHUSDT")], CONFIG)
    marks = ",".join(
        f'{{"e":"markPriceUpdate","E":{START_MS},"s":"{name}","p":"1.5","i":"","r":"0.0001","T":0}}'
        for name in ("BTCUSDT", "XRPUSDT", "ETHUSDT")
    )
    ingest.on_messages(0, 1, [f'{{"stream":"!markPrice@arr@1s","data":[{marks}]}}'.encode()])
    ticks = ingest.take()
    assert ticks["symbol"].tolist() == [0, 1]
    assert ticks["q0"].tolist() == [1.5, 1.5]
    assert np.isnan(ticks["q1"]).all()
    assert np.isnan(ticks["q3"]).all()


def _liquidation(symbol="BTCUSDT", margin=1):
    return (
        f'{{"e":"forceOrder","E":{START_MS},"o":{{"s":"{symbol}","S":"BUY","o":"LIMIT","f":"IOC","q":"1",'
        f'"p":"100.0","ap":"99.5","X":"FILLED","l":"1","z":"1","T":{START_MS}}},"st":{margin}}}'
    )


def test_liquidations_are_counted_and_make_no_ticks():
    ingest = Ingest([_instrument()], CONFIG)
    every = ",".join([_liquidation(), _liquidation("XRPUSDT"), _liquidation("BTCUSD_PERP", 2)])
    ingest.on_messages(
        0,
        1,
        [
            f'{{"stream":"btcusdt@forceOrder","data":{_liquidation()}}}'.encode(),
            f'{{"stream":"!forceOrder@arr","data":{_liquidation()}}}'.encode(),
            f'{{"stream":"!forceOrder@arr","data":[{every}]}}'.encode(),
        ],
    )
    assert ingest.fates == {"liquidation": 3, "other_symbol": 1, "other_margin": 1}
    assert ingest.rejects == {}
    assert len(ingest.take()) == 0


def test_messages_of_coin_m_touch_nothing_even_under_a_symbol_of_ours():
    ingest = Ingest([_instrument()], CONFIG)

    def with_margin(body, margin):
        return body[:-2] + f',"st":{margin}}}}}'.encode()

    ours = [_trade(1), _quote(1), _depth(1)]
    theirs = [with_margin(body, 2) for body in (_trade(2), _quote(2), _depth(2))]
    mark = f'{{"e":"markPriceUpdate","E":{START_MS},"s":"BTCUSDT","p":"1.5","T":0,"st":%d}}'
    marks = f'{{"stream":"!markPrice@arr","data":[{mark % 2},{mark % 1}]}}'.encode()
    ticker = _quote(3).replace(b"btcusdt@bookTicker", b"!bookTicker")
    ingest.on_messages(0, 1, [*ours, *theirs, marks, with_margin(ticker, 2), with_margin(ticker, 1)])
    assert ingest.fates == {"taken": 4, "before_snapshot": 1, "other_margin": 5}
    assert ingest.rejects == {}
    ticks = ingest.take()
    assert ticks["kind"].tolist() == [TickKind.TRADE, TickKind.QUOTE, TickKind.MARK, TickKind.QUOTE]
    # What was set aside has moved no chain: the next ones of ours follow without a gap.
    ingest.on_messages(0, 2, [with_margin(body, 1) for body in (_trade(2), _quote(4), _depth(2))])
    assert ingest.fates["taken"] == 6
    assert ingest.gaps() == []
    assert (ingest.take()["quality"] == 0).all()


def test_stream_over_all_symbols_counts_for_each_of_them_when_connections_are_exchanged():
    ingest = Ingest([_instrument(), _instrument("ETHUSDT")], CONFIG)

    def marks(ms, *names):
        each = ",".join(
            f'{{"e":"markPriceUpdate","E":{START_MS + ms},"s":"{name}","p":"1.5","T":0}}' for name in names
        )
        return f'{{"stream":"!markPrice@arr@1s","data":[{each}]}}'.encode()

    ingest.on_messages(0, 1, [marks(1, "BTCUSDT", "ETHUSDT")])
    assert not ingest.joined(1, ("!markPrice@arr@1s",))
    ingest.on_messages(1, 2, [marks(1, "BTCUSDT")])
    assert not ingest.joined(1, ("!markPrice@arr@1s",)), "ETHUSDT has not come over the new one"
    ingest.on_messages(1, 3, [marks(1, "ETHUSDT")])
    assert ingest.joined(1, ("!markPrice@arr@1s",))
    assert ingest.fates["taken"] == 2


def test_symbol_without_a_whole_book_asks_for_a_snapshot():
    ingest = Ingest([_instrument(), _instrument("ETHUSDT")], CONFIG)
    depth = (
        '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":%d,"s":"BTCUSDT","U":%d,"u":%d,"pu":%d,'
        '"b":[["100.0","1"]],"a":[["101.0","2"]]}}'
    )
    ingest.on_messages(0, 1, [(depth % (START_MS, 5, 7, 4)).encode()])
    assert ingest.unsynced() == ("BTCUSDT",)
    ingest.on_snapshot(2, DepthSnapshot("BTCUSDT", 0, 6, [(99 * E8, E8)], [(102 * E8, E8)]))
    assert ingest.unsynced() == ()
    ingest.on_messages(0, 3, [(depth % (START_MS + 1, 12, 13, 11)).encode()])  # pu should be 7
    assert ingest.unsynced() == ("BTCUSDT",)
    ticks = ingest.take()
    assert ticks[ticks["kind"] == TickKind.BOOK]["quality"][-1] & Quality.RESYNC


def test_symbol_near_the_edge_of_its_snapshot_is_named_before_its_book_is_doubtful():
    ingest = Ingest([_instrument(), _instrument("ETHUSDT")], CONFIG)
    asks = [((101 + n) * E8, E8) for n in range(50)]
    ingest.on_snapshot(1, DepthSnapshot("BTCUSDT", 0, 6, [(99 * E8, E8)], asks))
    for last_id, gone, near_edge, unsynced in (
        (7, range(101, 111), (), ()),
        (8, range(111, 112), ("BTCUSDT",), ()),
        (9, range(112, 132), (), ("BTCUSDT",)),
    ):
        levels = ",".join(f'["{price}.0","0"]' for price in gone)
        ingest.on_messages(
            *(0, last_id),
            [
                f'{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":{START_MS},"s":"BTCUSDT",'
                f'"U":{last_id},"u":{last_id},"pu":{last_id - 1},"b":[],"a":[{levels}]}}}}'.encode()
            ],
        )
        assert (ingest.near_edge(), ingest.unsynced()) == (near_edge, unsynced)
    ticks = ingest.take()
    books = ticks[ticks["kind"] == TickKind.BOOK]
    assert books["quality"].tolist() == [0, 0, 0, Quality.GAP | Quality.RESYNC]


def test_connection_has_joined_when_all_of_its_streams_have():
    ingest = Ingest([_instrument()], CONFIG)
    streams = ("btcusdt@aggTrade", "btcusdt@bookTicker")
    ingest.on_messages(0, 1, _mixed(3))
    ingest.on_messages(1, 2, [_trade(3)])
    assert not ingest.joined(1, streams)
    ingest.on_messages(1, 2, [_quote(3)])
    assert ingest.joined(1, streams)


def _at(make, number, second):
    return make(number).replace(b'"E":%d' % (START_MS + number), b'"E":%d' % (START_MS + 1_000 * second))


def _restarted():
    """A stream of three kinds whose ids begin anew after a minute, as (second, message)."""
    kinds = (_trade, _quote, _depth)
    before = [(n, _at(make, 1_000 + n, n)) for n in range(60) for make in kinds]
    return before, [(n, _at(make, n - 99, n)) for n in range(100, 140) for make in kinds]


@pytest.mark.parametrize("numbers", [(0,), (0, 1)])
def test_ids_that_begin_anew_silence_nobody_and_agree_with_an_import(numbers, tmp_path):
    # A testnet that was reset: live dropped all of its messages as copies, until the session was begun anew.
    before, after = _restarted()
    ingest = Ingest([_instrument()], CONFIG)
    for rows in (before, after):
        for second, body in rows:
            for number in numbers:
                ingest.on_messages(number, START_MS * 10**6 + second * 10**9, [body])
        for number in numbers:
            ingest.on_lost(number, START_MS * 10**6 + 80 * 10**9)
    ticks = ingest.take()
    path = tmp_path / "a.txt"
    path.write_bytes(
        b"".join(b"%d %s\n" % (START_MS * 10**6 + s * 10**9, body) for s, body in before + after)
    )
    import_sources([path], tmp_path / "archive")
    archive = Archive.open(tmp_path / "archive")
    stored = np.concatenate(list(archive.tick_batches("binance_usdm", ["BTCUSDT"])))
    assert len(ticks) == len(stored) == 2 * (60 + 40 - 2)
    for name in ("exch_ns", "px0", "q0", "kind"):
        assert (ticks[name] == stored[name]).all(), name
    gap = (ticks["quality"] & Quality.GAP) > 0
    assert (gap == ((stored["quality"] & Quality.GAP) > 0)).all()
    assert gap.sum() == 2, "the first trade and the first quote of the new ids"
    assert ingest.unsynced() == ("BTCUSDT",), "a snapshot is asked for"
    assert (
        ingest.on_snapshot(9, DepthSnapshot("BTCUSDT", 0, 20, [(98 * E8, E8)], [(103 * E8, E8)])) == "taken"
    )
    assert ingest.unsynced() == ()


def test_quotes_go_on_after_one_damaged_id_and_a_reconnection():
    ingest = Ingest([_instrument()], CONFIG)
    ids = [1, 2, 3, 10**15, *range(4, 20)]
    for place, ident in enumerate(ids):
        if place == 10:
            ingest.on_lost(0, place)
        body = _quote(place + 1).replace(b'"u":%d' % (7 * place + 7), b'"u":%d' % ident)
        ingest.on_messages(0, place, [body])
    assert len(ingest.take()) == len(ids) - 2, "two were late until the third outvoted the damaged one"
