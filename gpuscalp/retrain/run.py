"""One retraining: from the journal of a session to a bundle, by the lead's own configuration.

Owns: the order of steps and the answer. Never: touches the session's journal, its models or its process: who
wants the candidate takes it up (gpuscalp.live.retrainer).
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from gpuscalp.archive import Archive
from gpuscalp.bundle import read_contract
from gpuscalp.device import RequestedDevice
from gpuscalp.errors import DataError, GpuscalpError
from gpuscalp.live.directory import read_about
from gpuscalp.progress import Progress, silent
from gpuscalp.redaction import redact
from gpuscalp.registry import Registry
from gpuscalp.retrain.caps import Caps, take_blas_buffers
from gpuscalp.retrain.folder import CANDIDATE, FOLDER, alone
from gpuscalp.retrain.market_data import import_journal, venue_of
from gpuscalp.schema import NS_PER_S
from gpuscalp.train import train_archive

_HOUR_NS: Final = 3_600 * NS_PER_S


def retrain(
    session: Path,
    *,
    like: Path,
    train_hours: float,
    caps: Caps,
    device: RequestedDevice = "cpu",
    gpu_memory_mb: int | None = None,
    registry: Path | None = None,
    attended: bool = False,
    told: Progress = silent,
) -> dict[str, Any]:
    """Train a candidate on what a session has seen.

    Parameters
    ----------
    session : its directory; it may be running
    like : bundle whose configuration is used: that of the lead
    train_hours : of the market, up to now
    caps : what this process was confined to
    device, gpu_memory_mb : where it is trained, and with how much of it (``gpuscalp.train.train``)
    registry : to keep the bundle in as well, as ``candidate``; None: in the session's directory alone. That
        it can be written is seen before the journal is read; where it refuses the bundle all the same, the
        candidate is as good as without one
    attended : the session itself has begun this process, and may count on its priority
    told : how far it is

    Returns
    -------
    dict: ``digest`` and ``bundle`` of the candidate, ``registered`` (the registry; None: in none),
    ``not_registered`` (why it refused the bundle; None: it did not), ``train_hours``, ``trained_from_ns``,
    ``trained_until_ns``, ``rows``, ``metrics`` of held-out rows; ``segments``, ``market_rows`` and
    ``rejects`` of the import; ``import_s``, ``train_s``, ``peak_rss_mb``, ``caps``

    Raises
    ------
    UsageError     no session, another process retrains it, or the registry cannot be written
    ModelError     the history of the registry was altered
    DataError      its journal cannot be imported, or holds too little
    ConfigError, DeviceError    as ``gpuscalp.train.train``
    """
    about = read_about(session)
    contract = read_contract(like)
    if registry is not None:
        Registry(registry).check_writable()
    take_blas_buffers(caps)
    now_ns, begun_s = time.time_ns(), time.monotonic()
    folder = session / FOLDER
    with alone(folder, caps.cores if attended else ()) as work:
        since_ns = now_ns - round(train_hours * _HOUR_NS)
        imported = import_journal(
            session,
            about,
            work / "archive",
            since_ns=since_ns,
            told=lambda done, total: told(done, total, "reading the journal"),
        )
        imported_s = time.monotonic()
        symbols = contract.training.symbols
        config = msgspec.structs.replace(contract.training.config, symbols=symbols, venue=venue_of(about))
        archive = Archive.open(work / "archive")
        if missing := set(symbols) - set(archive.symbols(config.venue)):
            raise DataError(
                "the journal has nothing of a symbol", where=str(session), value=", ".join(sorted(missing))
            )
        result = train_archive(
            archive,
            work / CANDIDATE,
            config=config,
            start_ns=since_ns,
            device=device,
            threads=len(caps.cores),
            gpu_memory_mb=gpu_memory_mb,
            on_progress=told,
        )
        trained_s = time.monotonic()
        candidate = folder / CANDIDATE
        shutil.rmtree(candidate, ignore_errors=True)
        (work / CANDIDATE).rename(candidate)
    digest = read_contract(candidate).digest
    refusal = None if registry is None else _keep(registry, candidate, digest, session)
    training = result.training
    return {
        "session": str(session),
        "digest": digest,
        "bundle": str(candidate),
        "registered": None if registry is None or refusal else str(registry),
        "not_registered": refusal,
        "train_hours": train_hours,
        "trained_from_ns": training.trained_on.start_ns,
        "trained_until_ns": training.trained_on.end_ns,
        "rows": training.rows,
        "metrics": dict(training.metrics),
        "segments": imported.segments,
        "market_rows": imported.rows,
        "rejects": imported.rejects,
        "import_s": round(imported_s - begun_s, 3),
        "train_s": round(trained_s - imported_s, 3),
        "peak_rss_mb": round(result.peak_rss_mb, 1),
        "caps": {"cores": list(caps.cores), "memory_mb": caps.memory_mb, "idle": caps.idle},
    }


def _keep(registry: Path, candidate: Path, digest: str, session: Path) -> str | None:
    """Add the candidate to the registry, as ``candidate``; return why that was refused, None: it was not."""
    why = f"retrained from {session}"
    try:
        with Registry(registry).writing() as writer:
            writer.add(candidate, why=why)
            writer.promote("candidate", digest, why=why)
    except (GpuscalpError, OSError, MemoryError) as error:  # what was trained is whole without it
        return redact(str(error)) or type(error).__name__
    return None
