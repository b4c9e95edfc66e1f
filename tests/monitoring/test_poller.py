"""The poller: it goes on whatever NVML does, and ends at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from gpuscalp.monitoring.gpu_poller import GpuPoller, Poll
from gpuscalp.monitoring.nvml_cards import visible_cards
from tests.fake_nvml import GIB, MIB, FakeCard, FakeNvml, FakeSlice

PATIENCE_S = 20.0


@contextmanager
def _polling(nvml: FakeNvml, *, every_ms: int = 1) -> Iterator[GpuPoller]:
    poller = GpuPoller(nvml, partial(visible_cards, nvml, {}), every_ms=every_ms)
    poller.start()
    try:
        yield poller
    finally:
        assert poller.stop()


def _wait(poller: GpuPoller, true: Callable[[Poll], bool]) -> Poll:
    """Return the first round of which something is true."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        found = poller.latest
        if found.count and true(found):
            return found
        time.sleep(0.001)
    raise AssertionError(f"it has not come true: {poller.latest}")


def test_newest_sample_of_each_card_is_kept_and_nvml_is_left_as_it_was():
    nvml = FakeNvml(FakeCard(processes={os.getpid(): MIB}), FakeCard("GPU-2", "00000000:5E:00.0"))
    with _polling(nvml) as poller:
        found = _wait(poller, lambda poll: poll.count >= 3)
        assert [(each.index, each.uuid, each.lost) for each in found.samples] == [
            (0, "GPU-11111111-aaaa", None),
            (1, "GPU-2", None),
        ]
        assert found.samples[0].own_bytes == MIB
        assert 0 < found.cpu_ns <= found.cost_ns * 2
        nvml.cards[1].celsius = 91
        assert _wait(poller, lambda poll: poll.samples[1].celsius == 91).samples[0].celsius == 55
        assert (nvml.starts, len(nvml.sets)) == (1, 2), "NVML is started once while all is well"
    assert (nvml.started, nvml.sets) == (0, [])


def test_each_round_is_told_in_the_pollers_thread():
    nvml, told = FakeNvml(FakeCard()), []
    done = threading.Event()

    def take(poll: Poll) -> None:
        told.append((poll.count, threading.current_thread().name))
        if len(told) == 3:
            done.set()

    poller = GpuPoller(nvml, partial(visible_cards, nvml, {}), every_ms=1, on_poll=take)
    poller.start()
    assert done.wait(PATIENCE_S)
    poller.stop()
    assert told[:3] == [(1, "gpu poller"), (2, "gpu poller"), (3, "gpu poller")]


def test_card_that_is_lost_while_others_are_well_comes_back_after_a_reset():
    nvml = FakeNvml(FakeCard(), FakeCard("GPU-2", "00000000:5E:00.0"))
    with _polling(nvml) as poller:
        _wait(poller, lambda poll: poll.count >= 2)
        nvml.happen(nvml.cards[0], 0x8, 79)
        nvml.cards[0].gone = 15
        found = _wait(poller, lambda poll: poll.samples[0].lost is not None)
        assert found.error is None
        assert found.samples[1].lost is None
        assert found.samples[0].xids == (79,), "what it has reported stays known"
        later = _wait(poller, lambda poll: poll.count > found.count + 2)
        assert (later.samples[0].uuid, later.samples[0].name) == ("GPU-11111111-aaaa", "NVIDIA Card")
        nvml.cards[0].gone = None
        back = _wait(poller, lambda poll: poll.samples[0].lost is None)
        assert back.samples[0].xids == (79,)
        assert nvml.started == 1
        nvml.happen(nvml.cards[0], 0x8, 94)
        assert _wait(poller, lambda poll: poll.samples[0].last_xid == 94).samples[0].xids == (79, 94)


def test_card_that_does_not_answer_at_first_is_seen_when_it_does():
    """It had no UUID, by which alone it was looked for: it stayed lost for as long as the session ran."""
    nvml = FakeNvml(FakeCard(), FakeCard("GPU-2", "00000000:5E:00.0"))
    first, second = nvml.cards
    first.gone = 15
    with _polling(nvml) as poller:
        found = _wait(poller, lambda poll: poll.count >= 3)
        assert [(each.index, each.uuid, each.lost) for each in found.samples] == [
            (0, None, "GPU is lost"),
            (1, "GPU-2", None),
        ]
        nvml.happen(second, 0x8, 13)
        _wait(poller, lambda poll: poll.samples[1].last_xid == 13)
        second.gone = 15  # one that is known does not hold up the other
        _wait(poller, lambda poll: poll.samples[1].lost is not None)
        first.gone = None
        back = _wait(poller, lambda poll: poll.samples[0].lost is None)
        assert [(each.index, each.uuid, each.xids) for each in back.samples] == [
            (0, "GPU-11111111-aaaa", ()),
            (1, "GPU-2", (13,)),
        ]
        second.gone = None
        _wait(poller, lambda poll: poll.samples[1].lost is None)
        nvml.happen(first, 0x8, 94)
        assert _wait(poller, lambda poll: poll.samples[0].last_xid == 94).samples[1].xids == (13,)


def test_driver_that_goes_and_comes_is_followed():
    nvml = FakeNvml(FakeCard(slices=[FakeSlice("MIG-1", free=3 * GIB)]))
    with _polling(nvml) as poller:
        _wait(poller, lambda poll: poll.samples[0].free_bytes == 3 * GIB)
        nvml.start_error = 9
        nvml.reload()
        found = _wait(poller, lambda poll: poll.error is not None)
        assert found.error == "error 9"
        assert [(each.uuid, each.lost) for each in found.samples] == [("MIG-1", "error 9")]
        nvml.start_error = None
        back = _wait(poller, lambda poll: poll.error is None and poll.samples[0].lost is None)
        assert (back.samples[0].uuid, back.samples[0].free_bytes) == ("MIG-1", 3 * GIB)


def test_nvml_that_does_not_start_is_tried_again():
    nvml = FakeNvml(FakeCard())
    nvml.start_error = 9
    with _polling(nvml) as poller:
        found = _wait(poller, lambda poll: poll.count >= 3)
        assert (found.samples, found.error) == ((), "error 9")
        nvml.start_error = None
        assert _wait(poller, lambda poll: bool(poll.samples)).error is None


def test_library_that_raises_what_nobody_expects_does_not_end_the_watch():
    nvml = FakeNvml(FakeCard())

    def find() -> list[object]:
        raise OSError("libnvidia-ml.so.1: bad image")

    poller = GpuPoller(nvml, find, every_ms=1)  # type: ignore[arg-type]
    poller.start()
    assert _wait(poller, lambda poll: poll.count >= 3).error == "libnvidia-ml.so.1: bad image"
    assert poller.stop()
    assert nvml.started == 0


def test_end_does_not_wait_for_the_next_round_nor_for_a_driver_that_hangs():
    nvml = FakeNvml(FakeCard())
    with _polling(nvml, every_ms=60_000) as poller:
        _wait(poller, lambda poll: poll.count == 1)
        began = time.monotonic()
        assert poller.stop()
        assert time.monotonic() - began < 30  # half of the time to the next round
    hung = FakeNvml(FakeCard())
    hung.hang = threading.Event()
    poller = GpuPoller(hung, partial(visible_cards, hung, {}), every_ms=1)
    poller.start()
    began = time.monotonic()
    assert not poller.stop()
    assert time.monotonic() - began < PATIENCE_S  # it hangs for ever
    assert poller.latest.count == 0
    hung.hang.set()
