"""What a session measured about time, as assumptions for a backtest.

Owns: which times of a journal were measured and which were simulated, and the fit. Never: fits what a model
of ours has drawn, or guesses what nobody has measured. The session is only read.

compute   receipt of the message that closed a frame → its orders are written. A replay has neither sockets
          nor a loop: there only the engine's own stages are known.
feed      the event at the exchange → receipt, by the session's estimate of the exchange's clock. A replay has
          no such estimate.
request   order sent → accepted, and
reply     report at the exchange → known here: of a broker that is not the paper broker. The paper broker's
          replies are drawn from a seed: they are drawn once more, and if every report was known exactly
          when the draws say, there is nothing to learn from them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, final

import msgspec
from msgspec import Struct

from gpuscalp import __version__
from gpuscalp.bundle import read_contract
from gpuscalp.errors import UsageError
from gpuscalp.execution.latency import legs
from gpuscalp.execution.messages import ReportKind
from gpuscalp.feeds.ingest import Ingest
from gpuscalp.feeds.recorder import ConnectionNote, replay
from gpuscalp.journal import Record, RecordKind, read_records
from gpuscalp.live.directory import SessionFile, read_about
from gpuscalp.live.durations import MIN_SAMPLES, QUANTILES, Durations, Fit, fit
from gpuscalp.live.records import (
    BatchRecord,
    ClockRecord,
    FillRecord,
    HealthRecord,
    OrderRecord,
    SignalRecord,
    decode,
)
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import NS_PER_MS, TickKind, Ticks

_TOLD: Final = 100_000


class Calibration(Struct, frozen=True):
    """What a session knows. Where a fit is None ``notes`` says why.

    Attributes
    ----------
    live : messages came from sockets; else it is a replay
    compute, feed, request, reply : see the module
    stages : features, prediction and decision of each frame, summed: a part of ``compute``
    reports, resting : reports of the broker, and those of orders that had rested
    simulated : whether all reports come out of the paper broker's seed
    notes : what is not known, and why
    """

    session: str
    session_id: str
    live: bool
    compute: Fit
    stages: Fit
    feed: Fit | None
    request: Fit | None
    reply: Fit | None
    reports: int
    resting: int
    simulated: bool
    notes: tuple[str, ...]


def calibrate(path: Path, *, out: Path | None = None, told: Progress = silent) -> dict[str, Any]:
    """Fit the latencies of a session.

    Parameters
    ----------
    path : directory of the session, which need not have ended
    out : new file for the fragment of configuration; None writes none
    told : told how many records have been read

    Returns
    -------
    the fields of Calibration · ``toml``, which ``gpuscalp backtest --config`` takes · ``out``

    Raises
    ------
    UsageError      there is no session, or ``out`` is taken
    DataError       too few frames, or messages, for a fit
    JournalError    a byte of the journal was altered, or a part is missing
    """
    if out is not None and out.exists():
        raise UsageError("the file is there already", where=str(out), fix="give another one with --out")
    about = read_about(path)
    measured = _Measured(path, about)
    for count, (record, ticks) in enumerate(replay(measured.watched(path), measured.ingest)):
        measured.take(record, ticks)
        if not count % _TOLD:
            told(count, None, f"{measured.stages.count:,} frames")
    found = _judge(path, about, measured)
    text = fragment(found, __version__)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    return {**msgspec.to_builtins(found), "toml": text, "out": None if out is None else str(out)}


def _judge(path: Path, about: SessionFile, measured: _Measured) -> Calibration:
    notes = []
    compute = measured.compute if measured.live else measured.stages
    fits: dict[str, Fit | None] = {}
    if not measured.live:
        notes.append(
            "A replay: messages came from a file. Compute latency is that of the engine's stages alone, "
            "without sockets, decoding and waiting; the way from the exchange to here is not known."
        )
    fits["feed"] = fit(measured.feed, "messages with a known clock") if measured.feed.count else None
    if measured.live and fits["feed"] is None:
        notes.append("The exchange's clock was never known, so neither is the way from there to here.")
    simulated = measured.report_count > 0 and not measured.foreign_count
    if simulated:
        notes.append(
            f"All {measured.report_count:,} reports come from the paper broker's own seed. They say nothing "
            "about an exchange, and nothing was fitted to them."
        )
    elif not measured.report_count:
        notes.append("No order was reported on: request and reply are not known.")
    for name, durations in (("request", measured.request), ("reply", measured.reply)):
        enough = durations.count >= MIN_SAMPLES
        fits[name] = fit(durations, name) if enough and not simulated else None
        if measured.foreign_count and not enough:
            notes.append(f"Only {durations.count} of {MIN_SAMPLES} times of a {name}: not fitted.")
    if measured.resting_count:
        notes.append(
            f"{measured.resting_count:,} reports are of orders that had rested. No queue was fitted: on "
            "paper it is the model's own, and a venue does not tell places in a queue."
        )
    else:
        notes.append("No order rested in a queue, so there is no queue to fit.")
    return Calibration(
        session=str(path),
        session_id=about.session_id,
        live=measured.live,
        compute=fit(compute, "frames"),
        stages=fit(measured.stages, "frames"),
        reports=measured.report_count,
        resting=measured.resting_count,
        simulated=simulated,
        notes=tuple(notes),
        **fits,
    )


@final
class _Measured:
    """Goes through a journal once and keeps the times."""

    def __init__(self, path: Path, about: SessionFile) -> None:
        grid = read_contract(path / "bundle").training.config.grid
        config = about.config
        self.ingest = Ingest(
            about.instruments,
            config.feed,
            book_interval_ns=config.session.book_interval_ms * NS_PER_MS,
        )
        self.live = False
        self.compute, self.stages = Durations(), Durations()
        self.feed, self.request, self.reply = Durations(), Durations(), Durations()
        self.report_count = self.foreign_count = self.resting_count = 0
        self._frame_ns, self._lateness_ns = grid.frame_ms * NS_PER_MS, grid.lateness_ms * NS_PER_MS
        self._frame = self._newest_ns = self._closed_ns = self._given_ns = 0
        self._clock_known = False
        self._offset_ns: int | None = None
        self._sent_ns: dict[int, int] = {}
        self._back, self._known_ns = legs(config.paper.request, config.paper.reply, config.paper.seed)[1], -1

    def watched(self, path: Path) -> Iterator[Record]:
        """Yield the records of a session; see whether it had connections."""
        for record in read_records(path / "journal", torn=True):
            if record.kind == RecordKind.CONNECTION and not self.live:
                self.live = decode(record, ConnectionNote).event == "open"
            yield record

    def take(self, record: Record, ticks: Ticks) -> None:
        """Take one record, and the ticks that it made."""
        kind = record.kind
        if len(ticks):
            self._take_ticks(record, ticks)
        if kind == RecordKind.CLOCK:
            self._pass(decode(record, ClockRecord).exch_ns, record.recv_ns)
        elif kind == RecordKind.HEALTH:
            health = decode(record, HealthRecord)
            self._clock_known = health.clock_error_ms is not None and not health.drifted
        elif kind == RecordKind.BATCH:
            self._take_batch(decode(record, BatchRecord), record.recv_ns)
        elif kind == RecordKind.SIGNAL:
            self.stages.add_one(sum(decode(record, SignalRecord).stages_ns))
            if self._given_ns:  # the first frame of a batch: the others have waited for it
                self.compute.add_one(record.recv_ns - self._given_ns)
                self._given_ns = 0
        elif kind == RecordKind.ORDER:
            order = decode(record, OrderRecord)
            if not order.cancel:
                self._sent_ns[order.order_id] = order.sent_ns
        elif kind == RecordKind.FILL:
            self._take_report(decode(record, FillRecord))

    def _take_ticks(self, record: Record, ticks: Ticks) -> None:
        self._pass(int(ticks["exch_ns"].max()), record.recv_ns)
        # A snapshot of the book (REST) has no time but that of its receipt.
        if self.live and self._offset_ns is not None and record.kind != RecordKind.REST:
            told = ticks[ticks["kind"] != TickKind.CLOCK]
            self.feed.add(told["recv_ns"] - told["exch_ns"] + self._offset_ns)

    def _pass(self, exch_ns: int, recv_ns: int) -> None:
        """Note when the first frame ended that the engine has not been given."""
        self._newest_ns = max(self._newest_ns, exch_ns)
        frame = (self._newest_ns - self._lateness_ns) // self._frame_ns
        if frame > self._frame:
            self._frame = frame
            self._closed_ns = self._closed_ns or recv_ns

    def _take_batch(self, batch: BatchRecord, recv_ns: int) -> None:
        if batch.relief:
            return
        self._given_ns, self._closed_ns = self._closed_ns, 0
        # Before the first estimate the session's clock is the newest message's.
        self._offset_ns = batch.now_ns - recv_ns if self._clock_known else None

    def _take_report(self, report: FillRecord) -> None:
        self.report_count += 1
        self.resting_count += report.maker
        # As gpuscalp.execution.outbox does it: no report overtakes another.
        self._known_ns = max(self._known_ns, report.at_ns + self._back.draw_ns())
        self.foreign_count += report.known_ns != self._known_ns
        self.reply.add_one(report.known_ns - report.at_ns)
        sent_ns = self._sent_ns.pop(report.order_id, None)
        if sent_ns is not None and report.kind == ReportKind.ACCEPTED:
            self.request.add_one(report.at_ns - sent_ns)


def fragment(found: Calibration, version: str) -> str:
    """Return a calibration as TOML that ``gpuscalp backtest --config`` takes."""
    lines = [
        f"# Made by gpuscalp calibrate {version} from session {found.session_id}.",
        "# Give it to `gpuscalp backtest --config`, or copy its sections into a configuration of yours.",
        *(f"# {line}" for note in found.notes for line in textwrap.wrap(note, 110)),
        "",
        *_leg(
            "cost.compute",
            found.compute,
            "Compute latency" if found.live else "Features, prediction and decision",
        ),
        "",
        "[band]",
        "# p50, p90 and p99 of the same, and the quantiles of the legs below.",
        f"compute_ms = [{', '.join(_ms(found.compute, index) for index in range(len(QUANTILES)))}]",
        f"latency_quantiles = [{', '.join(str(share) for share in QUANTILES)}]",
    ]
    reply, title = found.reply, "Report at the exchange to here"
    if reply is None:
        reply, title = found.feed, "Market data from the exchange to here; reports are taken to need as long"
    for name, leg, about in (("request", found.request, "Order sent to accepted"), ("reply", reply, title)):
        lines += ["", *_leg(f"paper.{name}", leg, about)]
    return "\n".join(lines) + "\n"


def _leg(name: str, leg: Fit | None, about: str) -> list[str]:
    if leg is None:
        return [f"# [{name}] was not measured and stays as it is."]
    values = ", ".join(f"{each:g}" for each in leg.samples_ms)
    wrapped = textwrap.wrap(values, 110)
    return [
        f"[{name}]",
        *_comment(about, leg),
        'kind = "empirical"',
        "samples_ms = [",
        *(f"    {line}" for line in wrapped),
        "]",
    ]


def _comment(what: str, leg: Fit) -> list[str]:
    return [
        f"# {what}.",
        f"# {leg.count:,} samples; 95 % intervals by moving blocks of {leg.kept:,} of them:",
        *(
            f"#   p{100 * each.share:g} {each.ms:.4f} ms ({each.low_ms:.4f} to {each.high_ms:.4f})"
            for each in leg.quantiles
        ),
    ]


def _ms(leg: Fit, index: int) -> str:
    return f"{leg.quantiles[index].ms:.4f}"
