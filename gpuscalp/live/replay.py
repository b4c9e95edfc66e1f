"""A recording, or the messages of another session, through the whole live path: a session without a venue.

Owns: messages from files instead of sockets, and time that is the market's. The same session, journal, state
and recovery as live: a replay that was killed goes on where its journal ends, and ends with the same bits as
one that was not.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gpuscalp.archive.instruments import read_exchange_info
from gpuscalp.archive.recording import RecordingReader, is_recording, only_symbol, venue_of
from gpuscalp.archive.source import head_of, lines_of
from gpuscalp.bundle import read_contract
from gpuscalp.config import LiveConfig
from gpuscalp.device import RequestedDevice
from gpuscalp.errors import ConfigError, DecodeError, UsageError
from gpuscalp.execution.latency import median_ns
from gpuscalp.feeds.messages import DepthSnapshot
from gpuscalp.feeds.rest import RestReply
from gpuscalp.journal import RecordKind, read_records
from gpuscalp.live.control import OWN_MARKET
from gpuscalp.live.directory import SESSION_FILE, SessionFile, create, read_about
from gpuscalp.live.market import Work
from gpuscalp.live.models import FOLDER as MODELS
from gpuscalp.live.records import HealthRecord, ModelRecord, decode
from gpuscalp.live.session import Session
from gpuscalp.live.status import account_of
from gpuscalp.live.workers import look_for_gpus, predicting
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import NS_PER_S, Instrument

# A replay knows its clock: it is the market's.
_HEALTH: Final = HealthRecord(0.0, drifted=False)
_TOLD: Final = 2_000


@dataclass(frozen=True, slots=True)
class _Input:
    """One message of a socket, one reply of a REST call, or one change of models and where the bundle is."""

    recv_ns: int
    body: bytes = b""
    snapshot: DepthSnapshot | None = None
    model: ModelRecord | None = None
    bundle: Path = Path()


def run_replay(
    sources: Sequence[Path],
    path: Path,
    *,
    model: Path | None = None,
    config: LiveConfig | None = None,
    exchange_info: Path | None = None,
    device: RequestedDevice = "auto",
    speed: float | None = None,
    told: Progress = silent,
    on_step: Callable[[Session], None] | None = None,
) -> dict[str, Any]:
    """Replay recordings, or the messages of a session, into a session of its own.

    Parameters
    ----------
    sources : raw recordings (docs/data.md), or one directory of a session
    path : the session to make; one that a killed replay has left is gone on with
    model : bundle; None takes that of the session that is replayed, with its changes, or of the one gone on
        with
    config : None takes the same
    exchange_info : answer of the venue that names the instruments of recordings
    speed : factor of the recording's own pace; None = as fast as it goes
    told : told how much has been replayed
    on_step : told the session before the first step of the engine and after each; tests look on

    Raises
    ------
    UsageError      the sources cannot be replayed, or no model was named
    ConfigError     instruments of the model's symbols are not known
    """
    began = time.perf_counter()
    origin = sources[0] if len(sources) == 1 and (sources[0] / SESSION_FILE).is_file() else None
    if not (path / SESSION_FILE).exists():
        about = None if origin is None else read_about(origin)
        bundle = model or (None if origin is None else origin / "bundle")
        if bundle is None:
            raise UsageError("a replay needs a model", where="--model", fix="gpuscalp train makes one")
        chosen = config or (LiveConfig() if about is None else about.config)
        create(
            path,
            chosen,
            bundle,
            _instruments(bundle, chosen, about, exchange_info),
            now_ns=time.time_ns(),
            device="cpu" if device == "cpu" else look_for_gpus(device)["device"],
            market=OWN_MARKET if about is None else about.market,
        )
    wanted = {each.symbol for each in read_about(path).instruments}
    if origin is None:
        inputs = _recorded_inputs(sources, wanted)
    else:
        inputs = _session_inputs(origin, changes=read_about(path).bundle == read_about(origin).bundle)
    latency_ns = median_ns(read_about(path).config.cost.compute)

    def clock_of(work: Work) -> Callable[[], int]:
        return lambda: work.now_ns + latency_ns

    session = Session(path, now_ns=time.time_ns(), clock_of=clock_of)
    clean = False
    try:
        session.on_health(_HEALTH, session.market.exch_ns)
        skipped = session.market.input_count
        with predicting(session, session.about.config.engine):
            left = _left(inputs, skipped, session.market.model_count)
            taken = _play(session, left, clock_of, _Pace(speed), told, on_step)
        _checkpoint(session)
        clean = True
    finally:
        answer = account_of(session)
        session.close(now_ns=time.time_ns(), clean=clean)
    return answer | {"messages": taken, "skipped": skipped, "seconds": time.perf_counter() - began}


def _play(
    session: Session,
    inputs: Iterable[_Input],
    clock_of: Callable[[Work], Callable[[], int]],
    pace: _Pace,
    told: Progress,
    on_step: Callable[[Session], None] | None,
) -> int:
    """Let the session live through messages; return how many."""
    every_s = session.about.config.session.checkpoint_s
    checkpoint_s = time.monotonic() + every_s
    taken = 0
    # A process that was killed may have done a step and not what was to follow upon it.
    if on_step is not None:
        on_step(session)
    # And it may have written messages that the engine had not been given.
    _step(session, clock_of, session.market.last_recv_ns, on_step)
    for each in inputs:
        taken += each.model is None
        pace.wait(each.recv_ns)
        _take(session, each)
        _step(session, clock_of, each.recv_ns, on_step)
        if time.monotonic() >= checkpoint_s:
            _checkpoint(session)
            checkpoint_s = time.monotonic() + every_s
        if taken % _TOLD == 0:
            told(taken, None, f"{session.engine.frame_count:,} frames")
    _step(session, clock_of, session.market.last_recv_ns, on_step, force=True)
    return taken


def _left(inputs: Iterable[_Input], messages: int, models: int) -> Iterator[_Input]:
    """Yield the inputs after so many messages and so many changes of models, which a session has had."""
    for each in inputs:
        if each.model is None:
            messages -= 1
        else:
            models -= 1
        if (messages if each.model is None else models) < 0:
            yield each


def _take(session: Session, each: _Input) -> None:
    if each.model is not None:
        if each.model.bundle:
            session.models.add(each.bundle, now_ns=time.time_ns())
        session.on_model(each.model, each.recv_ns)
    elif each.snapshot is None:
        session.on_messages(0, each.recv_ns, [each.body])
    else:
        request = f"GET replay:///fapi/v1/depth?symbol={each.snapshot.symbol}"
        session.on_snapshot(RestReply(request, each.recv_ns, each.recv_ns, each.body), each.snapshot)


def _step(
    session: Session,
    clock_of: Callable[[Work], Callable[[], int]],
    now_ns: int,
    on_step: Callable[[Session], None] | None,
    *,
    force: bool = False,
) -> None:
    """Let the engine work, if a batch is due. Time is that of the newest message."""
    work = session.take(session.market.exch_ns, now_ns, force=force)
    if work is None:
        return
    session.apply(session.engine.step(work, clock_of(work)), now_ns)
    session.flush()
    session.engine.predict_whole()
    if on_step is not None:
        on_step(session)


def _checkpoint(session: Session) -> None:
    content, seq = session.checkpoint()
    session.journal.sync()
    name, digest = session.checkpoints.write(content, seq)
    session.note_checkpoint(name, digest, session.market.last_recv_ns)


class _Pace:
    """Waits until a message's time has come."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._began: tuple[int, int] | None = None

    def wait(self, recv_ns: int) -> None:
        if self._speed is None:
            return
        now_ns = time.monotonic_ns()
        if self._began is None:
            self._began = (recv_ns, now_ns)
        first_ns, began_ns = self._began
        ahead_ns = (recv_ns - first_ns) / self._speed - (now_ns - began_ns)
        if ahead_ns > 0:
            time.sleep(ahead_ns / NS_PER_S)


def _recorded_inputs(sources: Sequence[Path], wanted: set[str]) -> Iterator[_Input]:
    """Yield what recordings hold, in the order of receive times; files of one symbol follow one another."""
    return heapq.merge(*(_file(path, wanted) for path in sources), key=lambda each: each.recv_ns)


def _file(path: Path, wanted: set[str]) -> Iterator[_Input]:
    head = head_of(path)
    if not is_recording(head) or venue_of(head) != "binance_usdm":
        raise UsageError(
            "not a raw recording of USD-M futures",
            where=str(path),
            fix="docs/data.md has the forms; an archive can be served by `gpuscalp exchange --archive`",
        )
    reader = RecordingReader(only_symbol(path))
    for number, line in enumerate(lines_of(path), 1):
        if not line:
            continue
        try:
            record = reader.read(line, number)
        except DecodeError as error:
            raise DecodeError(error.what, where=f"{path}, line {number}", value=error.value) from None
        if record is None:
            continue
        recv_ns, _, found = record
        if isinstance(found, bytes):
            yield _Input(recv_ns, found)
        elif isinstance(found, DepthSnapshot) and found.symbol in wanted:
            yield _Input(recv_ns, line[line.index(b"{") :], found)


def _session_inputs(path: Path, *, changes: bool) -> Iterator[_Input]:
    """Yield the messages and book snapshots of a session's journal, of all its connections, and with
    ``changes`` those of its models."""
    from gpuscalp.feeds.binance import Decoder

    decoder, begun_with = Decoder(), read_about(path).bundle
    for record in read_records(path / "journal", torn=True):
        if record.kind == RecordKind.RAW:
            yield _Input(record.recv_ns, record.body)
        elif record.kind == RecordKind.MODEL and changes:
            change = decode(record, ModelRecord)
            bundle = "bundle" if change.bundle == begun_with else f"{MODELS}/{change.bundle}"
            yield _Input(record.recv_ns, model=change, bundle=path / bundle)
        elif record.kind == RecordKind.REST:
            request, _, reply = record.body.partition(b"\n")
            found = decoder.decode(reply) if b"/depth?" in request else None
            if isinstance(found, DepthSnapshot):
                symbol = request.partition(b"symbol=")[2].partition(b"&")[0].decode()
                named = DepthSnapshot(symbol, found.exch_ns, found.last_id, found.bids, found.asks)
                yield _Input(record.recv_ns, reply, named)


def _instruments(
    bundle: Path, config: LiveConfig, about: SessionFile | None, exchange_info: Path | None
) -> list[Instrument]:
    """Return the instruments of a model's symbols, in the model's order."""
    known: dict[str, Instrument] = {}
    if exchange_info is not None:
        known = read_exchange_info(exchange_info, config.venue)
    elif about is not None:
        known = {each.symbol: each for each in about.instruments}
    symbols: Iterable[str] = read_contract(bundle).training.symbols
    missing = [symbol for symbol in symbols if symbol not in known]
    if missing:
        raise ConfigError(
            "instruments are not known: tick and step sizes",
            where="--instruments",
            value=", ".join(missing),
            fix="name an answer of the venue's exchangeInfo that lists them",
        )
    return [known[symbol] for symbol in symbols]
