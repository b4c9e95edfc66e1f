"""From a socket to closed frames: messages a second on one core, and that none is lost.

A second process sends the messages over a WebSocket on loopback as fast as they are taken; this one, on one
core, receives, writes the journal, decodes, merges, follows the books, packs ticks, batches and folds frames.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import structs

from gpuscalp.batcher import Batcher
from gpuscalp.bench.flow import Flow
from gpuscalp.bench.sender import text_frame
from gpuscalp.bench.timing import on_one_core, step_by_step
from gpuscalp.config import BatchConfig, FeedConfig, GridConfig, JournalConfig
from gpuscalp.errors import UsageError
from gpuscalp.feeds.binance import Decoder
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.messages import DepthSnapshot, DepthUpdate, Message, Ticker
from gpuscalp.feeds.socket import open_socket
from gpuscalp.frames import Framer, Grid
from gpuscalp.journal import JournalWriter, RecordKind
from gpuscalp.progress import Progress, silent
from gpuscalp.redaction import without_secrets
from gpuscalp.schema import E8, NS_PER_MS, Instrument

START_MS: Final = 1_700_000_000_000
_PER_MS: Final = 20  # messages of the made-up market in one millisecond of its time
_STOP: Final = b"stop"
# Run by the second process: accept a client, send the file of frames that was made before, once.
_SENDER: Final = """
import asyncio, pathlib, sys
from websockets.asyncio.server import serve
data = pathlib.Path(sys.argv[1]).read_bytes()
async def handle(client):
    await client.recv()
    for at in range(0, len(data), 262144):
        client.transport.write(data[at : at + 262144])
        while client.transport.get_write_buffer_size() > 1 << 20:
            await asyncio.sleep(0.0005)
    await client.wait_closed()
async def main():
    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()
asyncio.run(main())
"""


def run(
    messages: int = 400_000,
    symbols: int = 20,
    recording: Path | None = None,
    *,
    connections: int = 1,
    rounds: int = 3,
    told: Progress = silent,
) -> dict[str, Any]:
    """Measure some rounds after a warm-up on a part of the messages, and return the median one.

    Parameters
    ----------
    messages : how many are sent
    symbols : of the made-up market
    recording : combined stream ``<receive time> <json>`` of one symbol, plain or gzip, whose messages and
        their mix are used instead, from its beginning; a short one is sent as far as it goes. The book starts
        whole: with the recording's own snapshot, or empty before the first update where it has none
    connections : redundant ones, of which each brings all messages
    rounds : a short recording is over in the twentieth of a second
    told : how far it is, before each round

    Returns
    -------
    dict with ``messages_per_s`` (received on all connections, by the wall clock, from the request to the last
    closed frame), ``core_messages_per_s`` (by the processor time that this process used, which is what a core
    of one's own would give; the median is by it), ``lost`` (sent and not accounted for, in all rounds),
    ``unsynced`` (books that are not whole at the end), and the counts behind them

    Raises
    ------
    UsageError    the recording cannot be read
    """
    begin = step_by_step(told, 2 + rounds)
    begin("making the messages" if recording is None else "reading the recording")
    if recording is None:
        bodies, names, snapshots, tick_e8 = _made_up(messages, symbols)
    else:
        bodies, names, snapshots, tick_e8 = _recorded(recording, messages)
    instruments = [Instrument(name, "bench", tick_e8, 1, 1, 1, "observed") for name in names]
    begin("warming up")
    _feed(bodies[: min(len(bodies), 20_000)], instruments, snapshots, connections)
    answers = []
    for number in range(rounds):
        begin(f"round {number + 1}")
        answers.append(_feed(bodies, instruments, snapshots, connections))
    answers.sort(key=lambda answer: answer["core_messages_per_s"])
    return {
        **answers[rounds // 2],
        "rounds": rounds,
        "lost": sum(answer["lost"] for answer in answers),
    }


def _feed(
    bodies: list[bytes], instruments: list[Instrument], snapshots: list[DepthSnapshot], connections: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        frames = Path(folder) / "frames"
        frames.write_bytes(b"".join(map(text_frame, [*bodies, _STOP])))
        sender = subprocess.Popen(
            [sys.executable, "-c", _SENDER, str(frames)],
            stdout=subprocess.PIPE,
            env=without_secrets(os.environ),
        )
        try:
            assert sender.stdout is not None
            port = int(sender.stdout.readline())
            with on_one_core():
                chain = _Chain(instruments, Path(folder) / "journal", snapshots)
                return asyncio.run(chain.receive(f"ws://127.0.0.1:{port}", len(bodies), connections))
        finally:
            sender.kill()
            sender.wait()
            assert sender.stdout is not None
            sender.stdout.close()


class _Chain:
    """Everything between the socket and the closed frame, as ``live`` puts it together."""

    def __init__(self, instruments: list[Instrument], journal: Path, snapshots: list[DepthSnapshot]) -> None:
        grid = GridConfig()
        self._ingest = Ingest(instruments, FeedConfig())
        for snapshot in snapshots:
            self._ingest.on_snapshot(snapshot.exch_ns, snapshot)
        self._journal = JournalWriter(journal, JournalConfig(), now_ns=time.time_ns())
        self._batcher = Batcher(
            BatchConfig(conflate_above=1 << 20),
            frame_ns=grid.frame_ms * NS_PER_MS,
            lateness_ns=grid.lateness_ms * NS_PER_MS,
        )
        self._grid = Grid(grid, len(instruments))
        self._framer = Framer(grid, instruments, warm_up_frames=1)
        self._received = self._ticks = self._frames = 0
        self._open = 0
        self._stopped = asyncio.Event()

    async def receive(self, url: str, sent: int, connections: int) -> dict[str, Any]:
        sinks = [partial(self._on_messages, number) for number in range(connections)]
        sockets = [await open_socket(url, FeedConfig(), sink=sink, clock=time.time_ns) for sink in sinks]
        self._open, sent = connections, sent * connections
        for socket in sockets:
            await socket.send("go")
        started, used = time.perf_counter(), time.process_time()
        await self._stopped.wait()
        self._engine(force=True)
        self._journal.sync()
        seconds, core_seconds = time.perf_counter() - started, time.process_time() - used
        for socket in sockets:
            await socket.close()
        written = self._journal.next_seq
        self._journal.close(now_ns=time.time_ns())
        account = self._ingest.account()
        set_aside = sum(self._ingest.fates.values()) - account["taken"]
        known = (
            account["taken"] + set_aside + account["rejects"] + sum(self._ingest.merge.duplicates.values())
        )
        return {
            "messages_per_s": round(sent / seconds),
            "lost": sent - min(known, written, self._received),
            "core_messages_per_s": round(sent / core_seconds),
            "messages": sent,
            "connections": connections,
            "unsynced": len(self._ingest.unsynced()),
            "ticks": self._ticks,
            "frames": self._frames,
            "journal_bytes": self._journal.written_bytes,
            "seconds": round(seconds, 3),
            **{key: account[key] for key in ("rejects", "gaps", "off_tick", "late")},
            "late_ticks": self._grid.late_count,
        }

    def _on_messages(self, number: int, recv_ns: int, messages: list[bytes]) -> None:
        if messages and messages[-1] == _STOP:
            messages.pop()
            self._open -= 1
            if not self._open:
                self._stopped.set()
        self._received += len(messages)
        self._journal.append_batch(RecordKind.RAW, messages, recv_ns=recv_ns, connection=number)
        self._ingest.on_messages(number, recv_ns, messages)
        self._batcher.push(self._ingest.take(), recv_ns)
        self._engine()

    def _engine(self, *, force: bool = False) -> None:
        batch = self._batcher.take(time.time_ns(), force=force)
        if batch is None:
            return
        self._journal.flush()
        self._ticks += len(batch)
        for closed in self._grid.push(batch):
            if closed.restart:
                self._framer.restart()
            self._frames += len(self._framer.fold(closed))


def _made_up(count: int, symbols: int) -> tuple[list[bytes], list[str], list[DepthSnapshot], int]:
    """Return messages of the made-up market, its symbols, their books before the first message, and the tick
    size."""
    flow, decoder = Flow(symbols, _PER_MS * 1_000), Decoder()
    snapshots = [
        _named(name, decoder.decode(flow.snapshot(index, 1_000, START_MS)))
        for index, name in enumerate(flow.names)
    ]
    bodies = [
        body
        for first in range(0, count, _PER_MS)
        for _, body in flow.draw(min(_PER_MS, count - first), START_MS + first // _PER_MS)
    ]
    return bodies, list(flow.names), snapshots, E8 // 10


def _recorded(path: Path, most: int) -> tuple[list[bytes], list[str], list[DepthSnapshot], int]:
    """Return messages, symbol, its first book snapshot (or an empty book before the first update), and the
    tick size."""
    decoder = Decoder()
    bodies: list[bytes] = []
    snapshots: list[Message] = []
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                body = line.rstrip().partition(b" ")[2]
                if body.startswith(b'{"stream"'):
                    bodies.append(body)
                elif body.startswith(b'{"lastUpdateId"') and not snapshots:
                    snapshots.append(decoder.decode(body))
                if len(bodies) == most:
                    break
    except OSError as error:
        raise UsageError("the recording cannot be read", where=str(path), value=str(error)) from None
    if not bodies:
        raise UsageError("no messages of a combined stream in the recording", where=str(path))
    name = bodies[0][11 : bodies[0].find(b"@")].decode().upper()
    if not snapshots:
        update = next((decoder.decode(body) for body in bodies if b"@depth" in body[:60]), None)
        if isinstance(update, DepthUpdate):
            snapshots = [DepthSnapshot(name, update.exch_ns, update.previous_id, [], [])]
    own = [_named(name, each) for each in snapshots]
    tickers = [body for body in bodies[:5_000] if b"@bookTicker" in body[:60]]
    quotes = [quote for quote in map(decoder.decode, tickers) if isinstance(quote, Ticker)]
    prices = [price for each in own for price, _ in (*each.bids, *each.asks)]
    prices += [price for quote in quotes for price in (quote.bid_price_e8, quote.ask_price_e8)]
    return bodies, [name], own, int(np.gcd.reduce(np.array(prices or [1], np.int64)))


def _named(name: str, message: Message) -> DepthSnapshot:
    """Return a snapshot with the symbol that the reply does not tell."""
    assert isinstance(message, DepthSnapshot)
    return structs.replace(message, symbol=name)
