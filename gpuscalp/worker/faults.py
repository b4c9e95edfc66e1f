"""What can go wrong with a worker, what of it an exception tells, and how it is made to go wrong on purpose.

Owns: the kinds, the words for them on a command line, the reading of exceptions. Never: ends a process.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from gpuscalp.errors import UsageError


class Fault(StrEnum):
    """Why a worker has failed."""

    OUT_OF_MEMORY = "out_of_memory"
    ILLEGAL_ADDRESS = "illegal_address"  # any error of the CUDA runtime that is none of the others
    HANG = "hang"
    WRONG_ANSWER = "wrong_answer"
    KILLED = "killed"  # the process has ended, whoever ended it
    START_FAILED = "start_failed"
    BEHIND = "behind"  # frames wait for it that there is no room for
    DEVICE_LOST = "device_lost"


class WorkerFault(Struct, frozen=True, forbid_unknown_fields=True):
    """A fault that a worker brings about itself, for tests and rehearsals.

    Attributes
    ----------
    at_frame : frames that the process answers before; the next one meets the fault
    part : of a wrong answer: where one bit is turned
    always : in every process of the worker; otherwise in its first alone, so that the next one lives
    """

    kind: Fault
    at_frame: Annotated[int, Meta(ge=0)] = 0
    part: Literal["margin", "digest", "canary"] = "margin"
    always: bool = False


def parse_fault(text: str) -> WorkerFault:
    """Read ``kind:name=value,name=value``, for instance ``hang:at_frame=200``.

    Raises
    ------
    UsageError
        the kind or a name is unknown, a value is out of range, or a worker cannot bring it about
    """
    kind, _, rest = text.partition(":")
    values: dict[str, object] = {"kind": kind}
    for item in filter(None, rest.split(",")):
        name, _, value = item.partition("=")
        values[name] = value
    can = [fault for fault in Fault if fault is not Fault.BEHIND]
    try:
        fault = msgspec.convert(values, WorkerFault, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(
            "no such fault of a worker", where=text, value=str(error), fix=f"kinds: {', '.join(can)}"
        ) from None
    if fault.kind not in can:
        raise UsageError(
            "this fault cannot be injected: a worker is only behind when it is slow",
            where=text,
            fix=f"kinds: {', '.join(can)}",
        )
    return fault


# A card that has left its bus shows as any of these (cudaError_t; CUDA Runtime API, "Data types").
_LOST: Final = ("cudaerrornodevice", "cudaerrordevicesunavailable", "cudaerrorunknown")


def fault_of(error: Exception) -> Fault | None:
    """Return what an exception of CuPy or XGBoost says about the device; None: it says nothing of it.

    Both name the code in their text ("cudaErrorIllegalAddress: …"), the driver's API as CUDA_ERROR_….
    """
    text = str(error).lower().replace("_", "")
    if (
        isinstance(error, MemoryError)
        or "cudaerrormemoryallocation" in text
        or "cudaerroroutofmemory" in text
    ):
        return Fault.OUT_OF_MEMORY
    if any(name in text for name in _LOST):
        return Fault.DEVICE_LOST
    return Fault.ILLEGAL_ADDRESS if "cudaerror" in text else None
