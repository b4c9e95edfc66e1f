"""What a GPU has to show, held against what a run has found: met, missed or not measured.

Owns: the bars. Never: measures. What was measured at another size than the bar's, was skipped or has failed
counts as not measured, with the reason; a difference of bits, a finding of a sanitizer and a test that fails
are missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from benchmarks.parts import failures

Verdict = Literal["met", "missed", "not measured"]
Document = Mapping[str, Any]

# What a run measures, and the parts of it that can be run alone.
PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "gpu": ("stream", "peer", "ledger", "memory", "forest"),
    "gpu_recordings": (),
    "gpu_batch": ("features", "ticks_to_features", "shared_set", "training"),
    "gpu_worker": (),
    "crossover": (),
}
LEDGER_FRAMES: Final = 10_000
SLOPE_MINUTES: Final = 30
TRAINING_ROWS: Final = 9.9e7  # of 1e8, without those at the end that have no label
# Symbols, columns at least, trees (5 members of 300 rounds and 3 classes).
STREAM: Final = (512, 200, 4_500)


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the table."""

    bar: str
    found: str
    verdict: Verdict


class NotMeasuredError(Exception):
    """Why there is no figure."""


def bars(result: Document) -> list[Bar]:
    """Return every bar with what a result of ``benchmarks.gpu_run`` says about it."""
    return [_bar(name, judge, result) for name, judge in _BARS.items()]


def exit_code(found: Sequence[Bar]) -> int:
    """Return 1 if a bar was missed, 3 if none was and one was not measured, else 0."""
    verdicts = {bar.verdict for bar in found}
    return 1 if "missed" in verdicts else 3 if "not measured" in verdicts else 0


def table(found: Sequence[Bar]) -> str:
    """Return the bars as text, in columns."""
    lines = [("bar", "found", "")] + [(bar.bar, bar.found, bar.verdict) for bar in found]
    widths = [max(len(line[column]) for line in lines) for column in range(2)]
    return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in lines)


def documents(found: Sequence[Bar]) -> list[dict[str, str]]:
    """Return what stands in a file of results."""
    return [asdict(bar) for bar in found]


def _bar(name: str, judge: Callable[[Document], tuple[str, bool]], result: Document) -> Bar:
    try:
        found, met = judge(result)
    except NotMeasuredError as why:
        return Bar(name, str(why), "not measured")
    except KeyError as missing:
        return Bar(name, f"there is no {missing}", "not measured")
    return Bar(name, found, "met" if met else "missed")


def _part(result: Document, *names: str) -> Document:
    """Return a part of a part."""
    for name in names:
        if name not in result:
            raise NotMeasuredError(f"{name}: did not run")
        result = result[name]
        for why in ("failed", "skipped"):
            if isinstance(result.get(why), str):
                raise NotMeasuredError(f"{name}: {result[why].splitlines()[0]}")
    return result


def _bits(result: Document) -> tuple[str, bool]:
    wrong = [text for name in PARTS for text in failures({name: result.get(name, {})}) if _of_bits(text)]
    if wrong:
        return wrong[0].splitlines()[0], False
    parity = _part(result, "gpu", "parity")
    for part in (("gpu", "forest"), ("gpu_batch", "features"), ("gpu_batch", "ticks_to_features")):
        _part(result, *part)
    differing = parity["differing_digests"] + parity["differing_margins"]
    return f"{differing} in {parity['frames']} frames, in batch and in the forest", differing == 0


def _of_bits(text: str) -> bool:
    # Copies are the ledger's, and cuDF's columns no result of ours.
    return text.startswith("ParityError") and "copies" not in text and "cuDF" not in text


def _recordings(result: Document) -> tuple[str, bool]:
    venues = _part(result, "gpu_recordings")
    return f"0 in {sum(venue['rows'] for venue in venues.values()):,} rows", True


def _tests(result: Document) -> tuple[str, bool]:
    code = _part(result, "gpu_tests")["exit_code"]
    return f"pytest ended with {code}", code == 0


def _sanitizer(tool: str) -> Callable[[Document], tuple[str, bool]]:
    def judge(result: Document) -> tuple[str, bool]:
        code = _part(result, "sanitizers", tool)["exit_code"]
        if code not in (0, SANITIZER_CODE):
            raise NotMeasuredError(f"the tests under it ended with {code}")
        return "clean" if code == 0 else "findings, above", code == 0

    return judge


def _ledger(result: Document) -> tuple[str, bool]:
    wrong = [text for text in failures(result.get("gpu", {})) if "other copies" in text]
    if wrong:
        return wrong[0].splitlines()[0], False
    ledger = _part(result, "gpu", "ledger")
    frames = ledger["frames"]
    if frames < LEDGER_FRAMES:
        raise NotMeasuredError(f"over {frames} frames")
    copies = [ledger[way]["copies"] for way in ("host_to_device", "device_to_host")]
    return f"{copies[0]:,} in, {copies[1]:,} out of {frames:,} frames", copies == [frames, frames]


def _stream(result: Document) -> Document:
    stream = _part(result, "gpu", "stream")
    symbols, columns, trees = (stream[name] for name in ("symbols", "features", "trees"))
    if (symbols, trees) != (STREAM[0], STREAM[2]) or columns < STREAM[1]:
        raise NotMeasuredError(f"at {symbols} symbols, {columns} columns, {trees} trees")
    return stream


def _latency(name: str, limit_us: float) -> Callable[[Document], tuple[str, bool]]:
    def judge(result: Document) -> tuple[str, bool]:
        taken = _stream(result)["cuda"][name]
        return f"{taken:.0f} µs", taken < limit_us

    return judge


def _paced(result: Document) -> tuple[str, bool]:
    asleep = _stream(result)["paced"]["asleep"]
    return f"{asleep['p99_us']:.0f} µs, half below {asleep['p50_us']:.0f} µs", asleep["p99_us"] < 1_000.0


def _peer(result: Document) -> tuple[str, bool]:
    _part(result, "gpu", "peer")
    ratio = _stream(result)["ratio_peer"]
    return f"{ratio:.1f} times", ratio >= 10.0


def _batch(result: Document) -> tuple[str, bool]:
    found = _part(result, "gpu_batch", "features")
    return f"{found['share_of_ceiling']:.0%} of {found['binds']}", found["share_of_ceiling"] >= 0.5


def _cudf(result: Document) -> tuple[str, bool]:
    shared = _part(result, "gpu_batch", "shared_set")
    if "ratio_cudf" not in shared:
        raise NotMeasuredError(shared["cudf"])
    return f"{shared['ratio_cudf']:.1f} times", shared["ratio_cudf"] >= 5.0


def _training(result: Document) -> tuple[str, bool]:
    training = _part(result, "gpu_batch", "training")
    if training["rows"] < TRAINING_ROWS:
        raise NotMeasuredError(f"at {training['rows']:,} rows")
    share = training["share_of_float_matrix"]
    return f"{training['peak_gpu_mb']:,} MB, {share:.1%}", share < 0.5


def _nvforest(result: Document) -> tuple[str, bool]:
    forest = _part(result, "gpu", "forest")
    if "nvforest" in forest["skipped"]:
        raise NotMeasuredError(forest["skipped"]["nvforest"])
    ratios = [row["ratio_nvforest"] for row in forest["table"]]
    return f"{min(ratios):.2f} to {max(ratios):.2f} times our time", True


def _crossover(result: Document) -> tuple[str, bool]:
    points = _part(result, "crossover")["points"]
    if not any(point["device"] == "cuda" for point in points):
        raise NotMeasuredError("no point on a GPU")
    return f"{len(points)} points", True


def _slope(result: Document) -> tuple[str, bool]:
    memory = _part(result, "gpu", "memory")
    if memory["minutes"] < SLOPE_MINUTES:
        raise NotMeasuredError(f"over {memory['minutes']:g} minutes")
    slope = memory["slope_bytes_per_hour"]
    return f"{slope:,} bytes an hour", slope == 0


def _takeover(result: Document) -> tuple[str, bool]:
    worker = _part(result, "gpu_worker")
    killed, hang = (worker[f"takeover_{name}_ms"] for name in ("killed", "hang"))
    return f"killed {killed:.0f} ms, hang {hang:.0f} ms", max(killed, hang) <= 1_000.0


SANITIZER_CODE: Final = 9  # what compute-sanitizer is told to end with where it has found something

_BARS: Final[dict[str, Callable[[Document], tuple[str, bool]]]] = {
    "bits: 0 differ": _bits,
    "bits over recordings: 0 differ": _recordings,
    "tests marked gpu pass": _tests,
    "memcheck is clean": _sanitizer("memcheck"),
    "racecheck is clean": _sanitizer("racecheck"),
    f"copies of {LEDGER_FRAMES:,} frames: one in, one out": _ledger,
    "stream, 512 × 200 columns × 5 × 300 rounds: p50 < 300 µs": _latency("p50_us", 300.0),
    "the same: p99 < 1 ms": _latency("p99_us", 1_000.0),
    "the same, a step every 20 ms: p99 < 1 ms": _paced,
    "stream ≥ 10 times plain CuPy": _peer,
    "batch ≥ 50 % of the ceiling that binds": _batch,
    "rolling columns ≥ 5 times cuDF": _cudf,
    "training, 1e8 rows: peak < half of the float matrix": _training,
    "the forest beside nvForest": _nvforest,
    "crossover: both devices measured": _crossover,
    f"memory of {SLOPE_MINUTES} minutes: slope 0": _slope,
    "takeover ≤ 1 s": _takeover,
}
