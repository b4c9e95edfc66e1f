"""The same operations on either device: chosen once, then called under the same names.

Owns: which twins belong together, and the two ways between host and device. Never: falls back; ``"cuda"`` is
an error where it cannot run (gpuscalp.device).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, get_args

import numpy as np

from gpuscalp.device import DeviceName, import_cupy, probe_cuda
from gpuscalp.errors import DeviceError
from gpuscalp.ops.packed import Field, carve, packed_bytes
from gpuscalp.schema import I64, TICK, Ticks

Upload = Callable[[Ticks, I64, I64], tuple[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Ops:
    """Twins of one device.

    Attributes
    ----------
    xp : numpy or cupy
    frames, ladder, context : gpuscalp.ops.<name> or gpuscalp.ops.cuda_<name>
    tile_frames : int     what ``ladder.batch`` takes at a time; does not change the bits
    threaded : bool       whether several host threads make the batch faster
    upload : (ticks, offsets, end_ns) of whole frames → what ``frames.fold`` takes
    to_host : array → the same values as a NumPy array; waits for the device
    """

    device: DeviceName
    xp: ModuleType
    frames: ModuleType
    ladder: ModuleType
    context: ModuleType
    tile_frames: int
    threaded: bool
    upload: Upload
    to_host: Callable[[Any], Any]

    def tables(self, program: Any) -> Any:
        """Return a program (a named tuple of NumPy tables) with its tables on the device."""
        return type(program)(*(self.xp.asarray(table) for table in program))


def ops_for(device: str) -> Ops:
    """Return the operations of a device.

    Raises
    ------
    DeviceError    there is no such device, or it cannot run here
    """
    if device == "cpu":
        return _cpu()
    if device == "cuda":
        probe_cuda()
        return _cuda()
    raise DeviceError(
        "no operations for this device", value=device, fix=f"one of {', '.join(get_args(DeviceName))}"
    )


def _cpu() -> Ops:
    from gpuscalp.ops import context, frames, ladder

    return Ops(
        device="cpu",
        xp=np,
        frames=frames,
        ladder=ladder,
        context=context,
        tile_frames=4096,  # the elements of one group stay in the second-level cache
        threaded=True,
        upload=lambda *arrays: arrays,
        to_host=lambda array: array,
    )


def _cuda() -> Ops:
    from gpuscalp.ops import cuda_context, cuda_frames, cuda_ladder

    cupy = import_cupy()
    return Ops(
        device="cuda",
        xp=cupy,
        frames=cuda_frames,
        ladder=cuda_ladder,
        context=cuda_context,
        tile_frames=cuda_ladder.TILE_FRAMES,
        threaded=False,  # launches queue on one stream
        upload=_upload,
        to_host=cupy.asnumpy,
    )


def _upload(ticks: Ticks, offsets: I64, end_ns: I64) -> tuple[Any, Any, Any]:
    """Copy whole frames to the GPU at once: of ``ticks`` only those that ``offsets`` names, as bytes."""
    first, last = int(offsets[0]), int(offsets[-1])
    layout = (
        Field((last - first, TICK.itemsize), np.uint8),
        Field(offsets.shape, np.int64),
        Field(end_ns.shape, np.int64),
    )
    host = np.empty(packed_bytes(layout), np.uint8)
    to_ticks, to_offsets, to_end_ns = carve(host, layout)
    to_ticks[:] = np.ascontiguousarray(ticks[first:last]).view(np.uint8).reshape(to_ticks.shape)
    np.subtract(offsets, first, out=to_offsets)
    to_end_ns[:] = end_ns
    # CuPy copies from pinned memory of its own, which it holds until the device is done with it.
    on_device = carve(import_cupy().asarray(host), layout)
    return on_device[0], on_device[1], on_device[2]
