"""What a bundle says about itself: the contract between training and everything that predicts.

Owns: the layout of ``contract.json``, its digest, and the comparison with a running feature graph.
Never: touches a disk or a model.
"""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Final, Protocol

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from gpuscalp.config import TrainConfig
from gpuscalp.errors import UNREADABLE, FeatureMismatchError, ModelError
from gpuscalp.labels import CLASSES
from gpuscalp.schema import F32, F64

FORMAT: Final = 2
DTYPE: Final = "float32"
CANARY_ROWS: Final = 32

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ColumnSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One column of a feature graph, and of a bundle as it was declared when the model was trained.

    window : int    frames that the value looks back over
    warm_up : int   frames after a symbol's first quote until the value can be there
    """

    name: str
    unit: str
    window: int
    warm_up: int
    source: str


class Interval(Struct, frozen=True, forbid_unknown_fields=True):
    """Half-open interval of time, ns UTC."""

    start_ns: int
    end_ns: int


class FoldSpec(Struct, frozen=True, forbid_unknown_fields=True):
    train: Interval
    test: Interval
    embargo_ns: int


class FileSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the bundle; ``path`` is relative to it."""

    path: str
    bytes: int
    sha256: Sha256


class MemberSpec(Struct, frozen=True, forbid_unknown_fields=True):
    file: FileSpec
    seed: int
    rounds: int


class Block(Struct, frozen=True, forbid_unknown_fields=True):
    """A small array inside JSON: little-endian bytes as base64, so that every bit survives, NaN included."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, array: F32 | F64) -> Block:
        flat = np.ascontiguousarray(array)
        return cls(
            flat.dtype.newbyteorder("<").str, flat.shape, flat.astype(flat.dtype.newbyteorder("<")).tobytes()
        )

    def array(self, dtype: str, where: str) -> np.ndarray:
        """Return the array, C-contiguous and writable.

        Raises
        ------
        ModelError
            it is not of ``dtype``, or its bytes do not fill its shape
        """
        wanted = np.dtype(dtype).newbyteorder("<")
        size = math.prod(self.shape) * wanted.itemsize
        if self.dtype != wanted.str or min(self.shape, default=0) < 0 or size != len(self.data):
            raise ModelError(
                "a stored array does not have the form it claims",
                where=where,
                value=f"{self.dtype}{list(self.shape)}, {len(self.data)} bytes",
            )
        return np.frombuffer(self.data, wanted).astype(np.dtype(dtype)).reshape(self.shape)


class CanarySpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Rows and the answers that the bundle gave when it was written.

    x : float32[R, F] · margins : float32[M, R, K] · probability : float64[R, K] · edge_bps : float64[R]
    """

    x: Block
    margins: Block
    probability: Block
    edge_bps: Block


class CalibrationSpec(Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    scale: tuple[float, ...]
    bias: tuple[float, ...]
    fitted_on: str


class TrainingSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the model comes from.

    ``trained_on`` runs from the first entry to the end of the last label of the final members' rows; a
    backtest inside it is in-sample. ``metrics`` are those of all held-out rows. ``trials`` counts the
    configurations that this one was chosen from, itself among them; a model that was not tuned has none
    written into it. ``continues``: digest of the model whose members went on; rows, folds and data are those
    that they went on with.
    """

    venue: str
    symbols: tuple[str, ...]
    leader: str
    config: TrainConfig
    trained_on: Interval
    rows: int
    folds: tuple[FoldSpec, ...]
    data_digest: str
    device: str
    versions: dict[str, str]
    metrics: dict[str, float | None]
    continues: Sha256 | UnsetType = UNSET
    trials: Annotated[int, Meta(ge=1)] | UnsetType = UNSET

    @property
    def tried(self) -> int:
        """Configurations that the model was chosen from; 1 where it was not chosen."""
        return 1 if self.trials is UNSET else self.trials


class Contract(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a program must know, and check, before it acts on what the model says.

    ``columns`` are ordered as the model reads them; ``graph_hash`` covers their definitions too. ``digest``
    is the SHA-256 of all other fields. Only a bundle that no training made has no ``reference``.
    """

    format: int
    dtype: str
    columns: tuple[ColumnSpec, ...]
    graph_hash: str
    classes: tuple[str, ...]
    training: TrainingSpec
    members: tuple[MemberSpec, ...]
    forest: FileSpec
    calibration: CalibrationSpec
    class_return_bps: tuple[float, ...]
    class_return_source: str
    canary: CanarySpec
    digest: str = ""
    reference: FileSpec | UnsetType = UNSET

    @property
    def files(self) -> tuple[FileSpec, ...]:
        """The files that a program reads, each once."""
        members = (member.file for member in self.members)
        return (self.forest, *members, *(() if self.reference is UNSET else (self.reference,)))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def tree_count(self) -> int:
        """Trees of all members: a round adds one for each class."""
        return sum(member.rounds for member in self.members) * len(self.classes)

    def sealed(self) -> Contract:
        """Return the contract with its digest."""
        return msgspec.structs.replace(self, digest=_digest(self))

    @property
    def intact(self) -> bool:
        """The digest is the one of the fields."""
        return self.digest == _digest(self)


class GraphLike(Protocol):
    """What a contract needs to know of a feature graph."""

    @property
    def columns(self) -> tuple[ColumnSpec, ...]: ...
    @property
    def hash(self) -> str: ...


def encode(contract: Contract) -> bytes:
    """Return ``contract.json``: readable, and the same bytes for the same contract."""
    return msgspec.json.format(msgspec.json.encode(contract), indent=2) + b"\n"


def decode(data: bytes, where: str) -> Contract:
    """Read ``contract.json``.

    Raises
    ------
    ModelError
        it is not JSON, lacks or adds a field, or is of another format
    """
    try:
        head = msgspec.json.decode(data)
        found = head.get("format") if isinstance(head, dict) else None
        if found != FORMAT:
            raise ModelError(
                f"this version reads bundles of format {FORMAT}",
                where=where,
                value=found,
                fix="train it again",
            )
        return msgspec.json.decode(data, type=Contract)
    except UNREADABLE as error:
        raise ModelError(
            f"not a contract: {error}", where=where, fix="take another copy of the bundle, or train it again"
        ) from None


def check_form(contract: Contract) -> None:
    """Refuse another dtype or other classes.

    Raises
    ------
    FeatureMismatchError
    """
    if contract.dtype != DTYPE:
        raise FeatureMismatchError(
            f"the model reads another dtype than the features have, which is {DTYPE}",
            where="contract.dtype",
            value=contract.dtype,
            fix="train the model again",
        )
    if contract.classes != CLASSES:
        raise FeatureMismatchError(
            f"the classes are not {', '.join(CLASSES)}", where="contract.classes", value=contract.classes
        )


def check_graph(contract: Contract, graph: GraphLike) -> None:
    """Refuse a graph whose columns, order, windows or definitions are not those of the training.

    Raises
    ------
    FeatureMismatchError
        naming the first column that differs
    """
    ours, theirs = graph.columns, contract.columns
    fix = "use the configuration the bundle was trained with (gpuscalp model show), or train again"
    our_names, their_names = [c.name for c in ours], [c.name for c in theirs]
    if our_names != their_names and sorted(our_names) == sorted(their_names):
        at = next(i for i, (a, b) in enumerate(zip(our_names, their_names, strict=True)) if a != b)
        raise FeatureMismatchError(
            "the columns of the bundle stand in another order than those of the running graph",
            where=f"column {at}",
            value=f"bundle {their_names[at]!r}, graph {our_names[at]!r}",
            fix=fix,
        )
    if our_names != their_names:
        lost = sorted(set(their_names) - set(our_names))
        new = sorted(set(our_names) - set(their_names))
        raise FeatureMismatchError(
            "the running graph does not have the columns that the bundle was trained on",
            where=f"{len(their_names)} columns in the bundle, {len(our_names)} in the graph",
            value=f"missing {lost[:3]}, unknown to the bundle {new[:3]}",
            fix=fix,
        )
    for mine, its in zip(ours, theirs, strict=True):
        if mine != its:
            parts = ("unit", "window", "warm_up", "source")
            names = [name for name in parts if getattr(mine, name) != getattr(its, name)]
            raise FeatureMismatchError(
                f"a column of the bundle has another {' and '.join(names)} than in the running graph",
                where=mine.name,
                value="; ".join(f"bundle {getattr(its, n)}, graph {getattr(mine, n)}" for n in names),
                fix=fix,
            )
    if graph.hash != contract.graph_hash:
        raise FeatureMismatchError(
            "the columns have the same names, but the graph computes them differently, or labels changed",
            where="graph hash",
            value=f"bundle {contract.graph_hash}, graph {graph.hash}",
            fix=fix,
        )


def _digest(contract: Contract) -> str:
    plain = msgspec.structs.replace(contract, digest="")
    return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()
