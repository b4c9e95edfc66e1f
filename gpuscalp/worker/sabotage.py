"""Faults that a worker brings about itself, on the way that the real ones take.

Owns: what each does. Never: reports anything; what it raises is reported as if it had happened.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Final, final

import numpy as np

from gpuscalp.device import import_cupy
from gpuscalp.errors import DeviceError
from gpuscalp.inference import Answer
from gpuscalp.schema import F32
from gpuscalp.worker.faults import Fault, WorkerFault

_ILLEGAL_ADDRESS: Final = 700  # cudaError_t
_DEVICES_UNAVAILABLE: Final = 46


class CUDARuntimeError(RuntimeError):
    """As CuPy's, where there is no CuPy."""


class OutOfMemoryError(MemoryError):
    """As CuPy's, where there is no CuPy."""


@final
class Sabotage:
    """The faults of one process. Making it does what has to be done in time: importing CuPy takes 0.7 s."""

    def __init__(self, faults: Sequence[WorkerFault]) -> None:
        self._faults = faults
        self._frame_count = 0
        made = {fault.kind: _error(fault.kind) for fault in faults}
        self._errors = {kind: error for kind, error in made.items() if error is not None}

    def at_start(self) -> None:
        if any(fault.kind is Fault.START_FAILED for fault in self._faults):
            raise DeviceError("the NVIDIA driver does not start", where="injected")

    def before_frame(self) -> None:
        """Meet the faults that end a process or stop it."""
        for fault in self._due():
            if fault.kind is Fault.HANG:
                while True:
                    time.sleep(3_600.0)
            if fault.kind is Fault.KILLED:
                os.kill(os.getpid(), signal.SIGKILL)
            if fault.kind in self._errors:
                raise self._errors[fault.kind]

    def after_frame(self, answer: Answer) -> None:
        """Turn one bit of the answer where that is asked for."""
        for fault in self._due():
            if fault.kind is Fault.WRONG_ANSWER and fault.part == "digest":
                answer.digests[-1] ^= np.uint64(1)
            elif fault.kind is Fault.WRONG_ANSWER and fault.part == "margin":
                answer.margins.view(np.uint32)[-1, -1, -1] ^= np.uint32(1)
        self._frame_count += 1

    def canary(self, margins: F32) -> F32:
        """Return the canary's margins, or wrong ones from the frame on at which that is asked for."""
        for fault in self._faults:
            wrong = fault.kind is Fault.WRONG_ANSWER and fault.part == "canary"
            if wrong and self._frame_count >= max(1, fault.at_frame):
                margins.view(np.uint32)[0, 0, 0] ^= np.uint32(1)
        return margins

    def _due(self) -> list[WorkerFault]:
        return [fault for fault in self._faults if fault.at_frame == self._frame_count]


def _error(kind: Fault) -> Exception | None:
    """Return what CuPy raises for this fault; None: it raises nothing."""
    codes = {
        Fault.ILLEGAL_ADDRESS: (_ILLEGAL_ADDRESS, "cudaErrorIllegalAddress"),
        Fault.DEVICE_LOST: (_DEVICES_UNAVAILABLE, "cudaErrorDevicesUnavailable"),
    }
    if kind is not Fault.OUT_OF_MEMORY and kind not in codes:
        return None
    try:
        cuda = import_cupy().cuda
    except DeviceError:
        return OutOfMemoryError() if kind not in codes else CUDARuntimeError(f"{codes[kind][1]}: injected")
    made: Exception
    if kind in codes:
        made = cuda.runtime.CUDARuntimeError(codes[kind][0])
    else:
        made = cuda.memory.OutOfMemoryError(1 << 30, 0, 0)
    return made
