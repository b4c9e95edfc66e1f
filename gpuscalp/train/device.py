"""What training does differently on a CPU and on a GPU: the one place that asks which of them it is.

Owns: where rows lie, how they reach XGBoost, in which form it keeps them, and the second opinion about a
prediction. Never: falls back; ``"cuda"`` is an error where it cannot run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, Protocol, final

import numpy as np

from gpuscalp.boosters import Boosters
from gpuscalp.errors import DeviceError
from gpuscalp.ops.by_device import Ops, ops_for
from gpuscalp.ops.forest import Forest
from gpuscalp.schema import F32, I64
from gpuscalp.xgb import import_xgboost

# (x float32[R, F] where training happens) → float32[M, R, K] on the host
Predictor = Callable[[Any], F32]

# Bytes of one chunk's features; the look-ahead of the labels keeps two or three chunks.
HOST_CHUNK_BYTES: Final = 16_000_000
GPU_CHUNK_BYTES: Final = 2 << 30
# Of the GPU's free memory: for one chunk, for everything CuPy allocates, and for the binned rows. The rest is
# XGBoost's: gradients, predictions and histograms.
CHUNK_SHARE: Final = 1 / 32
POOL_SHARE: Final = 1 / 4
BINNED_SHARE: Final = 0.4
# XGBoost would size a page by the whole card. Up to four lie there: two of the matrix that is trained on, two
# of the one that stops the training.
PAGE_SHARE: Final = 1 / 16
# Less than this is for so few symbols that it is not offered.
MEMORY_MIN_MB: Final = 1_024
# XGBoost sketches block by block: one of few rows costs a GPU as much as one of many. The pool holds up to
# four chunks and, while rows are joined, two blocks.
GPU_BLOCK_BYTES: Final = 256_000_000
BLOCK_SHARE: Final = POOL_SHARE / 8


class TrainingDevice(Protocol):
    """One of the two.

    Attributes
    ----------
    name : "cpu" or "cuda"
    chunk_bytes : of the features of one chunk
    page_bytes : of binned rows that pass through a GPU page by page; None on a CPU
    block_bytes : of the rows that are handed over at once, to XGBoost or a predictor, while there are more
    comparison_reason : why predictions are, or are not, compared with another device's
    """

    @property
    def name(self) -> str: ...
    @property
    def chunk_bytes(self) -> int: ...
    @property
    def block_bytes(self) -> int: ...
    @property
    def page_bytes(self) -> int | None: ...
    @property
    def comparison_reason(self) -> str: ...

    def session(self) -> AbstractContextManager[None]:
        """Return what is to surround a training run: limits of memory, and XGBoost's allocator."""
        ...

    def gather(self, features: Any, at: I64) -> Any:
        """Return float32[R, F], C-contiguous, of float32[F, T] and the R frames ``at``."""
        ...

    def put(self, array: Any) -> Any:
        """Return an array of the host where training happens."""
        ...

    def join(self, blocks: Sequence[Any]) -> Any:
        """Return blocks of rows as one."""
        ...

    def to_host(self, array: Any) -> Any: ...

    def taken(self, rows: Any, at: I64) -> F32:
        """Return float32[N, F] on the host: the rows ``at`` alone, of float32[R, F]."""
        ...

    def release(self) -> None:
        """Give back what is kept for the next chunks: the rows are binned, and XGBoost wants the room."""
        ...

    def matrix_type(self, rows: int, columns: int, max_bin: int) -> str:
        """Return the name of XGBoost's class for the binned rows."""
        ...

    def complete_row(self, block: Any) -> Any:
        """Return float32[1, F] that misses nothing, of values of a block; None where it is of no use."""
        ...

    def predictor(self, forest: Forest) -> Predictor:
        """Return the forest's prediction, where the rows lie."""
        ...

    def opinions(self, forest: Forest, boosters: Sequence[Any]) -> tuple[Predictor, Predictor] | None:
        """Return the forest on the other device and XGBoost on this one; None where there is no other."""
        ...


def training_device(name: str, *, gpu_memory_mb: int | None = None) -> TrainingDevice:
    """Return the device of a training run.

    Parameters
    ----------
    gpu_memory_mb : what is made to fit takes a GPU for one with so much free memory, MiB; None: all of it

    Raises
    ------
    DeviceError    there is no such device, it cannot run here, or too little of its memory is free
    """
    ops = ops_for(name)
    return _Host(ops) if ops.device == "cpu" else _Gpu(ops, gpu_memory_mb)


def binned_bytes(rows: int, columns: int, max_bin: int) -> int:
    """Return the most that XGBoost keeps of binned rows on a GPU, in bytes; one of them misses nothing.

    Then it numbers the bins of one column, and one more for nothing, in as many bits as that takes; where
    every row misses something those of all columns together, nearly twice as many bits (XGBoost 3,
    ``CalcNumSymbols`` in ``ellpack_page.cu``).
    """
    return rows * columns * max_bin.bit_length() // 8


def predict_host(forest: Forest) -> Predictor:
    """Return the forest's prediction of rows on the host, by the CPU twin."""
    return _predictor(ops_for("cpu"), forest)


@final
class _Host:
    name = "cpu"
    chunk_bytes = HOST_CHUNK_BYTES
    block_bytes = 1
    page_bytes: int | None = None
    comparison_reason = "not made: this run used no GPU, so there are no predictions of a second device"

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def session(self) -> AbstractContextManager[None]:
        return nullcontext()

    def gather(self, features: Any, at: I64) -> Any:
        return np.ascontiguousarray(features.T[at])

    def put(self, array: Any) -> Any:
        return array

    def join(self, blocks: Sequence[Any]) -> Any:
        return np.concatenate(blocks)

    def to_host(self, array: Any) -> Any:
        return array

    def taken(self, rows: Any, at: I64) -> F32:
        return rows[at]  # type: ignore[no-any-return]

    def release(self) -> None:
        pass

    def matrix_type(self, rows: int, columns: int, max_bin: int) -> str:  # noqa: ARG002
        return "QuantileDMatrix"

    def complete_row(self, block: Any) -> Any:  # noqa: ARG002
        return None

    def predictor(self, forest: Forest) -> Predictor:
        return _predictor(self._ops, forest)

    def opinions(
        self,
        forest: Forest,  # noqa: ARG002
        boosters: Sequence[Any],  # noqa: ARG002
    ) -> tuple[Predictor, Predictor] | None:
        return None


@final
class _Gpu:
    name = "cuda"
    comparison_reason = (
        "the held-out rows were predicted by the forest on both devices, and by XGBoost on CUDA"
    )

    def __init__(self, ops: Ops, memory_mb: int | None) -> None:
        self._ops = ops
        self._pool = ops.xp.get_default_memory_pool()
        self._limit_bytes = None if memory_mb is None else memory_mb << 20
        free_bytes = self._free_bytes(self._pool.free_bytes())
        if free_bytes < MEMORY_MIN_MB << 20:
            raise DeviceError(
                "too little of the GPU's memory is free for a training",
                where="free, or given by --gpu-memory-mb",
                value=f"{free_bytes >> 20} MiB",
                fix=f"at least {MEMORY_MIN_MB} MiB: free the GPU, or use --device cpu",
            )
        self._pool_bytes = int(POOL_SHARE * free_bytes)
        self.chunk_bytes = min(GPU_CHUNK_BYTES, _power_of_two(CHUNK_SHARE * free_bytes))
        self.page_bytes: int | None = _power_of_two(PAGE_SHARE * free_bytes)
        self.block_bytes = min(GPU_BLOCK_BYTES, _power_of_two(BLOCK_SHARE * free_bytes))

    @contextmanager
    def session(self) -> Iterator[None]:
        xgboost = import_xgboost()
        if not xgboost.build_info().get("USE_CUDA"):
            raise DeviceError(
                "this XGBoost was built without CUDA",
                where="xgboost",
                value=xgboost.__version__,
                fix="install the CUDA build of XGBoost (docs/install.md), or use --device cpu",
            )
        pool = self._pool
        out_of_memory = self._ops.xp.cuda.memory.OutOfMemoryError
        before = pool.get_limit()
        pool.set_limit(size=self._pool_bytes)
        try:
            # Pages of the external memory come and go all the time; XGBoost needs this pool for them.
            with xgboost.config_context(use_cuda_async_pool=True):
                yield
        except out_of_memory as error:
            raise DeviceError(
                "features do not fit the GPU",
                where=f"CuPy's pool of {self._pool_bytes >> 20} MiB",
                value=error,
                fix="fewer symbols (a chunk has 1,024 frames of all of them), more memory, or --device cpu",
            ) from error
        except xgboost.core.XGBoostError as error:
            if "cudaErrorMemoryAllocation" not in str(error):
                raise
            raise DeviceError(
                "the GPU has too little free memory for XGBoost",
                where="xgboost",
                value=str(error).splitlines()[0],
                fix="a smaller booster.max_bin or max_depth, free the GPU, or --device cpu",
            ) from error
        finally:
            pool.set_limit(size=before)

    def gather(self, features: Any, at: I64) -> Any:
        xp = self._ops.xp
        column_count, frame_count = features.shape
        whole = xp.empty((frame_count, column_count), np.float32)
        # Turned whole by tiles, then taken by rows: both read and write neighbours.
        self._ops.context.transpose(xp.ascontiguousarray(features), whole)
        return whole if len(at) == frame_count else whole[self.put(at)]

    def put(self, array: Any) -> Any:
        return self._ops.to_device(array)

    def join(self, blocks: Sequence[Any]) -> Any:
        return self._ops.xp.concatenate(blocks)

    def to_host(self, array: Any) -> Any:
        return self._ops.to_host(array)

    def taken(self, rows: Any, at: I64) -> F32:
        return self.to_host(rows[self.put(at)])  # type: ignore[no-any-return]

    def release(self) -> None:
        # Four chunks and two blocks, 7.7 GB with chunks of 2 GiB: unused while XGBoost boosts.
        self._pool.free_all_blocks()

    def matrix_type(self, rows: int, columns: int, max_bin: int) -> str:
        """In the GPU's memory where there is room, else in the host's, page by page on its way through."""
        # What CuPy's pool has taken is no matter, as it has a share of its own: by the end of a fold it has
        # taken all of that, and rows that had room would be told that they have none.
        free_bytes = self._free_bytes(self._pool.total_bytes())
        fits = binned_bytes(rows, columns, max_bin) <= BINNED_SHARE * free_bytes
        return "QuantileDMatrix" if fits else "ExtMemQuantileDMatrix"

    def complete_row(self, block: Any) -> Any:
        xp = self._ops.xp
        known = ~xp.isnan(block)
        row = block[known.argmax(axis=0), xp.arange(block.shape[1])]
        return xp.where(known.any(axis=0), row, np.float32(0.0))[None]

    def predictor(self, forest: Forest) -> Predictor:
        return _predictor(self._ops, forest)

    def opinions(self, forest: Forest, boosters: Sequence[Any]) -> tuple[Predictor, Predictor] | None:
        on_host = predict_host(forest)

        theirs = Boosters([bytes(booster.save_raw("ubj")) for booster in boosters], "cuda")

        def by_xgboost(x: Any) -> F32:
            out = self._ops.xp.empty((forest.member_count, len(x), forest.class_count), np.float32)
            theirs.margins(x, out)
            return self.to_host(out)  # type: ignore[no-any-return]

        return lambda x: on_host(self.to_host(x)), by_xgboost

    def _free_bytes(self, pool_bytes: int) -> int:
        """Return what is free, with so much of what the pool has taken."""
        free_bytes = int(self._ops.xp.cuda.runtime.memGetInfo()[0]) + int(pool_bytes)
        return free_bytes if self._limit_bytes is None else min(free_bytes, self._limit_bytes)


def _power_of_two(size: float) -> int:
    """Return the largest that is not above ``size``.

    XGBoost sketches block by block: other sizes are other bins, and another model. So they must not follow
    every megabyte that somebody else has on the card.
    """
    return 1 << int(size).bit_length() - 1


def _predictor(ops: Ops, forest: Forest) -> Predictor:
    scratch = ops.forest.ForestScratch.of(forest)

    def predict(x: Any) -> F32:
        out = ops.xp.empty((forest.member_count, len(x), forest.class_count), np.float32)
        ops.forest.predict_margins(forest, x, out=out, scratch=scratch)
        return ops.to_host(out)  # type: ignore[no-any-return]

    return predict
