"""The worker processes of a session: which there are, and how they stand.

Owns: one worker for each GPU, its share of the rows, and the part of the status about them. The session's own
process never opens a GPU: a fault there would be its own, and the card's memory is the workers'.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from msgspec import structs

from gpuscalp.config import EngineConfig
from gpuscalp.device import DeviceName, RequestedDevice
from gpuscalp.ensemble import Ensemble, Signals
from gpuscalp.errors import DeviceError
from gpuscalp.live.directory import SessionFile
from gpuscalp.live.engine import Engine
from gpuscalp.live.fleets import Fleets, last_fault
from gpuscalp.live.models import calibrated
from gpuscalp.live.predictor import FleetPredictor, HostPredictor
from gpuscalp.live.session import Session
from gpuscalp.live.signal_rows import signal_row
from gpuscalp.redaction import without_secrets
from gpuscalp.worker import Fleet, WorkerFault, WorkerSpec, shard

# A card that is asleep and a cold disk take seconds; a driver that hangs must not hang the session.
_LOOK_S: Final = 60.0
_END_S: Final = 1.0


def look_for_gpus(requested: RequestedDevice, *options: str) -> dict[str, Any]:
    """Return the answer of ``gpuscalp device``, given by another process.

    Raises
    ------
    DeviceError    ``cuda`` was asked for and cannot run here, or there was no answer
    """
    command = [sys.executable, "-m", "gpuscalp", "device", "--device", requested, *options, "--json"]
    looking = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=without_secrets(os.environ)
    )
    try:
        answer: dict[str, Any] = json.loads(looking.communicate(timeout=_LOOK_S)[0])
    except (subprocess.TimeoutExpired, ValueError) as error:
        # Not waited for as long as it takes, as subprocess.run would: what is stuck in a driver does not end.
        looking.kill()
        with suppress(subprocess.TimeoutExpired):
            looking.communicate(timeout=_END_S)
        raise DeviceError(
            "the GPU driver does not answer",
            where="gpuscalp device",
            value=error,
            fix="look at nvidia-smi, the kernel log and the load of the machine, or use --device cpu",
        ) from None
    if "error" in answer:
        told = answer["error"]
        raise DeviceError(told["what"], where=told["where"], value=told["value"], fix=told["fix"])
    return answer


@contextmanager
def predicting(
    session: Session, config: EngineConfig, faults: Sequence[WorkerFault] = ()
) -> Iterator[FleetPredictor | None]:
    """Let workers predict for a session meanwhile, if it has a device for them; yield who they are.

    Parameters
    ----------
    session : recovered; its engine works on the CPU until workers have proved themselves
    config : ``engine`` of its configuration
    faults : to be rehearsed by the first worker of the model that leads now
    """
    specs = _specs(session, config, faults)
    if not specs:
        yield None
        return
    engine, models, first = session.engine, session.models, session.engine.roles.lead.bundle

    def made(digest: str) -> Fleet:
        forest, bundle = models.open(digest).ensemble.forest, str(models.path_of(digest))
        return Fleet(
            [
                structs.replace(spec, bundle=bundle, faults=spec.faults if digest == first else ())
                for spec in specs
            ],
            config,
            symbol_count=len(session.about.instruments),
            member_count=forest.member_count,
            class_count=forest.class_count,
        )

    def lead() -> Ensemble:
        return calibrated(models.open(engine.roles.lead.bundle), engine.roles.lead.calibration)

    trader = engine.trader

    def may_act(signals: Signals) -> Any:
        return trader.strategy.may_act(signal_row(signals)) | (trader.sides != 0)

    fleets = Fleets(made, first)
    predictor = engine.predictor = FleetPredictor(lead(), fleets, may_act)
    try:
        yield predictor
    finally:
        engine.predictor = HostPredictor(lead())
        fleets.close()


def _specs(session: Session, config: EngineConfig, faults: Sequence[WorkerFault]) -> list[WorkerSpec]:
    about = session.about
    device: DeviceName = "cuda"
    if config.workers == "cpu":
        device, count = "cpu", max(config.gpus, 1)
    elif about.device == "cuda":
        # Every worker needs a symbol: of the GPUs that are there, more stay unused.
        count = config.gpus or min(_gpu_count(), len(about.instruments))
    else:
        return []
    rows = shard(len(about.instruments), count)
    return [
        WorkerSpec(
            bundle="",  # of the model that leads: it may change
            instruments=about.instruments,
            device=device,
            gpu=index,
            rows=(own.start, own.stop),
            predictor=config.predictor,
            canary_ms=config.canary_ms,
            faults=tuple(faults) if index == 0 else (),
        )
        for index, own in enumerate(rows)
    ]


def _gpu_count() -> int:
    """Return how many GPUs are visible; 1 where none answers: its worker will say why, and try again."""
    try:
        cuda = look_for_gpus("auto")["cuda"]
    except DeviceError:
        return 1
    return int(cuda["device_count"]) if cuda["usable"] else 1


def engine_status(engine: Engine, about: SessionFile) -> dict[str, Any]:
    """Return who predicts, and why; call it while the engine is at rest."""
    found: dict[str, Any] = {
        "leading": False,
        "why": f"{about.device}: {about.device_reason}" if about.device == "cpu" else "no worker runs",
        "workers": [],
        "past_workers": [],
    }
    if isinstance(engine.predictor, FleetPredictor):
        found = engine.predictor.fleets.status()
    workers, past = found["workers"], found["past_workers"]
    faults: Counter[str] = Counter()
    for worker in (*past, *workers):
        faults.update(worker["faults"])
    return {
        "device": workers[0]["device"] if found["leading"] else "cpu",
        "why": found["why"],
        "leading": found["leading"],
        "deadline_ms": about.config.engine.deadline_ms,
        "late_predictions": engine.late_count,
        "lost_frames": engine.lost_count,
        "faults": dict(faults),
        "last_fault": last_fault((*past, *workers)),
        "workers": workers,
        "past_workers": past,
    }
