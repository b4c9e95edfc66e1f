"""A GPU that is there, for whole pipelines: kernels run on the host, few threads and blocks at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from gpuscalp.ops import (
    by_device,
    cuda_context,
    cuda_forest,
    cuda_formulas,
    cuda_frames,
    cuda_ladder,
    cuda_row_digest,
)
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.host_shim.host_device import HostDevice
from tests.host_shim.ladder_threads import ladder_threads


@contextmanager
def gpu_on_host(seed: int | None = None) -> Iterator[HostDevice]:
    """Yield the device. Each thread is a fibre: small blocks are fast, and small inputs cross their borders.

    Parameters
    ----------
    seed : order of threads and blocks; see ``HostKernel.launch``
    """
    with (
        cuda_on_host(seed=seed) as device,
        mock.patch.object(by_device, "probe_cuda"),
        mock.patch.multiple(cuda_ladder, TILE_FRAMES=200, BATCH_BLOCKS=50, STEP_THREADS=8),
        ladder_threads(8),
        mock.patch.object(cuda_context, "THREADS", 32),
        mock.patch.multiple(cuda_frames, FOLD_THREADS=8, CELL_THREADS=8, CARRY_SYMBOLS=2, CARRY_STRETCHES=4),
        mock.patch.object(cuda_formulas, "THREADS", 32),
        mock.patch.object(cuda_row_digest, "THREADS", 32),
        mock.patch.multiple(cuda_forest, LEAF_THREADS=32, MARGIN_THREADS=32),
    ):
        yield device
