"""Blocks of another size for ``cuda_ladder.batch``, whose kernel is compiled for the size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

from gpuscalp.ops import cuda_ladder
from gpuscalp.ops.cuda_module import load_module


@contextmanager
def ladder_threads(count: int) -> Iterator[None]:
    """Let blocks of the ladder's batch have ``count`` threads, a power of two."""
    compiled = partial(load_module, defines={"BATCH_THREADS": count})
    with mock.patch.multiple(cuda_ladder, BATCH_THREADS=count, load_module=compiled):
        yield
