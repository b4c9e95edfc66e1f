"""What the bulk reader reads, the decoder reads with the same result; the usual messages it reads all."""

from __future__ import annotations

import gzip
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.errors import DecodeError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.messages import DepthUpdate, Ignored, MarkPrice, PartialBook, Ticker, Trade
from gpuscalp.ops import wire
from tests.thorough import examples

SYMBOLS = ("BTCUSDT", "ETHUSDT", "1000SHIBUSDT")
MESSAGES = [
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1721347022956,"T":1721347022956,"s":"BTCUSDT",'
    b'"t":5182005737,"p":"63943.90","q":"0.003","X":"MARKET","m":true}}',
    b'{"stream":"ethusdt@aggTrade","data":{"e":"aggTrade","E":1617647797640,"a":9445517,"s":"ETHUSDT",'
    b'"p":"0.69067","q":"369","nq":"100","f":12821738,"l":12821738,"T":1617647797485,"m":false,"st":1}}',
    b'{"stream":"1000shibusdt@bookTicker","data":{"e":"bookTicker","u":4984028370881,"s":"1000SHIBUSDT",'
    b'"ps":"1000SHIBUSDT","b":"0","B":"0.0","a":"0.01234567","A":"0.095","T":1721347022507,"E":1721347022507}}',
    b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1680652700594,"T":1680652700586,'
    b'"s":"BTCUSDT","U":2710246765373,"u":2710246765597,"pu":2710246765326,"b":[["5000.00","14.368"],'
    b'["28018.90","0.000"]],"a":[["28145.20","6.961"]],"ps":"BTCUSDT","st":1}}',
    b'{"stream":"btcusdt@depth","data":{"e":"depthUpdate","E":1680652700594,"T":1680652700586,'
    b'"s":"BTCUSDT","U":17,"u":17,"b":[],"a":[]}}',
    b'{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":1680652701000,"s":"BTCUSDT",'
    b'"p":"28147.27373413","P":"28142.15563565","i":"28159.75642857","r":"-0.00002754","T":1680652800000}}',
    b'{"stream":"btcusdt@depth5","data":{"e":"depthUpdate","E":1571889248277,"T":1571889248276,'
    b'"s":"BTCUSDT","U":390497796,"u":390497878,"pu":390497794,"b":[["7403.89","0.002"],'
    b'["7403.88","1.5"]],"a":[["7405.96","3.34"]],"ps":"BTCUSDT","st":1}}',
    b'{"stream":"ethusdt@depth10@500ms","data":{"e":"depthUpdate","E":1571889248277,"T":1571889248276,'
    b'"s":"ETHUSDT","U":4,"u":9,"pu":3,"b":[],"a":[["7405.96","3.34"]]}}',
    b'{"stream":"1000shibusdt@depth20@100ms","data":{"e":"depthUpdate","E":1571889248277,"T":1571889248276,'
    b'"s":"1000SHIBUSDT","U":5,"u":7,"pu":3,"b":[["0.5","1"]],"a":[["0.6","2"],["0.7","3"]],"st":1}}',
]
TABLE = wire.symbol_table(SYMBOLS)


def _scan(messages, level_count=200_000):
    data = np.frombuffer(b"".join(messages) + bytes(wire.PADDING), np.uint8)
    ends = np.cumsum([len(message) for message in messages], dtype=np.int64)
    heads = np.full((len(messages), wire.HEAD_SIZE), 77, np.int64)
    levels = np.zeros((level_count, 2), np.int64)
    count = wire.scan(data, ends, *TABLE, heads, levels)
    return heads, levels, count


def _as_message(head, levels):
    """Say what a head says, in the decoder's words."""
    kind, symbol, ms, ident, a, b, c, d, e = (int(value) for value in head)
    name, time_ns = SYMBOLS[symbol], ms * 1_000_000
    if kind == wire.TRADE:
        return Trade(name, time_ns, ident, a, b, c, bool(d), True)
    if kind == wire.QUOTE:
        return Ticker(name, time_ns, ident, a, b, c, d)
    if kind == wire.MARK:
        return MarkPrice(name, time_ns, a, b, c, d * 1_000_000)
    pairs = [tuple(level) for level in levels[c : c + d + e].tolist()]
    if kind in wire.PARTIAL:
        depth = (5, 10, 20)[wire.PARTIAL.index(kind)]
        return PartialBook(name, time_ns, depth, a, ident, b, pairs[:d], pairs[d:])
    assert kind == wire.DEPTH
    return DepthUpdate(name, time_ns, a, ident, b, pairs[:d], pairs[d:])


def _check(messages):
    """Compare with the decoder; return how many were read in bulk."""
    heads, levels, _ = _scan(messages)
    decoder, read = Decoder(), 0
    for message, head in zip(messages, heads, strict=True):
        if head[wire.KIND] != wire.OTHER:
            assert _as_message(head, levels) == decoder.decode(message)
            read += 1
    return read


def test_usual_messages_are_read_as_the_decoder_reads_them():
    assert _check(MESSAGES) == len(MESSAGES)
    assert _check(MESSAGES * 50) == 50 * len(MESSAGES)
    assert _check([]) == 0


@settings(max_examples=examples(300))
@given(
    index=st.integers(0, len(MESSAGES) - 1),
    edits=st.lists(
        st.tuples(
            st.floats(0, 1),
            st.sampled_from(["replace", "insert", "delete"]),
            st.sampled_from(list(b'"{}[],:.-+0123456789eEstmpub\\\x00 @AMn')),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_damaged_message_is_left_to_the_decoder_or_read_as_it_would(index, edits):
    message = bytearray(MESSAGES[index])
    for share, action, letter in edits:
        at = int(share * (len(message) - 1))
        if action == "insert":
            message.insert(at, letter)
        elif action == "delete":
            del message[at]
        else:
            message[at] = letter
    damaged = bytes(message)
    heads, levels, _ = _scan([damaged, MESSAGES[0]])
    if heads[0, wire.KIND] != wire.OTHER:
        try:
            expected = Decoder().decode(damaged)
        except DecodeError as error:
            pytest.fail(f"read what the decoder refuses: {damaged!r}: {error}")
        assert _as_message(heads[0], levels) == expected
    # What follows is not affected.
    assert _as_message(heads[1], levels) == Decoder().decode(MESSAGES[0])


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_message_cut_anywhere_is_left_to_the_decoder(message):
    cut = [message[:size] for size in range(len(message))]
    heads, _, count = _scan(cut)
    assert (heads[:, wire.KIND] == wire.OTHER).all()
    assert count == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"btcusdt@trade", b"dogeusdt@trade"),  # a symbol that nobody asked for
        (b'"s":"BTCUSDT"', b'"s":"ETHUSDT"'),  # another than the stream's
        (b'"X":"MARKET"', b'"X":"ADL"'),
        (b'"m":true', b'"m":true,"m":false'),
        (b'"m":true', b'"m":true,"st":2'),
        (b'"p":"63943.90"', b'"p":"63943.900000001"'),
        (b'"p":"63943.90"', b'"p":"0"'),
        (b'"p":"63943.90"', b'"p":"-1"'),
        (b'"p":"63943.90"', b'"p":63943.90'),
        (b'"p":"63943.90"', b'"p":"12345678901"'),
        (b'"t":5182005737', b'"t":05182005737'),
        (b'"t":5182005737', b'"t":9182005737000000000000'),
        (b'"E":1721347022956', b'"E":1721347022'),
        (b'"e":"trade"', b'"e": "trade"'),
        (b"@trade", b"@kline_1m"),
    ],
)
def test_what_is_not_plain_is_left_to_the_decoder(old, new):
    message = MESSAGES[0].replace(old, new)
    assert message != MESSAGES[0]
    heads, _, _ = _scan([message])
    assert heads[0, wire.KIND] == wire.OTHER


@pytest.mark.parametrize(
    "stream", [b"btcusdt@rpiDepth@500ms", b"btcusdt@depthX", b"btcusdt@depth50", b"btcusdt@depth2@100ms"]
)
def test_what_only_looks_like_an_update_is_none(stream):
    heads, _, _ = _scan([MESSAGES[3].replace(b"btcusdt@depth@100ms", stream)])
    assert heads[0, wire.KIND] == wire.OTHER


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_margin_type_of_usdm_is_read_in_bulk_and_that_of_coin_m_never(message):
    bare = message.replace(b',"st":1', b"")
    told = [bare[:-2] + b',"st":%d}}' % margin for margin in (1, 2, 3)]
    heads, levels, _ = _scan([bare, *told])
    assert (heads[:2, wire.KIND] != wire.OTHER).all()
    assert _as_message(heads[1], levels) == _as_message(heads[0], levels)
    assert (heads[2:, wire.KIND] == wire.OTHER).all()
    assert [Decoder().decode(each) for each in told[1:]] == [Ignored("other_margin")] * 2


def test_levels_that_do_not_fit_leave_the_message_to_the_decoder():
    heads, _, count = _scan([MESSAGES[3], MESSAGES[3]], level_count=5)
    assert heads[:, wire.KIND].tolist() == [wire.DEPTH, wire.OTHER]
    assert count == 3


def test_many_symbols_are_told_apart():
    symbols = tuple(f"S{index}USDT" for index in range(500))
    messages = [
        MESSAGES[0].replace(b"btcusdt", name.lower().encode()).replace(b"BTCUSDT", name.encode())
        for name in symbols
    ]
    data = np.frombuffer(b"".join(messages) + bytes(wire.PADDING), np.uint8)
    ends = np.cumsum([len(message) for message in messages], dtype=np.int64)
    heads = np.zeros((len(messages), wire.HEAD_SIZE), np.int64)
    wire.scan(data, ends, *wire.symbol_table(symbols), heads, np.zeros((1, 2), np.int64))
    assert heads[:, wire.SYMBOL].tolist() == list(range(500))


@pytest.mark.parametrize("name", ["btcusdt_20240718.gz", "ethusdt_20240718.gz", "btcusdt_20230404.dat.gz"])
def test_recordings_are_read_in_bulk_but_for_snapshots_and_kinds_of_trades(recordings, name):
    with gzip.open(recordings / "usdm" / name) as file:
        messages = [line.rstrip().split(b" ", 1)[1] for line in itertools.islice(file, 3_000)]
    left = len(messages) - _check(messages)
    odd = sum(b'"stream"' not in message[:12] or b'"X":"INSURANCE_FUND"' in message for message in messages)
    assert left == odd
