"""The models of a session: the one that it was begun with, and those that have come since.

    SESSION/bundle/             begun with
    SESSION/models/<digest>/    come since; each whole or not there, never changed

Owns: the folder, and which models fit the session. A model is there before a record of the journal names it.
Never: says which one is used (gpuscalp.live.roles).
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Final, final

import numpy as np

from gpuscalp.bundle import Bundle, load_bundle, read_contract
from gpuscalp.contract import Contract, GraphLike
from gpuscalp.ensemble import Calibration, Ensemble
from gpuscalp.errors import FeatureMismatchError, ModelError
from gpuscalp.files import sync_folder
from gpuscalp.live.records import Scaling
from gpuscalp.registry.store import copy_bundle, note_session

FOLDER: Final = "models"
_DIGEST: Final = re.compile("[0-9a-f]{64}")
# Lead, shadow, those that come and those that may be gone back to.
_OPEN_MAX: Final = 8


@final
class SessionModels:
    """The models in a session's directory. All methods may be called in any thread.

    Parameters
    ----------
    path : of the session
    digest : of the model that it was begun with
    graph : of the session's features

    Attributes
    ----------
    first : the model that it was begun with

    Raises
    ------
    ModelError, FeatureMismatchError    as ``open``
    """

    def __init__(self, path: Path, digest: str, graph: GraphLike) -> None:
        self._path, self._digest, self._graph = path, digest, graph
        self._lock, self._adding = threading.Lock(), threading.Lock()
        self._opened: dict[str, Bundle] = {}
        self.first = _load(path / "bundle", digest, graph)

    def path_of(self, digest: str) -> Path:
        """Return where a model lies, or would lie.

        Raises
        ------
        ModelError    this is no digest
        """
        if digest == self._digest:
            return self._path / "bundle"
        if not _DIGEST.fullmatch(digest):
            raise ModelError("not the digest of a model", where=str(self._path), value=digest)
        return self._path / FOLDER / digest

    def open(self, digest: str) -> Bundle:
        """Return a model, checked as a whole the first time; the newest of them stay in memory.

        Raises
        ------
        ModelError, FeatureMismatchError, MemberError, CanaryError
            it is not there, is damaged, or does not fit the session
        """
        if digest == self._digest:
            return self.first
        with self._lock:
            found = self._opened.pop(digest, None)
            if found is not None:
                self._opened[digest] = found  # the newest
                return found
        found = _load(self.path_of(digest), digest, self._graph)
        check_like(found.contract, self.first.contract)
        self._keep(found)
        return found

    def add(self, source: Path, *, now_ns: int) -> str:
        """Copy a model in, check the copy, and only then give it its name; return its digest.

        This takes its time (the disk, and the canary rows): for a thread that nobody waits for. One that is
        there already is checked again and stays.

        Parameters
        ----------
        source : a bundle anywhere; if a registry has it, ``prune`` will keep it as long as the session does
        now_ns : wall clock

        Raises
        ------
        ModelError, FeatureMismatchError, MemberError, CanaryError
            it is damaged, or does not fit the session; nothing was changed
        """
        contract = read_contract(source)
        # First what can be told without reading the trees.
        check_like(contract, self.first.contract)
        target = self.path_of(contract.digest)
        with self._adding:
            if not target.exists():
                note_session(source, self._path, now_ns=now_ns)
                self._copy(source, target, contract.digest)
        return self.open(contract.digest).contract.digest

    def _copy(self, source: Path, target: Path, digest: str) -> None:
        target.parent.mkdir(exist_ok=True)
        for left in target.parent.glob(".*"):  # of a process that was killed
            shutil.rmtree(left)
        staged = Path(tempfile.mkdtemp(prefix=".adding-", dir=target.parent))
        try:
            copy_bundle(source, staged)
            found = _load(staged, digest, self._graph)
            staged.rename(target)
            sync_folder(target.parent)
            sync_folder(self._path)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        self._keep(replace(found, path=target))

    def _keep(self, bundle: Bundle) -> None:
        with self._lock:
            self._opened[bundle.contract.digest] = bundle
            while len(self._opened) > _OPEN_MAX:
                del self._opened[next(iter(self._opened))]


def calibrated(bundle: Bundle, calibration: Scaling | None) -> Ensemble:
    """Return a model as it predicts under a calibration; None: its own.

    Raises
    ------
    ModelError    the calibration is not finite, or not of the model's classes
    """
    if calibration is None:
        return bundle.ensemble
    scale, bias = (np.array(each, np.float64) for each in (calibration.scale, calibration.bias))
    return replace(bundle.ensemble, calibration=Calibration("vector", scale, bias))


def check_like(contract: Contract, first: Contract) -> None:
    """Refuse a model that a session cannot change to: what it holds and measures would mean something else.

    Raises
    ------
    FeatureMismatchError    naming what differs
    """
    ours, theirs = first.training, contract.training
    for name, its, wanted in (
        ("market", theirs.venue, ours.venue),
        ("symbols", theirs.symbols, ours.symbols),
        ("frame grid", theirs.config.grid, ours.config.grid),
        ("label", theirs.config.label, ours.config.label),
        ("graph of features", contract.graph_hash, first.graph_hash),
    ):
        if its != wanted:
            raise unlike(contract, name, its, wanted, fix="begin a new session with it")


def unlike(contract: Contract, name: str, its: object, wanted: object, *, fix: str) -> FeatureMismatchError:
    """Return the refusal of a model of which something is another than the session's."""
    return FeatureMismatchError(
        f"the model has another {name} than the session",
        where=f"model {contract.digest[:12]}",
        value=f"{its}, the session has {wanted}",
        fix=fix,
    )


def _load(path: Path, digest: str, graph: GraphLike) -> Bundle:
    found = read_contract(path).digest
    if found != digest:
        raise ModelError("not the model that the session ran", where=str(path), value=found)
    bundle = load_bundle(path, graph=graph)
    if bundle.ensemble.guard is not None:  # compiled here, where nobody waits, and not at a frame
        x = bundle.contract.canary.x.array("float32", "canary.x")
        bundle.ensemble.guard.mark(x, np.zeros(len(x), np.uint32))
    return bundle
