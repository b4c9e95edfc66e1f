"""Messages of Binance as literal bytes, one line a case; the official samples; and damage."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuscalp.errors import DecodeError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.messages import (
    Batch,
    DepthSnapshot,
    DepthUpdate,
    Ignored,
    Liquidation,
    MarkPrice,
    Message,
    PartialBook,
    Ticker,
    Trade,
)
from tests.thorough import examples

E = 1_721_347_022_504
NS = E * 1_000_000

AGG = b'{"e":"aggTrade","E":%d,"s":"BTCUSDT","a":7,"p":"64000.10","q":"0.002","f":1,"l":2,"T":1,"m":true}' % E
TRADE = b'{"e":"trade","E":%d,"T":1,"s":"BTCUSDT","t":8,"p":"64000.10","q":"1","X":"MARKET","m":false}' % E
FUND = TRADE.replace(b"MARKET", b"INSURANCE_FUND")
TICKER = b'{"e":"bookTicker","u":9,"s":"BTCUSDT","b":"1.5","B":"2","a":"1.6","A":"3","T":1,"E":%d}' % E
DEPTH = (
    b'{"e":"depthUpdate","E":%d,"T":1,"s":"BTCUSDT","U":5,"u":7,"pu":3,"b":[["1.5","2"],["1.4","0"]],"a":[]}'
    % E
)
MARK = b'{"e":"markPriceUpdate","E":%d,"s":"BTCUSDT","p":"2","P":"9","i":"3","r":"-0.0001","T":%d}' % (E, E)
SPOT_TICKER = b'{"u":9,"s":"BTCUSDT","b":"1.5","B":"2","a":"1.6","A":"3"}'
SPOT_TRADE = (
    b'{"e":"trade","E":%d,"s":"BTCUSDT","t":8,"p":"2","q":"1","b":1,"a":2,"T":1,"m":true,"M":true}' % E
)
SPOT_DEPTH = b'{"e":"depthUpdate","E":%d,"s":"BTCUSDT","U":5,"u":7,"b":[],"a":[["1.6","0.5"]]}' % E
FORCED = (
    b'{"e":"forceOrder","E":%d,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910",'
    b'"ap":"9905.5","X":"FILLED","l":"0.014","z":"0.014","T":1},"ps":"BTCUSDT","st":1}' % E
)
SNAPSHOT = b'{"lastUpdateId":4,"E":%d,"T":1,"bids":[["1.5","2"]],"asks":[["1.6","3"]]}' % E

EXPECTED: list[tuple[bytes, str, Message]] = [
    (AGG, "aggTrade", Trade("BTCUSDT", NS, 7, 6_400_010_000_000, 200_000, -1, True, True)),
    (TRADE, "trade", Trade("BTCUSDT", NS, 8, 6_400_010_000_000, 10**8, 1, False, True)),
    (FUND, "trade", Trade("BTCUSDT", NS, 8, 6_400_010_000_000, 10**8, 1, False, False)),
    (TICKER, "bookTicker", Ticker("BTCUSDT", NS, 9, 150_000_000, 2 * 10**8, 160_000_000, 3 * 10**8)),
    (
        DEPTH,
        "depth@0ms",
        DepthUpdate("BTCUSDT", NS, 5, 7, 3, [(150_000_000, 2 * 10**8), (140_000_000, 0)], []),
    ),
    (
        FORCED,
        "forceOrder",
        Liquidation("BTCUSDT", NS, -1, 991_000_000_000, 990_550_000_000, 1_400_000, "FILLED"),
    ),
    (MARK, "markPrice@1s", MarkPrice("BTCUSDT", NS, 2 * 10**8, 3 * 10**8, -10_000, NS)),
    (SPOT_TICKER, "bookTicker", Ticker("BTCUSDT", 0, 9, 150_000_000, 2 * 10**8, 160_000_000, 3 * 10**8)),
    (SPOT_TRADE, "trade", Trade("BTCUSDT", NS, 8, 2 * 10**8, 10**8, -1, False, True)),
    (SPOT_DEPTH, "depth@100ms", DepthUpdate("BTCUSDT", NS, 5, 7, 4, [], [(160_000_000, 50_000_000)])),
]


def combined(message: bytes, stream: str, symbol: str = "btcusdt") -> bytes:
    return b'{"stream":"%s@%s","data":%s}' % (symbol.encode(), stream.encode(), message)


@pytest.mark.parametrize(("message", "stream", "expected"), EXPECTED)
def test_message_decodes_bare_combined_and_respaced(message: bytes, stream: str, expected: Message) -> None:
    decoder = Decoder()
    assert decoder.decode(message) == expected
    assert decoder.decode(combined(message, stream)) == expected
    frame = json.loads(combined(message, stream))
    assert decoder.decode(json.dumps(frame, indent=1).encode()) == expected
    turned = {"data": frame["data"], "stream": frame["stream"]}
    assert decoder.decode(json.dumps(turned).encode()) == expected


def test_snapshot_decodes_with_and_without_time() -> None:
    levels = [(150_000_000, 2 * 10**8)], [(160_000_000, 3 * 10**8)]
    assert Decoder().decode(SNAPSHOT) == DepthSnapshot("", NS, 4, *levels)
    spot = b'{"lastUpdateId": 4, "bids": [["1.50000000", "2"]], "asks": [["1.6", "3.0"]]}'
    assert Decoder().decode(spot) == DepthSnapshot("", 0, 4, *levels)


def test_mark_prices_of_all_symbols_decode_as_one_batch() -> None:
    message = b'{"stream":"!markPrice@arr@1s","data":[%s,%s]}' % (MARK, MARK.replace(b"BTC", b"ETH"))
    answer = Decoder().decode(message)
    assert isinstance(answer, Batch)
    assert [mark.symbol for mark in answer.messages] == ["BTCUSDT", "ETHUSDT"]


ALL = [("!bookTicker", TICKER), ("!markPrice@arr", MARK), ("!forceOrder@arr", FORCED)]


@pytest.mark.parametrize(("stream", "message"), ALL)
def test_stream_over_all_symbols_sends_one_or_an_array(stream: str, message: bytes) -> None:
    # The documentation calls !forceOrder@arr an array and shows a single message.
    (expected,) = (made for body, _, made in EXPECTED if body == message)
    name = stream.encode()
    assert Decoder().decode(b'{"stream":"%s","data":%s}' % (name, message)) == expected
    assert Decoder().decode(b'{"stream":"%s","data":[%s]}' % (name, message)) == Batch((expected,))
    assert Decoder().decode(b"[%s,%s]" % (message, message)) == Batch((expected, expected))
    assert Decoder().decode(b"[]") == Batch(())


@pytest.mark.parametrize(("message", "stream", "expected"), EXPECTED)
def test_margin_type_decides_whose_market_a_message_is_of(
    message: bytes, stream: str, expected: Message
) -> None:
    def with_margin(margin: int) -> bytes:
        return json.dumps({**json.loads(message), "st": margin}, separators=(",", ":")).encode()

    for wrapped in (lambda body: body, lambda body: combined(body, stream)):
        assert Decoder().decode(wrapped(with_margin(1))) == expected
        assert Decoder().decode(wrapped(with_margin(2))) == Ignored("other_margin")


@pytest.mark.parametrize(("stream", "message"), ALL)
def test_coin_m_in_a_stream_over_all_symbols_is_set_aside(stream: str, message: bytes) -> None:
    (expected,) = (made for body, _, made in EXPECTED if body == message)
    other = message.replace(b',"st":1', b"")[:-1].replace(b"BTCUSDT", b"BTCUSD_PERP") + b',"st":2}'
    name, decoder = stream.encode(), Decoder()
    assert decoder.decode(b'{"stream":"%s","data":%s}' % (name, other)) == Ignored("other_margin")
    assert decoder.decode(b'{"stream":"%s","data":[%s,%s]}' % (name, other, message)) == Batch(
        (Ignored("other_margin"), expected)
    )
    assert decoder.decode(b"[%s,%s]" % (message, other)) == Batch((expected, Ignored("other_margin")))


@pytest.mark.parametrize("depth", [5, 10, 20])
@pytest.mark.parametrize("speed", ["", "@100ms", "@500ms"])
def test_partial_book_is_told_by_the_name_of_its_stream(depth: int, speed: str) -> None:
    made = Decoder().decode(combined(DEPTH, f"depth{depth}{speed}"))
    bids = [(150_000_000, 2 * 10**8), (140_000_000, 0)]
    assert made == PartialBook("BTCUSDT", NS, depth, 5, 7, 3, bids, [])
    assert Decoder().decode(json.dumps(json.loads(combined(DEPTH, f"depth{depth}"))).encode()) == made
    assert isinstance(Decoder().decode(DEPTH), DepthUpdate), "a bare one has the keys of an update"


DECIMAL = st.integers(0, 10**17).map(lambda e8: (e8, f"{e8 // 10**8}.{e8 % 10**8:08d}"))
LEVELS = st.lists(st.tuples(DECIMAL.filter(lambda made: made[0] > 0), DECIMAL), max_size=20)


@settings(max_examples=examples(200))
@given(
    depth=st.sampled_from([5, 10, 20]),
    ids=st.lists(st.integers(0, 2**63 - 1), min_size=3, max_size=3, unique=True).map(sorted),
    bids=LEVELS,
    asks=LEVELS,
)
def test_partial_book_comes_back_as_it_was_written(
    depth: int, ids: list[int], bids: list[Any], asks: list[Any]
) -> None:
    previous, first, last = ids
    texts = [[[price[1], qty[1]] for price, qty in side] for side in (bids, asks)]
    data = {"e": "depthUpdate", "E": E, "s": "BTCUSDT", "U": first, "u": last, "pu": previous}
    message = json.dumps({"stream": f"btcusdt@depth{depth}", "data": {**data, "b": texts[0], "a": texts[1]}})
    numbers = [[(price[0], qty[0]) for price, qty in side] for side in (bids, asks)]
    made = PartialBook("BTCUSDT", NS, depth, first, last, previous, *numbers)
    assert Decoder().decode(message.encode()) == made
    assert Decoder().decode(message.replace(", ", ",").replace(": ", ":").encode()) == made


@settings(max_examples=examples(200))
@given(
    side=st.sampled_from(["BUY", "SELL"]),
    numbers=st.tuples(DECIMAL, DECIMAL, DECIMAL.filter(lambda made: made[0] > 0)),
    status=st.sampled_from(["NEW", "FILLED", "PARTIALLY_FILLED", "EXPIRED"]),
)
def test_liquidation_comes_back_as_it_was_written(side: str, numbers: Any, status: str) -> None:
    (price, price_text), (average, average_text), (qty, qty_text) = numbers
    order = {"s": "X", "S": side, "q": qty_text, "p": price_text, "ap": average_text, "X": status}
    message = json.dumps({"e": "forceOrder", "E": E, "o": order}).encode()
    sign = {"BUY": 1, "SELL": -1}[side]
    assert Decoder().decode(message) == Liquidation("X", NS, sign, price, average, qty, status)


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (combined(b'{"e":"kline"}', "kline_1m"), "kline"),
        (combined(b'{"lastUpdateId":160,"bids":[["1.5","2"]],"asks":[]}', "depth20@100ms"), "depth20"),
        (b'{"stream":"!ticker@arr","data":[{"e":"24hrTicker"}]}', "ticker"),
        (b'[{"e":"24hrMiniTicker","s":"BTCUSDT"},{"e":"24hrMiniTicker"}]', "24hrMiniTicker"),
        (b'{"e":"EquityUpdate","E":1,"S":"OVERNIGHT"}', "EquityUpdate"),
        (combined(DEPTH, "rpiDepth@500ms"), "rpiDepth"),
        (b'{"e":"kline","E":1}', "kline"),
        (b'{"result":null,"id":1}', "reply"),
        (b'{"result":["btcusdt@trade"],"id":"a-b"}', "reply"),
        (b'{"code":2,"msg":"Invalid request"}', "venue_error"),
    ],
)
def test_message_without_rows_is_ignored_by_kind(message: bytes, kind: str) -> None:
    assert Decoder().decode(message) == Ignored(kind)


@pytest.mark.parametrize(
    ("message", "what", "where"),
    [
        (b"", "not JSON", None),
        (b"{", "not JSON", None),
        (b'{"stream":"btcusdt@trade","data":{"e":"tra', "not JSON", None),
        (b'{"stream":"\xff\xfe@trade","data":{}}', "not JSON", None),
        (b"[" * 100_000, "wrong type", "$[0]"),
        (b'{"e":' + b'{"a":' * 100_000, "wrong type", "$.e"),
        (b'{"x":' + b"[" * 100_000, "not JSON", None),
        (b"{}", "unknown shape", None),
        (combined(TRADE, "trrde"), "stream of an unknown kind", "stream"),
        (TRADE.replace(b'"trade"', b'"trrde"'), "event of an unknown kind", "e"),
        (TRADE.replace(b"MARKET", b"MARKeT"), "trade of an unknown kind", "X"),
        (combined(TICKER, "trade"), "field missing or of the wrong type", "$.data.e"),
        (combined(TRADE, "trade", "ethusdt"), "symbol differs from the stream's", "s"),
        (TRADE.replace(b'"t":8', b'"t":"8"'), "wrong type", "$.t"),
        (TRADE.replace(b'"t":8', b'"t":99999999999999999999'), "wrong type", "$.t"),
        (TRADE.replace(b'"q":"1"', b'"q":"0"'), "must be positive", "q"),
        (TRADE.replace(b'"64000.10"', b'"64000.1x"'), "not a decimal number", "p"),
        (TRADE.replace(b'"64000.10"', b'"640001234567890.10"'), "does not fit", "p"),
        (TICKER.replace(b'"A":"3"', b'"A":"-3"'), "must not be negative", "A"),
        (DEPTH.replace(b'"1.4"', b'"0"'), "must be positive", "b"),
        (DEPTH.replace(b'"U":5', b'"U":8'), "ids are not in order", "U, u, pu"),
        (DEPTH.replace(b'"pu":3', b'"pu":7'), "ids are not in order", "U, u, pu"),
        (combined(b'{"e":"forceOrder"}', "forceOrder"), "field missing or of the wrong type", "$.data"),
        (FORCED.replace(b'"SELL"', b'"SOLD"'), "field missing or of the wrong type", "$.o.S"),
        (FORCED.replace(b'"q":"0.014"', b'"q":"0"'), "must be positive", "q"),
        (FORCED.replace(b'"ap":"9905.5"', b'"ap":"x"'), "not a decimal number", "ap"),
        (combined(FORCED, "forceOrder", "ethusdt"), "symbol differs from the stream's", "s"),
        (combined(DEPTH, "depth20", "ethusdt"), "symbol differs from the stream's", "s"),
        (combined(DEPTH.replace(b'"u":7', b'"u":4'), "depth5"), "ids are not in order", "U, u, pu"),
        (combined(DEPTH.replace(b'"b":', b'"B":'), "depth10@500ms"), "field missing", "$"),
        (b'[{"e":"markPriceUpdate"},{"e":"forceOrder"}]', "field missing", "$[0]"),
        (b'[{"e":"trade"}]', "event of an unknown kind", "$[0].e"),
        (TRADE[:-1] + b',"st":"1"}', "wrong type", "$.st"),
        (MARK.replace(b"-0.0001", b"-0.000000001"), "eight decimal places", "r"),
        (TRADE.replace(str(E).encode(), b"17"), "between 2009 and 2100", None),
    ],
)
def test_damage_is_refused_and_named(message: bytes, what: str, where: str | None) -> None:
    with pytest.raises(DecodeError, match=what) as caught:
        Decoder().decode(message)
    assert caught.value.where == where


def test_random_damage_raises_nothing_else(rng: Any) -> None:
    chance = random.Random(int(rng.integers(1 << 30)))
    messages = [combined(message, stream) for message, stream, _ in EXPECTED]
    messages += [message for message, _, _ in EXPECTED] + [SNAPSHOT, MARK]
    messages += [combined(DEPTH, "depth20@100ms"), b"[%s,%s]" % (MARK, MARK)]
    decoder, refused = Decoder(), 0
    for _ in range(4_000):
        message = bytearray(chance.choice(messages))
        for _ in range(chance.randint(1, 3)):
            message[chance.randrange(len(message))] = chance.randrange(256)
        try:
            decoder.decode(bytes(message[: chance.randint(1, 2 * len(message))]))
        except DecodeError:
            refused += 1
    assert refused > 2_000


def test_official_samples_decode(recordings: Path) -> None:
    samples = json.loads((recordings / "rest" / "usdm_samples.json").read_text())
    streams = samples["public_api_ws_streams"] | samples["market_api_ws_streams"]
    # The documentation leaves the quantities out of its partial book.
    partial = streams.pop("partial_book_depth_streams")
    seen: set[str] = set()
    decoder = Decoder()
    for sample in _objects(streams):
        # The samples' times are of 1970; the decoder refuses those, so they are moved to the present.
        if sample.get("e") in ("aggTrade", "bookTicker", "depthUpdate", "markPriceUpdate", "forceOrder"):
            times = {"E": E, "T": E} if sample["e"] == "markPriceUpdate" else {"E": E}
            made = decoder.decode(json.dumps({**sample, **times}).encode())
            assert not isinstance(made, Ignored)
            seen.add(sample["e"])
    assert seen == {"aggTrade", "bookTicker", "depthUpdate", "markPriceUpdate", "forceOrder"}
    whole = {**partial, "b": [[*level, "2"] for level in partial["b"]], "a": [[partial["a"][0][0], "0.5"]]}
    made = decoder.decode(combined(json.dumps(whole).encode(), "depth5"))
    sides = [(740_389_000_000, 2 * 10**8)], [(740_596_000_000, 50_000_000)]
    ids = 390_497_796, 390_497_878, 390_497_794
    assert made == PartialBook("BTCUSDT", 1_571_889_248_277_000_000, 5, *ids, *sides)


def test_official_samples_of_arrays_are_taken_or_known(recordings: Path) -> None:
    samples = json.loads((recordings / "rest" / "usdm_samples.json").read_text())["market_api_ws_streams"]
    arrays = {name: value for name, value in samples.items() if isinstance(value, list)}
    made = {name: Decoder().decode(json.dumps(value).encode()) for name, value in arrays.items()}
    marks = made.pop("mark_price_stream_for_all_market")
    assert isinstance(marks, Batch)
    assert isinstance(marks.messages[0], MarkPrice)
    assert {each.kind for each in made.values() if isinstance(each, Ignored)} == {
        *("24hrMiniTicker", "24hrTicker", "assetIndexUpdate")
    }
    assert len(made) == 3


def _objects(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value] + [each for item in value.values() for each in _objects(item)]
    if isinstance(value, list):
        return [each for item in value for each in _objects(item)]
    return []
