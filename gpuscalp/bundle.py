"""A model on disk: written whole or not at all, and refused unless it is exactly what it says it is.

    BUNDLE/contract.json     what it is, and 32 rows with the answers it must give
    BUNDLE/forest.npz        all trees as plain arrays: what predictions use
    BUNDLE/members/*.ubj     the boosters as XGBoost wrote them: what the forest was read from
    BUNDLE/reference.npz     what the training rows were like: tenths, a sample, blocks of time, the guard
    BUNDLE/report.html, …    for people; nothing depends on them

Owns: writing and loading. Loading needs neither XGBoost nor SciPy, and nothing in a bundle is ever executed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from msgspec import UNSET

from gpuscalp.bundle_files import file_spec, packed, read_file, unpacked, write_atomically
from gpuscalp.contract import (
    DTYPE,
    FORMAT,
    Block,
    CalibrationSpec,
    CanarySpec,
    Contract,
    GraphLike,
    MemberSpec,
    TrainingSpec,
    check_form,
    check_graph,
    decode,
    encode,
)
from gpuscalp.drift.reference import Reference
from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.errors import CanaryError, FeatureMismatchError, MemberError, ModelError, UsageError
from gpuscalp.files import make_writable
from gpuscalp.labels import CLASSES
from gpuscalp.ops.forest import Forest, ForestScratch, predict_margins
from gpuscalp.ops.packed import Field
from gpuscalp.schema import F32

CONTRACT_FILE: Final = "contract.json"
FOREST_FILE: Final = "forest.npz"
REFERENCE_FILE: Final = "reference.npz"

# The probability of a canary row may differ by the last place of another machine's exp and log; the margins,
# which decide, may not differ at all.
PROBABILITY_TOLERANCE: Final = 1e-12
EDGE_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that has been checked, ready to predict. ``reference``: None where none was written."""

    path: Path
    contract: Contract
    ensemble: Ensemble
    reference: Reference | None = None


@dataclass(frozen=True, slots=True)
class MemberFile:
    """One booster to be written: UBJSON as XGBoost saves it."""

    data: bytes
    seed: int
    rounds: int


def write_bundle(
    path: Path,
    *,
    graph: GraphLike,
    training: TrainingSpec,
    ensemble: Ensemble,
    members: Sequence[MemberFile],
    canary_x: F32,
    reference: Reference | None = None,
    extra_files: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> Contract:
    """Write a bundle in one step: a reader sees the old one, none, or the whole new one.

    Parameters
    ----------
    path : directory to make
    graph : the feature graph that the rows came from
    training : where the model comes from
    ensemble : what the bundle predicts with
    members : in the order of the forest
    canary_x : float32[R, F]   rows whose answers are stored
    reference : what the training rows were like; None leaves the drift of live rows unknown
    extra_files : further files by name, for people
    overwrite : replace a bundle that is there

    Returns
    -------
    Contract, as written

    Raises
    ------
    UsageError
        there is something at ``path`` and ``overwrite`` is not set, or it is no bundle
    """
    check_free(path, overwrite=overwrite)
    answer = ensemble.predict(canary_x)
    files = {FOREST_FILE: packed(ensemble.forest.arrays())}
    if reference is not None:
        files[REFERENCE_FILE] = packed(reference.arrays())
    specs = []
    for index, member in enumerate(members):
        name = f"members/member_{index:02d}.ubj"
        files[name] = member.data
        specs.append(MemberSpec(file_spec(name, member.data), member.seed, member.rounds))
    calibration = ensemble.calibration
    contract = Contract(
        format=FORMAT,
        dtype=DTYPE,
        columns=graph.columns,
        graph_hash=graph.hash,
        classes=CLASSES,
        training=training,
        members=tuple(specs),
        forest=file_spec(FOREST_FILE, files[FOREST_FILE]),
        calibration=CalibrationSpec(
            kind=calibration.kind,
            scale=tuple(calibration.scale.tolist()),
            bias=tuple(calibration.bias.tolist()),
            fitted_on="held-out rows of all folds" if calibration.kind != "none" else "nothing",
        ),
        class_return_bps=tuple(ensemble.class_return_bps.tolist()),
        class_return_source="mean over the rows that the final members were trained on",
        canary=CanarySpec(
            x=Block.of(canary_x),
            margins=Block.of(answer.margins),
            probability=Block.of(answer.probability),
            edge_bps=Block.of(answer.edge_bps),
        ),
        reference=UNSET if reference is None else file_spec(REFERENCE_FILE, files[REFERENCE_FILE]),
    ).sealed()
    files |= extra_files or {}
    files[CONTRACT_FILE] = encode(contract)
    write_atomically(path, files)
    return contract


def load_bundle(
    path: Path | str, *, graph: GraphLike | None, device: Literal["cpu", "cuda"] = "cpu"
) -> Bundle:
    """Load a bundle and refuse it unless every check passes.

    In this order: the contract can be read; dtype and classes are ours; the columns and the definitions of
    the running graph are those that the model was trained on; every file has the size and the digest of the
    contract; the contract was not edited; the canary rows give the stored answers on ``device``.

    Parameters
    ----------
    path : the bundle's directory
    graph : the running feature graph; None leaves the comparison out (for looking at a bundle only)
    device : where the canary is computed

    Returns
    -------
    Bundle

    Raises
    ------
    ModelError
        the bundle is not there, or its contract cannot be read or was edited
    FeatureMismatchError
        dtype, classes, columns or their definitions differ
    MemberError
        a file is missing, cut short or changed
    CanaryError
        the stored answers are not reproduced
    """
    path = Path(path)
    contract = read_contract(path)
    check_form(contract)
    if graph is not None:
        check_graph(contract, graph)
    files = {spec.path: read_file(path, spec) for spec in contract.files}
    if not contract.intact:
        raise ModelError(
            "the contract was edited after the bundle was written",
            where=str(path / CONTRACT_FILE),
            fix="restore the bundle from its source, or train it again",
        )
    ensemble = Ensemble(
        forest=_read_forest(files[contract.forest.path], contract, path),
        calibration=Calibration(
            contract.calibration.kind,
            np.array(contract.calibration.scale, np.float64),
            np.array(contract.calibration.bias, np.float64),
        ),
        class_return_bps=np.array(contract.class_return_bps, np.float64),
    )
    check_canary(contract, ensemble, device=device)
    if contract.reference is UNSET:
        return Bundle(path, contract, ensemble)
    where = path / contract.reference.path
    reference = Reference.from_arrays(unpacked(files[contract.reference.path], where), contract.names)
    return Bundle(path, contract, replace(ensemble, guard=reference.guard), reference)


def read_contract(path: Path) -> Contract:
    """Read the contract of a bundle without checking anything else.

    Raises
    ------
    ModelError
        there is none, or it cannot be read
    """
    try:
        data = (path / CONTRACT_FILE).read_bytes()
    except OSError as error:
        raise ModelError(
            "no bundle here",
            where=str(path / CONTRACT_FILE),
            value=error.strerror,
            fix="gpuscalp train makes one",
        ) from None
    return decode(data, str(path / CONTRACT_FILE))


def check_canary(contract: Contract, ensemble: Ensemble, *, device: Literal["cpu", "cuda"] = "cpu") -> None:
    """Recompute the canary rows and compare: margins to the bit, probabilities and edges to the last places.

    Raises
    ------
    CanaryError
        they differ
    """
    x = contract.canary.x.array("float32", "canary.x")
    margins = contract.canary.margins.array("float32", "canary.margins")
    probability = contract.canary.probability.array("float64", "canary.probability")
    edge = contract.canary.edge_bps.array("float64", "canary.edge_bps")
    found = ensemble.combine(margins_on(device, ensemble.forest, x))
    differing = margins.size
    if found.margins.shape == margins.shape:
        differing = int((found.margins.view(np.uint32) != margins.view(np.uint32)).sum())
    if differing:
        raise CanaryError(
            "the model does not give its own margins on this device",
            where=f"canary on {device}",
            value=f"{differing} of {margins.size} margins differ",
            fix="do not use this device or this bundle",
        )
    for name, ours, stored, tolerance in (
        ("probability", found.probability, probability, PROBABILITY_TOLERANCE),
        ("edge_bps", found.edge_bps, edge, EDGE_TOLERANCE),
    ):
        if ours.shape != stored.shape or not np.allclose(ours, stored, rtol=0.0, atol=tolerance):
            raise CanaryError(
                f"the model does not give its own {name} on this device",
                where=f"canary on {device}",
                fix="calibration or class returns were changed: restore the bundle or train it again",
            )


def margins_on(device: Literal["cpu", "cuda"], forest: Forest, x: F32) -> F32:
    """Compute margins on a device and return them on the host.

    Parameters
    ----------
    device : "cpu" or "cuda"
    forest : Forest
    x : float32[R, F], C-contiguous, on the host

    Returns
    -------
    float32[M, R, K]

    Raises
    ------
    DeviceError
        the device cannot run
    """
    shape = (forest.member_count, len(x), forest.class_count)
    out = np.empty(shape, np.float32)
    if device == "cpu":
        predict_margins(forest, x, out=out, scratch=ForestScratch.of(forest))
        return out
    from gpuscalp.ops import cuda_forest
    from gpuscalp.ops.copies import pinned_mirror, to_device

    there = pinned_mirror((Field(shape, np.float32),))
    cuda_forest.predict_margins(
        forest, to_device(x), out=there.device[0], scratch=cuda_forest.ForestScratch.of(forest)
    )
    there.fetch()
    np.copyto(out, there.host[0])
    return out


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse to write where something else is, and make the folder that a bundle will lie in.

    Raises
    ------
    UsageError
    OSError
        nothing can be written there
    """
    if path.exists() and not overwrite:
        raise UsageError(
            "there is something here already", where=str(path), fix="choose another path, or --overwrite"
        )
    bundle = (path / CONTRACT_FILE).is_file()
    if path.exists() and not bundle and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(
            "this is no bundle, so it is not overwritten", where=str(path), fix="choose another path"
        )
    make_writable(path.resolve().parent)


def _read_forest(data: bytes, contract: Contract, path: Path) -> Forest:
    try:
        forest = Forest.from_arrays(unpacked(data, path / FOREST_FILE))
    except (ValueError, KeyError) as error:
        raise MemberError(f"the forest cannot be read: {error}", where=str(path / FOREST_FILE)) from None
    for name, found, wanted in (
        ("columns", forest.feature_count, len(contract.columns)),
        ("members", forest.member_count, len(contract.members)),
        ("classes", forest.class_count, len(contract.classes)),
    ):
        if found != wanted:
            raise FeatureMismatchError(
                f"forest and contract differ in the number of {name}",
                where=str(path / FOREST_FILE),
                value=f"forest {found}, contract {wanted}",
            )
    return forest
