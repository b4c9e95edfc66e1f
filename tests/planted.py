"""Secrets that are planted where a user may give one, and the search for them in what comes out.

Every secret has a word of its own in it that nothing else has; a search for these words does not depend on
how a secret is recognised.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from gpuscalp import zstd
from gpuscalp.journal import read_records

# By the variable that holds it. The words in capitals are what is searched for.
ENVIRONMENT = {
    "BINANCE_API_KEY": "k1OSTRICHk1k1k1k1k1k1k1k1k1k1k1k1",
    "BINANCE_API_SECRET": "k2PELICANk2k2/+==k2k2",
    "BINANCE_FUTURES_TESTNET_API_KEY": "k3HERON&<k3k3k3k3",
    "GPUSCALP_LOCAL_API_SECRET": 'k4"BITTERN\\k4k4k4',
    "HTTPS_PROXY": "http://joe:k5CORMORANTk5@127.0.0.1:1",
    "TELEGRAM_TOKEN": "123456789:AAk6LAPWINGk6k6k6k6k6k6k6k6k6k6k6",
    "ALERT_WEBHOOK_URL": "https://hooks.slack.com/services/T1/B1/k7AVOCETk7k7",
    "SMTP_PASSWORD": "k8DUNLINk8",
}
# Recognised by where they stand alone: no variable holds them.
BY_PLACE = {
    "userinfo": "wss://user:WHIMBREL@stream.example/private",
    "signature": "https://fapi.binance.com/fapi/v1/order?symbol=BTCUSDT&signature=SANDERLING01&timestamp=1",
    "listen key in a query": "wss://fstream.binance.com/private?listenKey=GODWIT22",
    "listen key in a path": "wss://fstream.binance.com/private/ws/" + "TURNSTONE" * 7,
    "header": "X-MBX-APIKEY: REDSHANK33",
    "bearer": "Authorization: Bearer CURLEW44",
    "json": '{"listenKey":"OYSTERCATCHER","other":1}',
    "json in a string": '"{\\"apiKey\\": \\"DOTTEREL55\\"}"',
    "telegram": "https://api.telegram.org/bot987654321:AAKNOTKNOTKNOTKNOTKNOTKNOTKNOTKNOT/sendMessage",
    "discord": "https://discord.com/api/webhooks/123/PRATINCOLE",
    "slack's token": "xoxb-1234-STINT5678",
    "apprise": "tgram://55:PHALAROPE/chat",
    "mail": "mailto://someone:RUFFRUFF@mail.example",
}
WORDS = (
    *("OSTRICH", "PELICAN", "HERON", "BITTERN", "CORMORANT", "LAPWING", "AVOCET", "DUNLIN", "WHIMBREL"),
    *("SANDERLING", "GODWIT", "TURNSTONE", "REDSHANK", "CURLEW", "OYSTERCATCHER", "DOTTEREL", "KNOTKNOT"),
    *("PRATINCOLE", "STINT5678", "PHALAROPE", "RUFFRUFF"),
)
EVERYTHING = " | ".join((*ENVIRONMENT.values(), *BY_PLACE.values()))


def words_in(data: bytes | str) -> list[str]:
    """Return the words of planted secrets that something holds, whatever the case of their letters."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    return [word for word in WORDS if word.lower() in text.lower()]


def files_with_words(folder: Path) -> dict[str, list[str]]:
    """Return the files that hold a planted secret, with what they hold; packed ones are unpacked."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            held = sorted({word for data in _contents(path) for word in words_in(data)})
            if held:
                found[str(path.relative_to(folder))] = held
    return found


def _contents(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield data
    if path.suffix == ".gsj":
        yield b"\n".join(record.body for record in read_records(path, torn=True))
    elif path.suffix == ".ckpt":
        yield zstd.unpack(data[40:], zstd.size_in(data[40:]))
    elif path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as database:
            yield "\n".join(database.iterdump()).encode()
