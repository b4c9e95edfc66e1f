"""For notebooks: frames, features, training rows and predictions of an archive as Arrow tables in memory.

Every table has one row for each symbol and frame, frames outermost, and times as timestamps (ns, UTC). The
features are those of training, backtest and live sessions; nothing is computed here in a way of its own.

Owns: the range that is read, and the form of the tables. docs/python.md tells how they are used.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
import numpy.typing as npt

from gpuscalp.archive import Archive, choose_venue
from gpuscalp.backtest.run import lead_ns, within
from gpuscalp.backtest.saved import times
from gpuscalp.bundle import Bundle, load_bundle, margins_on, read_contract
from gpuscalp.config import FeatureConfig, GridConfig, TrainConfig
from gpuscalp.device import RequestedDevice, resolve
from gpuscalp.errors import DataError, FeatureMismatchError
from gpuscalp.feature_table import feature_rows, feature_schema
from gpuscalp.features import FeatureGraph
from gpuscalp.frames import blocks_within, frame_blocks
from gpuscalp.labels import Direction, label_horizon_ns
from gpuscalp.pipeline import FeaturePipeline
from gpuscalp.schema import F32, NS_PER_MS, NS_PER_S, Channel, Ticks
from gpuscalp.splits import Fold, walk_forward
from gpuscalp.train.dataset import LabelledChunk, count_rows, labelled_chunks
from gpuscalp.train.source import ArchiveSource

if TYPE_CHECKING:
    from gpuscalp.arrow import pa

__all__ = [
    "TrainingRows",
    "load_model",
    "matrix",
    "predict",
    "read_features",
    "read_frames",
    "training_rows",
]

# So much is read before what is wanted, for its first frames to have a quote and a mark price.
_QUOTES_NS: Final = 60 * NS_PER_S
_EVER: Final = np.iinfo(np.int64).max

Flags = npt.NDArray[np.bool_]


def read_frames(
    archive: Archive | Path | str,
    *,
    venue: str | None = None,
    symbols: Sequence[str] = (),
    start_ns: int | None = None,
    end_ns: int | None = None,
    grid: GridConfig | None = None,
) -> pa.Table:
    """Return frames without features: what a tenth of a second of each symbol comes to.

    ``symbol``, ``end_ns``, ``quality`` (schema.Quality), ``bid``, ``ask``, ``mark`` (quote currency; NaN
    until known), then the channels of ``schema.Channel`` in lower case, float32.

    Parameters
    ----------
    archive : an archive, or its directory
    venue, symbols : what of it; the only venue, and all symbols
    start_ns, end_ns : frames that end in (start, end], exchange time; None is open
    grid : the frames

    Raises
    ------
    ArchiveError, UsageError    as the archive
    DataError                   no frame closes in the range
    """
    from gpuscalp.arrow import pa, timed

    opened, name, begin_ns, finish_ns = _range(archive, venue, symbols, start_ns, end_ns)
    grid, instruments = grid or GridConfig(), opened.instruments(name, symbols)
    tick_size = np.array([instrument.tick_size for instrument in instruments])
    names = np.array([instrument.symbol for instrument in instruments])
    batches = _ticks(opened, name, symbols, None if start_ns is None else start_ns - _QUOTES_NS, end_ns, grid)
    parts = []
    for kept in blocks_within(frame_blocks(batches, grid, instruments), begin_ns, finish_ns):
        quoted = {
            side: np.where(px > 0, px * tick_size, np.nan)
            for side, px in (("bid", kept.bid_px), ("ask", kept.ask_px))
        }
        channels = {channel.name.lower(): kept.channels[:, channel] for channel in Channel}
        columns = {"quality": kept.quality, **quoted, "mark": kept.mark, **channels}
        parts.append(
            pa.table(
                {
                    "symbol": pa.array(np.tile(names, len(kept))).dictionary_encode(),
                    "end_ns": np.repeat(kept.end_ns, len(names)),
                    **{column: values.flatten() for column, values in columns.items()},
                }
            )
        )
    return timed(pa.concat_tables(_some(parts, opened)).unify_dictionaries())


def read_features(
    archive: Archive | Path | str,
    *,
    bundle: Bundle | None = None,
    venue: str | None = None,
    symbols: Sequence[str] = (),
    columns: Sequence[str] = (),
    start_ns: int | None = None,
    end_ns: int | None = None,
    grid: GridConfig | None = None,
    features: FeatureConfig | None = None,
    device: RequestedDevice = "cpu",
    threads: int = 2,
) -> pa.Table:
    """Return features in batch: ``symbol, end_ns, quality, mid``, then one float32 column for each feature.

    What lies before the range is read as far as the longest window reaches, and a minute more, so that its
    first rows are those of a pass over all of the archive: but for a symbol that had no quote in that minute.

    Parameters
    ----------
    archive : an archive, or its directory
    bundle : take symbols, frames and features from this model (and its venue, unless one is named)
    venue, symbols : what of the archive; the only venue, and all symbols. The leader's columns and those
        across symbols are made of these symbols
    columns : shell patterns of the features; empty = all
    start_ns, end_ns : frames that end in (start, end], exchange time; None is open
    grid, features : the frames and the features, where no bundle says them
    device, threads : do not change the bits

    Raises
    ------
    ArchiveError, UsageError    as the archive; a pattern matches no column
    DataError                   no frame closes in the range
    DeviceError                 the device cannot run here
    """
    from gpuscalp.arrow import pa, timed

    if bundle is not None:
        training = bundle.contract.training
        venue, symbols = venue or training.venue, training.symbols
        grid, features = training.config.grid, training.config.features
    opened, name, begin_ns, finish_ns = _range(archive, venue, symbols, start_ns, end_ns)
    pipeline = FeaturePipeline(
        grid=grid or GridConfig(),
        features=features or FeatureConfig(),
        instruments=opened.instruments(name, symbols),
        device=resolve(device).name,
        threads=threads,
    )
    schema = feature_schema(pipeline, columns, venue=name)
    read_from_ns = None if start_ns is None else start_ns - lead_ns(pipeline) - _QUOTES_NS
    batches = _ticks(opened, name, symbols, read_from_ns, end_ns, pipeline.grid)
    chunks = within(pipeline.batch(batches), begin_ns, finish_ns)
    parts = [feature_rows(pipeline, chunk, schema) for chunk in chunks]
    return timed(pa.Table.from_batches(_some(parts, opened)))


def matrix(rows: Any, names: Sequence[str] | None = None) -> F32:
    """Return columns of a table as float32[R, F], C-contiguous: what XGBoost and an ensemble take.

    Parameters
    ----------
    rows : an Arrow table, or what can be made one: a data frame of pandas, Polars or cuDF, a dict of arrays
    names : the columns, in this order; None = all of float32, which in the tables above are the features

    Raises
    ------
    UsageError    no table can be made of the rows, or a column is missing or holds no numbers
    """
    from gpuscalp.arrow import numbers_of, pa, table_of

    table = table_of(rows)
    if names is None:
        names = [field.name for field in table.schema if field.type == pa.float32()]
    x = np.empty((table.num_rows, len(names)), np.float32)
    for index, name in enumerate(names):
        x[:, index] = numbers_of(table, name)
    return x


def load_model(path: Path | str, *, device: RequestedDevice = "cpu") -> Bundle:
    """Load a bundle for the features that it was trained on, and refuse it as ``load_bundle`` does.

    Parameters
    ----------
    path : the bundle's directory
    device : where its canary rows are computed

    Raises
    ------
    FeatureMismatchError    this version computes other features than the bundle was trained on
    ModelError              see ``load_bundle``
    """
    path = Path(path)
    training = read_contract(path).training
    graph = FeatureGraph(training.config.grid, training.config.features, training.symbols)
    return load_bundle(path, graph=graph, device=resolve(device).name)


def predict(bundle: Bundle, rows: Any, *, device: RequestedDevice = "cpu") -> pa.Table:
    """Return what a model says about rows, in their order.

    ``symbol`` and ``end_ns`` where the rows have them, ``p_down``, ``p_flat``, ``p_up`` (calibrated),
    ``agreement`` (share of the members, 0 … 1), ``spread_bps`` (between the members), ``edge_bps`` (expected
    mid return over the label's horizon, signed, before costs), float64.

    Parameters
    ----------
    bundle : Bundle
    rows : as ``matrix`` takes them, with all columns of the model by name; others are ignored
    device : where the margins are computed; does not change the bits

    Raises
    ------
    FeatureMismatchError    a column is missing, or the rows say that they are of other features
    UsageError              no table can be made of the rows, or a column holds no numbers
    DeviceError             the device cannot run here
    """
    from gpuscalp.arrow import pa, table_of

    contract, table = bundle.contract, table_of(rows)
    missing = [name for name in contract.names if name not in table.column_names]
    told = json.loads((table.schema.metadata or {}).get(b"gpuscalp", b"{}")).get("hash")
    if missing or told not in (None, contract.graph_hash):
        raise FeatureMismatchError(
            "the rows are not of the features that the model was trained on",
            where=str(bundle.path),
            value=f"{missing[0]} is missing"
            if missing
            else f"hash {told}, the model's is {contract.graph_hash}",
            fix="read_features(archive, bundle=bundle)",
        )
    x = matrix(table, contract.names)
    signals = bundle.ensemble.combine(margins_on(resolve(device).name, bundle.ensemble.forest, x))
    said = {name: table[name] for name in ("symbol", "end_ns") if name in table.column_names}
    said |= {f"p_{side.name.lower()}": signals.probability[:, side] for side in Direction}
    said |= {"agreement": signals.agreement, "spread_bps": signals.spread, "edge_bps": signals.edge_bps}
    return pa.table(said)


@final
@dataclass(frozen=True, slots=True)
class TrainingRows:
    """What ``train`` would train on, and its folds.

    Attributes
    ----------
    table : as ``read_features`` returns it, with four columns behind ``mid``: ``direction`` (int8,
        ``labels.Direction``), ``return_bps`` (mid return over the label), ``weight`` (average uniqueness),
        ``label_end_ns``
    folds : in the order of time
    horizon_ns : from the end of a row's frame until its label is known
    """

    table: pa.Table
    folds: tuple[Fold, ...]
    horizon_ns: int

    def train(self, fold: Fold) -> Flags:
        """bool[R]: rows to train on, purged of those whose labels reach the embargo."""
        end_ns = times(self.table, "end_ns")
        return fold.train_rows(end_ns, end_ns + self.horizon_ns)

    def test(self, fold: Fold) -> Flags:
        """bool[R]: rows held out."""
        end_ns = times(self.table, "end_ns")
        return fold.test_rows(end_ns, end_ns + self.horizon_ns)


def training_rows(
    archive: Archive | Path | str,
    config: TrainConfig,
    *,
    start_ns: int | None = None,
    end_ns: int | None = None,
    threads: int = 2,
) -> TrainingRows:
    """Return labelled rows in memory: those of sound frames, with a label, on the stride.

    ``train`` never holds them at once. Here a row takes about a kilobyte.

    Parameters
    ----------
    archive : an archive, or its directory
    config : venue, symbols, frames, features, label, stride, folds
    start_ns, end_ns : half-open, exchange time; None is open

    Raises
    ------
    ArchiveError, UsageError, ConfigError    as ``train``
    DataError                                no row has a label, or too few for the folds
    """
    from gpuscalp.arrow import pa, timed

    source = ArchiveSource.open(_open(archive), config, start_ns=start_ns, end_ns=end_ns, threads=threads)
    schema = feature_schema(source.pipeline, venue=config.venue)
    horizon_ns = label_horizon_ns(config.label, config.grid)
    at = schema.get_field_index("mid") + 1
    parts = []

    def kept() -> Iterator[LabelledChunk]:
        for chunk in labelled_chunks(source.chunks(), config):
            labels: dict[str, npt.NDArray[Any]] = {
                "label_end_ns": chunk.labels.end_ns,
                "weight": chunk.weight,
                "return_bps": chunk.labels.return_bps,
                "direction": chunk.labels.direction,
            }
            table = pa.Table.from_batches([feature_rows(source.pipeline, chunk.chunk, schema)])
            for name, values in labels.items():
                table = table.add_column(at, name, pa.array(values.flatten()))
            parts.append(table.filter(pa.array(chunk.taken.flatten())))
            yield chunk  # counted, and then gone: only the rows that are taken stay

    folds = walk_forward(count_rows(kept()), config.split, horizon_ns=horizon_ns)
    return TrainingRows(timed(pa.concat_tables(parts)), folds, horizon_ns)


def _open(archive: Archive | Path | str) -> Archive:
    return archive if isinstance(archive, Archive) else Archive.open(archive)


def _range(
    archive: Archive | Path | str,
    venue: str | None,
    symbols: Sequence[str],
    start_ns: int | None,
    end_ns: int | None,
) -> tuple[Archive, str, int, int]:
    """Return the archive, its venue, and begin and finish: frames are wanted that end in (begin, finish]."""
    opened = _open(archive)
    name = choose_venue(opened, venue)
    opened.span(name, symbols, start_ns, end_ns)
    return opened, name, -1 if start_ns is None else start_ns, _EVER if end_ns is None else end_ns


def _ticks(
    archive: Archive,
    venue: str,
    symbols: Sequence[str],
    start_ns: int | None,
    end_ns: int | None,
    grid: GridConfig,
) -> Iterator[Ticks]:
    """Return the ticks from ``start_ns`` until the frame that ends at ``end_ns`` is closed; None is open."""
    if end_ns is None:
        return archive.tick_batches(venue, symbols, start_ns=start_ns)
    closed_ns = end_ns + (grid.lateness_ms + grid.max_gap_ms) * NS_PER_MS
    # Before a hole in the recording it is the first tick behind it that closes the frame.
    behind = archive.tick_batches(venue, symbols, start_ns=closed_ns, max_ticks=1)
    return chain(archive.tick_batches(venue, symbols, start_ns=start_ns, end_ns=closed_ns), islice(behind, 1))


def _some(parts: list[Any], archive: Archive) -> list[Any]:
    if not parts:
        raise DataError("no frame closes in the range", where=str(archive.path))
    return parts
