"""What is read between and beside measured points, and which device follows from it."""

from __future__ import annotations

import math
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuscalp.device_profile import (
    REACH,
    Decision,
    DeviceProfile,
    Machine,
    Point,
    Workload,
    crossover,
    decide,
    times,
)

MACHINE = Machine("a processor", 2, "0.1.0", "0.68.1", gpu="a card", gpu_uuid="GPU-1")


def profile(**points: dict[tuple[int, int], float]) -> DeviceProfile:
    """Return a profile by device, (symbols, trees) and p50; p99 is twice as much."""
    return DeviceProfile(
        1,
        "2026-11-25T12:00:00+00:00",
        MACHINE,
        tuple(
            Point(device, symbols, 200, trees, p50, 2 * p50)  # type: ignore[arg-type]
            for device, found in points.items()
            for (symbols, trees), p50 in found.items()
        ),
    )


SQUARE = profile(cpu={(10, 100): 100.0, (10, 400): 400.0, (1000, 100): 1_000.0, (1000, 400): 1_600.0})


@pytest.mark.parametrize(
    ("symbols", "trees", "p50"),
    [
        (10, 100, 100.0),
        (1000, 400, 1_600.0),
        # Half the way of both logarithms is the geometric mean.
        (100, 100, math.sqrt(100.0 * 1_000.0)),
        (10, 200, math.sqrt(100.0 * 400.0)),
        (100, 200, (100.0 * 400.0 * 1_000.0 * 1_600.0) ** 0.25),
        # Below: the smallest. Above: as much more time as there is more work.
        (5, 50, 100.0),
        (7, 200, 200.0),
        (2000, 100, 2_000.0),
        (1500, 800, 1_600.0 * 1.5 * 2.0),
    ],
)
def test_times_between_and_beside_the_points(symbols: int, trees: int, p50: float) -> None:
    found = times(SQUARE, "cpu", Workload(symbols, trees))
    assert found is not None
    assert found.p50_us == pytest.approx(p50, rel=1e-12)
    assert found.p99_us == pytest.approx(2 * p50, rel=1e-12)


@pytest.mark.parametrize(("symbols", "trees"), [(4, 100), (2001, 100), (10, 49), (10, 801)])
def test_profile_has_no_answer_beyond_its_reach(symbols: int, trees: int) -> None:
    assert REACH == 2
    assert times(SQUARE, "cpu", Workload(symbols, trees)) is None
    assert decide(SQUARE, Workload(symbols, trees), 200.0, ["cpu"]) is None


def test_device_without_points_has_no_times() -> None:
    assert times(SQUARE, "cuda", Workload(10, 100)) is None
    assert decide(SQUARE, Workload(10, 100), 200.0, ["cuda", "cpu"]) is None


def test_point_that_is_faster_than_a_smaller_one_counts_as_slow_as_that() -> None:
    noisy = profile(cpu={(1, 1): 50.0, (4, 1): 40.0, (1, 4): 60.0, (4, 4): 55.0})
    for work, p50 in (((4, 1), 50.0), ((2, 1), 50.0), ((4, 4), 60.0), ((1, 2), math.sqrt(50.0 * 60.0))):
        found = times(noisy, "cpu", Workload(*work))
        assert found is not None
        assert found.p50_us == pytest.approx(p50, rel=1e-12)


axes = st.lists(st.integers(1, 5_000), min_size=1, max_size=4, unique=True)


@given(data=st.data(), symbols=axes, trees=axes)
def test_more_work_never_takes_less_time(data: st.DataObject, symbols: list[int], trees: list[int]) -> None:
    drawn = {key: data.draw(st.floats(1.0, 1e6), label=str(key)) for key in product(symbols, trees)}
    made = profile(cpu=drawn)
    size = st.integers(1, 10_000)
    less = Workload(data.draw(size), data.draw(size))
    more = Workload(less.symbols + data.draw(st.integers(0, 99)), less.trees + data.draw(st.integers(0, 99)))
    small, large = times(made, "cpu", less), times(made, "cpu", more)
    if small is None or large is None:
        return
    assert large.p50_us >= small.p50_us * (1 - 1e-9)
    assert min(drawn.values()) * (1 - 1e-9) <= small.p50_us
    assert large.p50_us <= max(drawn.values()) * REACH**2 * (1 + 1e-9)


# p50 of (cpu, cuda) in µs, p99 twice as much; deadline in ms; who is chosen, and whether it is in time.
CHOICES = [
    (100.0, 300.0, 200.0, "cpu", True),
    (300.0, 100.0, 200.0, "cuda", True),
    # Both in time: the median decides. Only one in time: that one. None: the smaller p99.
    (100.0, 100.0, 200.0, "cuda", True),
    (600.0, 400.0, 1.0, "cuda", True),
    (400.0, 600.0, 1.0, "cpu", True),
    (900.0, 800.0, 1.0, "cuda", False),
    (800.0, 900.0, 1.0, "cpu", False),
    (500.0, 501.0, 1.0, "cpu", True),
]


@pytest.mark.parametrize(("cpu", "cuda", "deadline_ms", "chosen", "in_time"), CHOICES)
def test_choice_follows_the_rule(
    cpu: float, cuda: float, deadline_ms: float, chosen: str, in_time: bool
) -> None:
    made = profile(cpu={(8, 300): cpu}, cuda={(8, 300): cuda})
    found = decide(made, Workload(8, 300), deadline_ms, ["cuda", "cpu"])
    assert isinstance(found, Decision)
    assert found.device == chosen
    assert ("will not be kept" in found.reason) != in_time
    assert f"cpu {cpu / 1e3:.3g}/{cpu / 500:.3g} ms" in found.reason
    assert "2026-11-25" in found.reason


def test_device_in_time_is_chosen_though_its_median_is_the_larger() -> None:
    points = (Point("cpu", 8, 200, 300, 100.0, 5_000.0), Point("cuda", 8, 200, 300, 300.0, 400.0))
    made = msgspec.structs.replace(profile(), points=points)
    assert decide(made, Workload(8, 300), 1.0, ["cuda", "cpu"]).device == "cuda"  # type: ignore[union-attr]
    assert decide(made, Workload(8, 300), 10.0, ["cuda", "cpu"]).device == "cpu"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("cuda_us", "symbols"),
    [
        (1.0, 1),
        (200.5, 201),
        (1_000.0, None),
        (5_000.0, None),
    ],
)
def test_crossover_is_where_the_gpu_becomes_the_faster(cuda_us: float, symbols: int | None) -> None:
    # The CPU takes 1 µs a symbol, the GPU the same for all.
    cpu = {(count, 300): float(count) for count in (2, 10, 100, 1000)} | {(1, 300): 1.5}
    made = profile(cpu=cpu, cuda=dict.fromkeys(cpu, cuda_us))
    assert crossover(made, 300) == symbols


def test_crossover_is_the_last_change_of_a_noisy_measurement() -> None:
    cpu = {(1, 300): 30.0, (10, 300): 90.0, (100, 300): 900.0}
    cuda = {(1, 300): 20.0, (10, 300): 100.0, (100, 300): 110.0}
    found = crossover(profile(cpu=cpu, cuda=cuda), 300)
    assert found is not None
    assert 10 < found < 20
    assert crossover(profile(cpu=cpu), 300) is None


@pytest.mark.parametrize(
    "points",
    [
        [(1, 1), (1, 2), (2, 1)],
        [(1, 1), (1, 1)],
    ],
)
def test_points_that_are_no_grid_are_refused(points: list[tuple[int, int]]) -> None:
    text = msgspec.json.encode(SQUARE)
    data = msgspec.json.decode(text)
    data["points"] = [{**data["points"][0], "symbols": s, "trees": t} for s, t in points]
    with pytest.raises(msgspec.ValidationError, match="no grid"):
        msgspec.json.decode(msgspec.json.encode(data), type=DeviceProfile)
    assert msgspec.json.decode(text, type=DeviceProfile) == SQUARE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"driver": "590", "gpuscalp": "9", "numba": "1", "cupy": "99"}, None),
        ({"cpu": "another"}, "cpu 'a processor', not 'another'"),
        ({"cores": 4}, "cores 2, not 4"),
        ({"gpu": None}, "gpu 'a card', not None"),
        ({"gpu_uuid": "GPU-2"}, "gpu_uuid"),
    ],
)
def test_machine_is_known_by_its_hardware(change: dict[str, object], words: str | None) -> None:
    found = MACHINE.differs(msgspec.structs.replace(MACHINE, **change))
    assert found is None if words is None else words in (found or "")
