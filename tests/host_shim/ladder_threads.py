"""Blocks of another size for ``cuda_ladder.batch``, whose kernels are compiled for the size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from gpuscalp.ops import cuda_ladder
from tests.host_shim.cuda_on_host import DEFINES


@contextmanager
def ladder_threads(count: int) -> Iterator[None]:
    """Let blocks of the ladder's batch have ``count`` threads, a power of two.

    For kernels on the host that are not loaded yet.
    """
    with (
        mock.patch.object(cuda_ladder, "BATCH_THREADS", count),
        mock.patch.dict(DEFINES, ladder={"BATCH_THREADS": count}),
    ):
        yield
