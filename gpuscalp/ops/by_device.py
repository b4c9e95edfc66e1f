"""The same operations on either device: chosen once, then called under the same names.

Owns: which twins belong together. Never: copies (ops/copies.py), or falls back; ``"cuda"`` is
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
from gpuscalp.ops import copies
from gpuscalp.ops.copies import Mirror
from gpuscalp.ops.staging import HostStaging, PinnedStaging, Staging
from gpuscalp.ops.tick_upload import TickUpload, upload_frames
from gpuscalp.schema import I64, Ticks

Upload = Callable[[Ticks, I64, I64], tuple[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Ops:
    """Twins of one device.

    Attributes
    ----------
    xp : numpy or cupy
    frames, ladder, context, formulas, forest : gpuscalp.ops.<name> or gpuscalp.ops.cuda_<name>
    tile_frames : int     what ``ladder.batch`` takes at a time; does not change the bits
    threaded : bool       whether several host threads make the batch faster
    ahead : int           blocks of frames to read ahead of the computing of a batch (gpuscalp.ops.ahead)
    staging : () → what moves a batch between host and device
    upload : (ticks, offsets, end_ns) of whole frames → what ``frames.fold`` takes; for one block at a time
    stream_upload : number of symbols → such an upload for one frame at a time, whose results it overwrites
    mirror : layout, how many of its arrays the host wants → ``copies.Mirror``
    to_device : NumPy array → the same values on the device
    to_host : array → the same values as a NumPy array; waits for the device
    """

    device: DeviceName
    xp: ModuleType
    frames: ModuleType
    ladder: ModuleType
    context: ModuleType
    formulas: ModuleType
    forest: ModuleType
    tile_frames: int
    threaded: bool
    ahead: int
    staging: Callable[[], Staging]
    upload: Upload
    stream_upload: Callable[[int], Upload]
    mirror: Callable[..., Mirror]
    to_device: Callable[[Any], Any]
    to_host: Callable[[Any], Any]

    def tables(self, program: Any) -> Any:
        """Return a program (a named tuple of NumPy tables) with its tables on the device."""
        return type(program)(*(self.to_device(table) for table in program))


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
    from gpuscalp.ops import context, forest, formulas, frames, ladder

    return Ops(
        device="cpu",
        xp=np,
        frames=frames,
        ladder=ladder,
        context=context,
        formulas=formulas,
        forest=forest,
        tile_frames=4096,  # the elements of one group stay in the second-level cache
        threaded=True,
        ahead=0,
        staging=HostStaging,
        upload=lambda *arrays: arrays,
        stream_upload=lambda _: lambda *arrays: arrays,
        mirror=copies.host_mirror,
        to_device=lambda array: array,
        to_host=lambda array: array,
    )


def _cuda() -> Ops:
    from gpuscalp.ops import cuda_context, cuda_forest, cuda_formulas, cuda_frames, cuda_ladder

    cupy = import_cupy()
    return Ops(
        device="cuda",
        xp=cupy,
        frames=cuda_frames,
        ladder=cuda_ladder,
        context=cuda_context,
        formulas=cuda_formulas,
        forest=cuda_forest,
        tile_frames=cuda_ladder.TILE_FRAMES,
        threaded=False,  # the launches of one call fill the card
        ahead=4,
        staging=PinnedStaging,
        upload=upload_frames,
        stream_upload=TickUpload,
        mirror=copies.pinned_mirror,
        to_device=copies.to_device,
        to_host=copies.to_host,
    )
