"""Which models an alias may point to, and which nobody needs any more.

Owns: the checks before ``promote`` and ``rollback``, and what ``prune`` may take.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gpuscalp.bundle import load_bundle, read_contract
from gpuscalp.contract import Contract
from gpuscalp.device import RequestedDevice, resolve
from gpuscalp.errors import FeatureMismatchError, ModelError
from gpuscalp.features import FeatureGraph
from gpuscalp.registry.history import ALIASES, Alias, State
from gpuscalp.registry.names import SHORT
from gpuscalp.registry.store import Registry

# A session that is just being laid out has no bundle yet; it is given this long.
_STARTING_NS: Final = 3_600 * 1_000_000_000
_METRICS: Final = ("log_loss", "base_log_loss", "ic", "ic_low", "ic_high")


def promote(
    registry: Registry,
    digest: str,
    alias: Alias,
    *,
    why: str,
    device: RequestedDevice = "auto",
    other_columns: bool = False,
) -> dict[str, Any]:
    """Point an alias to a model that passes every check on this machine.

    Parameters
    ----------
    digest : of a bundle in the registry
    why : for the history
    device : where the canary rows are predicted
    other_columns : also where market or columns are not those of the model that the alias points to now

    Raises
    ------
    ModelError, FeatureMismatchError, MemberError, CanaryError
        it must not be used; nothing was changed
    """
    with registry.writing() as writer:
        current = writer.state.current(alias)
        contract, used = check_fit(registry, digest, device)
        if current not in (None, digest) and not other_columns:
            _check_like(contract, registry.bundle_path(str(current)))
        if current != digest:
            writer.promote(alias, digest, why=why)
        return {"alias": alias, "from": current, "to": digest, "device": used, "changed": current != digest}


def rollback(
    registry: Registry, alias: Alias, *, why: str, device: RequestedDevice = "auto"
) -> dict[str, Any]:
    """Point an alias to the model that it pointed to before; again goes back further.

    Raises
    ------
    UsageError
        there is no registry
    ModelError
        there is no earlier model, it was removed, or it fails a check; nothing was changed
    """
    registry.check_begun()  # who writes makes the folder, which may be a misspelt one
    with registry.writing() as writer:
        current, earlier = writer.state.current(alias), writer.state.earlier(alias)
        if earlier is None:
            raise ModelError(
                "there is no earlier model to go back to",
                where=str(registry.path),
                value=f"@{alias}",
                fix="gpuscalp model promote another one",
            )
        _, used = check_fit(registry, earlier, device)
        writer.rollback(alias, why=why)
        return {"alias": alias, "from": current, "to": earlier, "device": used, "changed": True}


def check_fit(registry: Registry, digest: str, device: RequestedDevice = "auto") -> tuple[Contract, str]:
    """Check files, columns against this version, canary rows on this machine, and that metrics are there.

    Returns
    -------
    (contract, the device that was used)

    Raises
    ------
    ModelError, FeatureMismatchError, MemberError, CanaryError, DeviceError
    """
    path = registry.bundle_path(digest)
    contract = read_contract(path)
    if contract.digest != digest:
        raise ModelError("not the bundle that its name says", where=str(path), value=contract.digest)
    training = contract.training
    graph = FeatureGraph(training.config.grid, training.config.features, training.symbols)
    choice = resolve(device)
    load_bundle(path, graph=graph, device=choice.name)
    missing = [name for name in _METRICS if training.metrics.get(name) is None]
    if missing:
        raise ModelError(
            "figures of held-out rows are missing: nobody knows how good the model is",
            where=str(path),
            value=", ".join(missing),
            fix="train it on more data, so that every figure can be computed",
        )
    return contract, choice.name


def unused(registry: Registry, state: State, *, now_ns: int) -> tuple[list[str], dict[str, str]]:
    """Sort the bundles into those that may go and those that stay.

    An alias keeps what it points to and what a rollback would go to; a session keeps its models while its
    directory has them.

    Returns
    -------
    (digests that may go, reason by digest that stays)
    """
    stay: dict[str, str] = {}
    for alias in ALIASES:
        for digest, reason in ((state.current(alias), ""), (state.earlier(alias), "before ")):
            if digest is not None:
                stay.setdefault(digest, f"{reason}@{alias}")
    for digest in state.pinned:
        stay.setdefault(digest, "pinned")
    for (session, digest), act in state.sessions.items():
        if _copied(Path(session), digest) or now_ns - act.time_ns < _STARTING_NS:
            stay.setdefault(digest, f"session {session}")
    there = registry.digests()
    return [each for each in there if each not in stay], {each: stay[each] for each in there if each in stay}


def prune(registry: Registry, *, now_ns: int, really: bool) -> dict[str, Any]:
    """Remove the bundles that nobody uses; unless ``really``, only say which.

    Returns
    -------
    dict for ``model prune --json``
    """

    def answer(gone: list[str], stay: dict[str, str]) -> dict[str, Any]:
        kept = [{"digest": digest, "because": reason} for digest, reason in stay.items()]
        return {
            "registry": str(registry.path),
            "removed": really,
            "unused": gone,
            "kept": kept,
            "strays": registry.strays(),
        }

    if not really or not registry.history_path.is_file():  # nothing to remove, and no folder to make
        state = registry.history().state()
        return answer(*unused(registry, state, now_ns=now_ns))
    with registry.writing() as writer:
        gone, stay = unused(registry, writer.state, now_ns=now_ns)
        for digest in gone:
            writer.remove(digest)
    return answer(gone, stay)


def _copied(session: Path, digest: str) -> bool:
    for path in (session / "bundle", session / "models" / digest):
        with suppress(ModelError):
            if read_contract(path).digest == digest:
                return True
    return False


def _check_like(contract: Contract, other: Path) -> None:
    """Refuse another market or other columns than those of the model that is to be replaced."""
    theirs = read_contract(other)
    for name, ours, its in (
        ("venue", contract.training.venue, theirs.training.venue),
        ("symbols", contract.training.symbols, theirs.training.symbols),
        ("contract format", contract.format, theirs.format),
        ("graph hash", contract.graph_hash, theirs.graph_hash),
    ):
        if ours != its:
            raise FeatureMismatchError(
                f"the model has another {name} than the one that the alias points to now",
                where=f"{other.name[:SHORT]} → {contract.digest[:SHORT]}",
                value=f"{its} → {ours}",
                fix="--other-columns, if that is intended",
            )
