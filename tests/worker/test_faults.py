"""Faults in words, and what the exceptions of CUDA's libraries say."""

from __future__ import annotations

import pytest

from gpuscalp.errors import UsageError
from gpuscalp.worker.faults import Fault, WorkerFault, fault_of, parse_fault


def test_words_say_kind_frame_part_and_whether_it_comes_again():
    assert parse_fault("killed") == WorkerFault(Fault.KILLED)
    assert parse_fault("hang:at_frame=200") == WorkerFault(Fault.HANG, at_frame=200)
    assert parse_fault("wrong_answer:part=canary,always=true") == WorkerFault(
        Fault.WRONG_ANSWER, part="canary", always=True
    )


@pytest.mark.parametrize(
    "text",
    ["", "melts", "behind", "hang:at_frame=-1", "hang:at_frame=x", "wrong_answer:part=all", "hang:when=1"],
)
def test_words_that_make_no_sense_are_refused(text):
    with pytest.raises(UsageError, match="kinds: out_of_memory"):
        parse_fault(text)


class XGBoostError(ValueError):
    """As XGBoost's."""


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (MemoryError(), Fault.OUT_OF_MEMORY),
        (
            XGBoostError("x.cuh:431: std::bad_alloc: cudaErrorMemoryAllocation: out of memory"),
            Fault.OUT_OF_MEMORY,
        ),
        (RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"), Fault.OUT_OF_MEMORY),
        (XGBoostError("cudaErrorIllegalAddress: an illegal memory access"), Fault.ILLEGAL_ADDRESS),
        (RuntimeError("cudaErrorLaunchFailure: unspecified launch failure"), Fault.ILLEGAL_ADDRESS),
        (RuntimeError("CUDA_ERROR_ECC_UNCORRECTABLE: uncorrectable ECC error"), Fault.ILLEGAL_ADDRESS),
        (RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected"), Fault.DEVICE_LOST),
        (RuntimeError("cudaErrorUnknown: unknown error"), Fault.DEVICE_LOST),
        (ValueError("shapes differ"), None),
    ],
)
def test_an_exception_says_what_has_become_of_the_device(error, fault):
    assert fault_of(error) is fault


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (2, Fault.OUT_OF_MEMORY),
        (700, Fault.ILLEGAL_ADDRESS),
        (46, Fault.DEVICE_LOST),
        (719, Fault.ILLEGAL_ADDRESS),
    ],
)
def test_cupys_own_exceptions_are_understood(status, fault):
    cupy = pytest.importorskip("cupy")
    assert fault_of(cupy.cuda.runtime.CUDARuntimeError(status)) is fault
    assert fault_of(cupy.cuda.memory.OutOfMemoryError(1, 2, 3)) is Fault.OUT_OF_MEMORY
