"""Messages of Binance as literal bytes, one line a case; the official samples; and damage."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.errors import DecodeError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.messages import (
    Batch,
    DepthSnapshot,
    DepthUpdate,
    Ignored,
    MarkPrice,
    Message,
    Ticker,
    Trade,
)

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


def test_all_symbols_book_ticker_is_taken() -> None:
    assert Decoder().decode(b'{"stream":"!bookTicker","data":%s}' % TICKER) == EXPECTED[3][2]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (combined(b'{"e":"kline"}', "kline_1m"), "kline"),
        (combined(b'{"e":"forceOrder"}', "forceOrder"), "forceOrder"),
        (combined(DEPTH, "depth20@100ms"), "depth20"),
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
    # The documentation leaves the quantities out of its partial book, which is not taken anyway.
    streams = {name: value for name, value in streams.items() if not name.startswith("partial")}
    seen: set[str] = set()
    decoder = Decoder()
    for sample in _objects(streams):
        # The samples' times are of 1970; the decoder refuses those, so they are moved to the present.
        if sample.get("e") in ("aggTrade", "bookTicker", "depthUpdate", "markPriceUpdate"):
            times = {"E": E, "T": E} if sample["e"] == "markPriceUpdate" else {"E": E}
            decoder.decode(json.dumps({**sample, **times}).encode())
            seen.add(sample["e"])
    assert seen == {"aggTrade", "bookTicker", "depthUpdate", "markPriceUpdate"}


def _objects(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value] + [each for item in value.values() for each in _objects(item)]
    if isinstance(value, list):
        return [each for item in value for each in _objects(item)]
    return []
