"""How long a step takes on each device of one machine, as measured, and which device follows from it.

Owns: the form of a device profile, what is read between and beside its points, and the rule of choice. Never:
measures (``gpuscalp.bench.crossover``), reads a file (``gpuscalp.device_choice``), or asks for a GPU.

A step is what one closed frame costs: its ticks to features to the margins of all members.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, NamedTuple

from msgspec import Meta, Struct

FORMAT: Final = 1
# So many times smaller or larger than all that was measured, and the profile has no answer.
REACH: Final = 2.0

Count = Annotated[int, Meta(ge=1)]
Micros = Annotated[float, Meta(gt=0)]
Device = Literal["cpu", "cuda"]


class Workload(NamedTuple):
    """What a step has to do: symbols S, and trees of all members and classes."""

    symbols: int
    trees: int


class Machine(Struct, frozen=True, forbid_unknown_fields=True):
    """What was measured on. ``gpu`` and below: None where no GPU can be used, or a version does not tell."""

    cpu: str
    cores: int
    gpuscalp: str
    numba: str
    gpu: str | None = None
    gpu_uuid: str | None = None
    driver: str | None = None
    cupy: str | None = None

    def differs(self, other: Machine) -> str | None:
        """Return the first part of the hardware that differs, in words; None if it is the same machine.

        Versions may differ: they change times by less than what separates the devices.
        """
        for name in ("cpu", "cores", "gpu", "gpu_uuid"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                return f"{name} {ours!r}, not {theirs!r}"
        return None


class Point(Struct, frozen=True, forbid_unknown_fields=True):
    """Times of a step on one device, µs."""

    device: Device
    symbols: Count
    features: Count
    trees: Count
    p50_us: Micros
    p99_us: Micros


class DeviceProfile(Struct, frozen=True, forbid_unknown_fields=True):
    """The measurement of one machine; the points of each device form a full grid of symbols × trees."""

    format: Literal[1]
    measured_at: str
    machine: Machine
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        for device in sorted({point.device for point in self.points}):
            found = [(point.symbols, point.trees) for point in self.points if point.device == device]
            symbols, trees = (set(axis) for axis in zip(*found, strict=True))
            if len(set(found)) != len(found) or len(found) != len(symbols) * len(trees):
                raise ValueError(f"the points of {device} are no grid of symbols × trees")


@dataclass(frozen=True, slots=True)
class NoProfile:
    """There is none that holds for this machine, and why."""

    why: str


class Times(NamedTuple):
    """p50 and p99 of a step, µs."""

    p50_us: float
    p99_us: float


class Decision(NamedTuple):
    device: Device
    reason: str


def times(profile: DeviceProfile, device: Device, workload: Workload) -> Times | None:
    """Return what a step is expected to take, or None where the profile does not reach.

    Between points the logarithm of the time is linear in the logarithms of both sizes. A point that is faster
    than a smaller one counts as slow as that: more work never takes less time. Below all points the smallest
    counts; above them time grows as the work does. Neither beyond ``REACH`` times.
    """
    points = {(point.symbols, point.trees): point for point in profile.points if point.device == device}
    if not points:
        return None
    symbols = _place(sorted({size for size, _ in points}), workload.symbols)
    trees = _place(sorted({size for _, size in points}), workload.trees)
    if symbols is None or trees is None:
        return None

    def between(name: str) -> float:
        def corner(symbol_count: int, tree_count: int) -> float:
            return math.log(
                max(
                    getattr(point, name)
                    for (s, t), point in points.items()
                    if s <= symbol_count and t <= tree_count
                )
            )

        low, high = (
            (1 - trees.weight) * corner(count, trees.low) + trees.weight * corner(count, trees.high)
            for count in (symbols.low, symbols.high)
        )
        return math.exp((1 - symbols.weight) * low + symbols.weight * high) * symbols.beyond * trees.beyond

    return Times(between("p50_us"), between("p99_us"))


def decide(
    profile: DeviceProfile, workload: Workload, deadline_ms: float, devices: Sequence[Device]
) -> Decision | None:
    """Choose among devices: of those whose p99 keeps the deadline the one with the least p50, else the one
    with the least p99.

    Parameters
    ----------
    deadline_ms : a step that takes longer is of no use
    devices : that can be used, in the order that decides between equals

    Returns
    -------
    Decision, or None where the profile does not say for one of them
    """
    found: dict[Device, Times] = {}
    for device in devices:
        expected = times(profile, device, workload)
        if expected is None:
            return None
        found[device] = expected
    in_time = [device for device in devices if found[device].p99_us <= deadline_ms * 1e3]
    if in_time:
        chosen = min(in_time, key=lambda device: found[device].p50_us)
    else:
        chosen = min(devices, key=lambda device: found[device].p99_us)
    told = ", ".join(
        f"{device} {found[device].p50_us / 1e3:.3g}/{found[device].p99_us / 1e3:.3g} ms" for device in devices
    )
    reason = (
        f"measured on {profile.measured_at[:10]} with gpuscalp {profile.machine.gpuscalp}, a step of "
        f"{workload.symbols:,} symbols and {workload.trees:,} trees takes (p50/p99) {told}"
    )
    if in_time:
        return Decision(chosen, reason)
    return Decision(chosen, f"{reason}: the deadline of {deadline_ms:g} ms will not be kept")


def crossover(profile: DeviceProfile, trees: int) -> int | None:
    """Return from how many symbols on, up to all that were measured, the GPU's p50 is less; None if never."""

    def faster(symbols: int) -> bool:
        cpu, cuda = (times(profile, device, Workload(symbols, trees)) for device in ("cpu", "cuda"))
        return cpu is not None and cuda is not None and cuda.p50_us < cpu.p50_us

    sizes = sorted({point.symbols for point in profile.points})
    slower = [size for size in sizes if not faster(size)]
    if not slower:
        return sizes[0]
    if slower[-1] == sizes[-1]:
        return None
    low, high = slower[-1], sizes[sizes.index(slower[-1]) + 1]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if faster(middle) else (middle, high)
    return high


class _Place(NamedTuple):
    """Between which points of an axis a size lies, how far from the lower, and how far beyond the last."""

    low: int
    high: int
    weight: float
    beyond: float


def _place(axis: list[int], size: int) -> _Place | None:
    if not axis[0] / REACH <= size <= axis[-1] * REACH:
        return None
    if size <= axis[0]:
        return _Place(axis[0], axis[0], 0.0, 1.0)
    if size >= axis[-1]:
        return _Place(axis[-1], axis[-1], 0.0, size / axis[-1])
    index = bisect_left(axis, size)
    low, high = axis[index - 1], axis[index]
    return _Place(low, high, math.log(size / low) / math.log(high / low), 1.0)
