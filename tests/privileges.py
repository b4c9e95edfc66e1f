"""Calls that the rights of files bind like anybody's, also where root runs the tests."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

Answer = TypeVar("Answer")
_VERSION_3 = 0x20080522
_OVERRIDE = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable"))


def bound_by_rights(call: Callable[[], Answer]) -> Answer:
    """Return what a call returns that may not write where its user may not.

    In a thread of its own: capabilities(7) are a thread's, and what has given one up does not get it back.
    """
    with ThreadPoolExecutor(1) as thread:
        if os.geteuid() == 0 and not thread.submit(_give_up).result():
            pytest.skip("this system has no capabilities that root could give up")
        return thread.submit(call).result()


def _give_up() -> bool:
    libc, header, held = ctypes.CDLL(None), _Header(_VERSION_3, 0), (_Data * 2)()
    if libc.capget(ctypes.byref(header), held):
        return False
    held[0].effective &= ~_OVERRIDE
    held[0].permitted &= ~_OVERRIDE
    return not libc.capset(ctypes.byref(header), held)
