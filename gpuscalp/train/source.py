"""Where chunks of features come from: the seam between training and the archive.

Owns: walking one venue's symbols through the feature pipeline, as often as it is asked to.
Never: keeps features between two walks. They are cheaper to make again than to store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

from gpuscalp.config import FeatureConfig, TrainConfig
from gpuscalp.contract import GraphLike
from gpuscalp.errors import UsageError
from gpuscalp.schema import FeatureChunk
from gpuscalp.train.device import HOST_CHUNK_BYTES, training_device

_CHUNK_COLUMNS: Final = 256
_CHUNK_FRAMES_MIN: Final = 1_024
_CHUNK_FRAMES_MAX: Final = 4_096  # of a chunk of HOST_CHUNK_BYTES; in proportion for larger ones
_BATCH_TICKS: Final = 65_536

if TYPE_CHECKING:
    from gpuscalp.archive import Archive
    from gpuscalp.pipeline import FeaturePipeline


class FeatureSource(Protocol):
    """A recording that can be walked again and again, with equal chunks each time."""

    @property
    def venue(self) -> str: ...
    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def graph(self) -> GraphLike: ...
    @property
    def trade_delays_ms(self) -> tuple[float, ...]:
        """By how much trades are dated later than they were made (``gpuscalp.archive.manifest.Manifest``)."""

    def chunks(self) -> Iterator[FeatureChunk]:
        """Yield consecutive chunks from the beginning; the caller may stop early."""
        ...

    def digest(self) -> str:
        """Return what identifies the data."""
        ...


@final
@dataclass(frozen=True, slots=True)
class ArchiveSource:
    """Chunks of an archive, computed anew at each walk.

    Every walk begins at the same tick, so that state which reaches far back (the last quote, the last mark)
    is the same in each of them.
    """

    archive: Archive
    config: TrainConfig
    symbols: tuple[str, ...]
    start_ns: int | None
    end_ns: int | None
    pipeline: FeaturePipeline

    @classmethod
    def open(
        cls,
        archive: Archive,
        config: TrainConfig,
        *,
        start_ns: int | None = None,
        end_ns: int | None = None,
        threads: int = 2,
        device: str = "cpu",
        chunk_bytes: int | None = None,
    ) -> ArchiveSource:
        """Choose the symbols and build the pipeline, which leaves the features on ``device``.

        Parameters
        ----------
        chunk_bytes : of the features of one chunk; None: as the device has room for at this moment

        Raises
        ------
        UsageError
            the archive has no such venue or symbol, or nothing in the range; the leader is none of them
        DeviceError
            the device cannot run here
        """
        from gpuscalp.pipeline import FeaturePipeline

        symbols = config.symbols or archive.symbols(config.venue)
        archive.span(config.venue, symbols, start_ns, end_ns)
        leader = config.features.leader
        if leader not in symbols and leader != FeatureConfig().leader:  # the default: a warning
            raise UsageError(
                "the leader is not among the symbols",
                where="features.leader",
                value=leader,
                fix=f"one of: {', '.join(symbols)}",
            )
        pipeline = FeaturePipeline(
            grid=config.grid,
            features=config.features,
            instruments=archive.instruments(config.venue, symbols),
            device=device,
            threads=threads,
            chunk_frames=chunk_frames(len(symbols), chunk_bytes or training_device(device).chunk_bytes),
            keep_on_device=True,
        )
        return cls(archive, config, tuple(symbols), start_ns, end_ns, pipeline)

    @property
    def venue(self) -> str:
        return self.config.venue

    @property
    def graph(self) -> GraphLike:
        return self.pipeline.graph

    @property
    def trade_delays_ms(self) -> tuple[float, ...]:
        return self.archive.manifest.trade_delays_ms(self.venue, self.symbols)

    def chunks(self) -> Iterator[FeatureChunk]:
        return self.pipeline.batch(
            self.archive.tick_batches(
                self.venue,
                self.symbols,
                start_ns=self.start_ns,
                end_ns=self.end_ns,
                max_ticks=_BATCH_TICKS,
            )
        )

    def digest(self) -> str:
        first, last = self.archive.time_range(self.venue, self.symbols)
        return self.archive.digest(self.venue, self.symbols, self.start_ns or first, self.end_ns or last)


def chunk_frames(symbol_count: int, chunk_bytes: int = HOST_CHUNK_BYTES) -> int:
    """Return the frames per chunk that keep its features near ``chunk_bytes``; the bits do not change."""
    frames = chunk_bytes // (4 * _CHUNK_COLUMNS * symbol_count)
    largest = _CHUNK_FRAMES_MAX * max(chunk_bytes // HOST_CHUNK_BYTES, 1)
    return min(max(frames, _CHUNK_FRAMES_MIN), largest)
