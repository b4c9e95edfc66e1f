"""The GPUs of a session: watched while it runs, judged, and told to those whom it concerns.

Owns: which reasons the risk gate is told, and that a failure is told of while it lasts. Never: asks a card
itself (gpuscalp.monitoring.gpu_poller does), or takes one out of use.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, final

import msgspec

from gpuscalp.config import GpuHealthConfig
from gpuscalp.device import cuda_bus_ids
from gpuscalp.live.predictor import FleetPredictor
from gpuscalp.monitoring.gpu_judgement import CardVerdict, judge_card
from gpuscalp.monitoring.gpu_poller import GpuPoller, Poll
from gpuscalp.monitoring.nvml import CardSample, import_nvml
from gpuscalp.monitoring.nvml_cards import Card, visible_cards
from gpuscalp.schema import NS_PER_MS


def open_watch(
    device: str,
    config: GpuHealthConfig,
    predictor: FleetPredictor | None,
    *,
    environment: Mapping[str, str] = os.environ,
) -> GpuWatch | None:
    """Return a watch over the GPUs that a session's workers compute on; None for a session on the CPU.

    Parameters
    ----------
    device : of the session
    predictor : whose workers these are, and which is told of a card that has failed
    environment : of these workers
    """
    if device != "cuda" or predictor is None:
        return None
    nvml = import_nvml()

    def find() -> list[Card]:
        cards = visible_cards(nvml, environment, cuda_bus_ids())
        return [card for card in cards if card.index in predictor.fleets.gpus]

    return GpuWatch(
        nvml,
        find,
        config,
        on_failed=predictor.fail,
        leads=lambda: predictor.leads,
        pids=predictor.fleets.pids,
    )


@final
class GpuWatch:
    """Watches from ``start`` to ``stop``.

    Parameters
    ----------
    nvml : the module ``pynvml``; None where it is not installed: then nothing is known, and nothing refused
    find : tells which cards, once NVML is started
    on_failed : told (the card's number as CUDA counts, why in one word) of each failure of a card after every
        round, in the poller's thread: a fresh worker must not compute on it either
    leads : whether what the GPUs compute is what is acted upon, at this moment
    pids : processes that compute on the GPUs, at this moment
    """

    def __init__(
        self,
        nvml: Any | None,
        find: Callable[[], Sequence[Card]],
        config: GpuHealthConfig,
        *,
        on_failed: Callable[[int, str], None] = lambda _index, _why: None,
        leads: Callable[[], bool] = lambda: True,
        pids: Callable[[], Collection[int]] = lambda: (os.getpid(),),
    ) -> None:
        self._config, self._on_failed, self._leads = config, on_failed, leads
        self._defect: str | None = None
        self._judged: tuple[tuple[CardSample, CardVerdict], ...] = ()
        self._started_ns = time.monotonic_ns()
        self._poller = (
            None
            if nvml is None
            else GpuPoller(nvml, find, every_ms=config.poll_ms, on_poll=self._take, pids=pids)
        )

    def start(self) -> None:
        self._started_ns = time.monotonic_ns()
        if self._poller is not None:
            self._poller.start()

    def stop(self) -> None:
        if self._poller is not None:
            self._poller.stop()

    def judged(self) -> tuple[tuple[CardSample, CardVerdict], ...]:
        """Return the newest sample and verdict of each card."""
        return self._judged

    def reasons(self) -> tuple[str, ...]:
        """Return why nothing new may be opened now: () while all is well, or while the GPUs do not lead."""
        if self._poller is None or not self._leads():
            return ()
        latest = self._poller.latest
        if time.monotonic_ns() - (latest.at_ns or self._started_ns) > self._config.silent_ms * NS_PER_MS:
            return ("gpu:silent",)
        if not latest.count:
            return ("gpu:unread",)
        return tuple(code for _, verdict in self._judged for code in verdict.codes)

    def status(self) -> dict[str, Any]:
        """Return the section ``gpu`` of a session's status (docs/live.md)."""
        latest = Poll() if self._poller is None else self._poller.latest
        error = "nvidia-ml-py is not installed" if self._poller is None else latest.error or self._defect
        return {
            "error": error,
            "reasons": list(self.reasons()),
            "polls": latest.count,
            "poll_ms": round(latest.cost_ns / NS_PER_MS, 3),
            "poll_cpu_ms": round(latest.cpu_ns / NS_PER_MS, 3),
            "cards": [
                msgspec.to_builtins(sample)
                | {"failed": list(verdict.failed), "doubtful": list(verdict.doubtful)}
                for sample, verdict in self._judged
            ],
        }

    def _take(self, poll: Poll) -> None:
        judge = partial(judge_card, config=self._config)
        self._judged = tuple((sample, judge(sample)) for sample in poll.samples)
        failed = [(verdict.index, word) for _, verdict in self._judged for word in verdict.failed]
        for index, word in failed:
            try:
                self._on_failed(index, word)
            except Exception as error:  # the watch goes on, and says so
                self._defect = f"on_failed: {error}"
