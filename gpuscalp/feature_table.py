"""Features as rows of a table: one chunk in memory, or an archive as a Parquet file, written chunk by chunk.

Owns: the layout of the rows. Never: holds more than one chunk in memory.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuscalp.archive import Archive, choose_venue
from gpuscalp.config import FeatureConfig, GridConfig, to_dict
from gpuscalp.errors import DataError, UsageError
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import F64, FeatureChunk

if TYPE_CHECKING:
    from gpuscalp.arrow import pa


def write_features(
    archive_path: Path,
    out: Path,
    *,
    venue: str | None = None,
    symbols: Sequence[str] = (),
    columns: Sequence[str] = (),
    grid: GridConfig | None = None,
    features: FeatureConfig | None = None,
    device: str = "cpu",
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Compute features of an archive and write them as Parquet.

    The rows are those of ``feature_rows``. The metadata key ``gpuscalp`` holds the hash of the graph, the
    venue and the grid.

    Parameters
    ----------
    archive_path, out : from and to; ``out`` appears only once it is complete
    venue, symbols : what of the archive; see archive.choose_venue
    columns : shell patterns; empty = all
    grid, features : the graph
    device : "cpu", "cuda"
    on_progress : told the instant reached and the last one, in seconds from the first

    Returns
    -------
    dict with out, rows, columns, frames, symbols, venue, hash

    Raises
    ------
    DataError, UsageError
    """
    from gpuscalp.arrow import pq

    # Refused before the work and not after it.
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(
            "the table cannot be written there",
            where="--out",
            value=str(out),
            fix="name a file in a folder that exists",
        )
    archive = Archive.open(archive_path)
    name = choose_venue(archive, venue)
    pipeline = FeaturePipeline(
        grid=grid or GridConfig(),
        features=features or FeatureConfig(),
        instruments=archive.instruments(name, symbols),
        device=device,
    )
    graph = pipeline.graph
    schema = feature_schema(pipeline, columns, venue=name)
    first_ns, last_ns = archive.time_range(name, symbols)
    partial = out.with_name(f".{out.name}.partial")
    frame_count = 0
    try:
        # Hardly two values of a feature are equal: dictionaries of them take time and half again the bytes.
        with pq.ParquetWriter(partial, schema, compression="zstd", use_dictionary=["symbol"]) as writer:
            for chunk in pipeline.batch(archive.tick_batches(name, symbols)):
                writer.write_batch(feature_rows(pipeline, chunk, schema))
                frame_count += len(chunk.frames)
                on_progress((chunk.frames.end_ns[-1] - first_ns) / 1e9, (last_ns - first_ns) / 1e9, "")
        if frame_count == 0:
            raise DataError("the ticks close no frame: there are no features", where=str(archive_path))
        partial.replace(out)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    return {
        "out": out,
        "rows": frame_count * len(pipeline.instruments),
        "frames": frame_count,
        "columns": len(graph.matching(columns)),
        "symbols": list(graph.symbols),
        "venue": name,
        "hash": graph.hash,
    }


def feature_schema(
    pipeline: FeaturePipeline, columns: Sequence[str] = (), *, venue: str | None = None
) -> pa.Schema:
    """Return the schema of ``feature_rows``.

    Parameters
    ----------
    columns : shell patterns of the features; empty = all
    venue : that the metadata name; None = that of the instruments
    """
    from gpuscalp.arrow import pa

    about = {
        "hash": pipeline.graph.hash,
        "venue": venue or pipeline.instruments[0].venue,
        "grid": to_dict(pipeline.grid),
    }
    return pa.schema(
        [
            ("symbol", pa.dictionary(pa.int32(), pa.string())),
            ("end_ns", pa.int64()),
            ("quality", pa.uint32()),
            ("mid", pa.float64()),
            *((column.name, pa.float32()) for column in pipeline.graph.matching(columns)),
        ],
        metadata={"gpuscalp": json.dumps(about)},
    )


def mid_price(pipeline: FeaturePipeline, chunk: FeatureChunk) -> F64:
    """Return the mid of every frame, float64[T, S], quote currency; NaN without a quote on both sides."""
    tick_size = np.array([instrument.tick_size for instrument in pipeline.instruments])
    bid, ask = chunk.frames.bid_px.astype(np.int64), chunk.frames.ask_px.astype(np.int64)
    return np.where((bid > 0) & (ask > 0), (bid + ask) * 0.5 * tick_size, np.nan)


def feature_rows(pipeline: FeaturePipeline, chunk: FeatureChunk, schema: pa.Schema) -> pa.RecordBatch:
    """Return a chunk as rows: one for each symbol and frame, frames outermost, in the order of the symbols.

    ``symbol``, ``end_ns`` (int64, exchange time at which the frame ended), ``quality`` (uint32, see
    schema.Quality), ``mid`` (float64, quote currency; NaN until quoted), then one float32 column for each
    feature; NaN = not known.

    Parameters
    ----------
    pipeline : has made the chunk, in batch or as a stream
    chunk : on the host; copied, so that a stream may go on
    schema : as ``feature_schema`` returns it
    """
    from gpuscalp.arrow import pa

    frame_count, symbol_count = len(chunk.frames), len(pipeline.instruments)
    names = pa.array([instrument.symbol for instrument in pipeline.instruments])
    index = pa.array(np.tile(np.arange(symbol_count, dtype=np.int32), frame_count))
    arrays = [
        pa.DictionaryArray.from_arrays(index, names),
        pa.array(np.repeat(chunk.frames.end_ns, symbol_count)),
        pa.array(chunk.frames.quality.flatten()),
        pa.array(mid_price(pipeline, chunk).ravel()),
    ]
    at = [pipeline.graph.index(name) for name in schema.names[len(arrays) :]]
    arrays += [pa.array(chunk.features[:, column].T.flatten()) for column in at]
    return pa.record_batch(arrays, schema=schema)
