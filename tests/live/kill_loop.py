"""Kill a session at random moments until it has come to its end; print what happened as JSON.

Run as ``python -m tests.live.kill_loop FOLDER KILLS SEED``. A process of its own, because it forks: each
child runs the session and is killed with SIGKILL; what it had compiled and imported is the parent's.

After every kill the database is read: what it holds has been acknowledged, and must never be missing again.
"""

from __future__ import annotations

import gc
import json
import os
import random
import select
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from gpuscalp.live.control import is_running
from gpuscalp.live.records import Command, ModelRecord, Scaling
from gpuscalp.live.session import Session
from gpuscalp.risk.gate import RiskState
from tests.live import script

HALT_AT, RESUME_AT = 250, 350
CHANGE_EVERY = 20


def operate(session: Session) -> None:
    """Halt entries at one frame and let them go on at a later one, each once, whatever was killed between."""
    frames, gate = session.engine.frame_count, session.engine.trader.gate
    if session.market.commands_waiting:
        return
    if HALT_AT <= frames < RESUME_AT and gate.state is RiskState.ACTIVE:
        session.on_command(Command.HALT, "script", session.market.last_recv_ns)
    elif frames >= RESUME_AT and gate.state is RiskState.REDUCING:
        session.on_command(Command.RESUME, "script", session.market.last_recv_ns)


def change_models(session: Session, models: tuple[Path, Path]) -> None:
    """Change lead, shadow or calibration every so many frames, each once, whatever was killed between."""
    number = session.market.model_count
    if session.engine.frame_count < CHANGE_EVERY * (number + 1):
        return
    digest = session.models.add(models[number // 2 % 2], now_ns=1)
    sharp = Scaling((1.5, 1.0, 1.5), (0.0, 0.1, 0.0)) if number % 3 == 0 else None
    role: Literal["lead", "shadow"] = "shadow" if number % 2 else "lead"
    session.on_model(ModelRecord(role, digest, sharp), session.market.last_recv_ns)


def run(folder: Path, session: Path, *, tell: Callable[[], object] | None = None) -> dict[str, Any]:
    """Replay the script into a session, from wherever it is; ``tell`` is called once, at its first step."""
    told = []

    def on_step(running: Session) -> None:
        if tell is not None and not told:
            told.append(tell())
        operate(running)
        change_models(running, (folder / "model", folder / "other"))

    material = script.Material.of(folder)
    return material.replay(session, {"session.checkpoint_s": 0.08}, device="cpu", on_step=on_step)


def acknowledged(session: Path) -> dict[str, Any]:
    """Return what the database of a session holds."""
    path = session / "state.sqlite"
    if not path.exists():
        return {"fills": [], "orders": [], "state": ""}
    with closing(sqlite3.connect(path)) as db, db:
        try:
            return {
                "fills": db.execute("SELECT * FROM fills ORDER BY seq").fetchall(),
                "orders": db.execute("SELECT order_id, client_id FROM orders ORDER BY order_id").fetchall(),
                "state": (db.execute("SELECT state FROM risk_states ORDER BY seq").fetchall() or [("",)])[-1][
                    0
                ],
            }
        except sqlite3.OperationalError:  # killed before the tables were there
            return {"fills": [], "orders": [], "state": ""}


def kill_once(folder: Path, session: Path, rng: random.Random, *, within_s: float, spare: bool) -> bool:
    """Run the session in a child and kill it, or ``spare`` it; return whether it has come to its end.

    One of four kills comes at any moment, most likely while the session is being opened; the others
    ``within_s`` of its first step, so that it gets on however long opening it takes on a busy machine.
    """
    begun, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run(folder, session, tell=lambda: os.write(tell, b"!"))
            os._exit(0)
        except BaseException as error:
            print(f"child: {error!r}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(tell)
    if spare:
        _, status = os.waitpid(child, 0)
        os.close(begun)
        return _ended(status)
    if rng.random() < 0.25:
        time.sleep(rng.uniform(0.0, 0.3))
    else:
        select.select([begun], [], [], 60.0)
        time.sleep(rng.uniform(0.0, within_s))
    os.close(begun)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return _ended(status)


def _ended(status: int) -> bool:
    if os.WIFSIGNALED(status):
        return False
    if status:
        raise SystemExit(f"the session failed: {status}")
    return True


def main(folder: Path, kills_wanted: int, seed: int) -> None:
    rng = random.Random(seed)
    run(folder, folder / "whole")
    # A collection in a child would copy every page of its parent that holds an object.
    gc.collect()
    gc.freeze()
    kills, sessions, lost, states = 0, 0, 0, []
    # The fewer the kills, the later each: however many, they come over the whole of a session.
    within_s = 20.0 / kills_wanted

    def enough() -> bool:
        """Whether all kills were, and one while the gate was held, where few lives come on a slow machine."""
        return kills >= kills_wanted and "reducing" in states

    while not enough():
        session = folder / f"killed-{sessions}"
        sessions += 1
        before = acknowledged(session)
        # The last session ends by itself when there were kills enough.
        while not kill_once(folder, session, rng, within_s=within_s, spare=enough()):
            kills += 1
            assert not is_running(session), "a lock outlived its process"
            now = acknowledged(session)
            lost += any(now[name][: len(before[name])] != before[name] for name in ("fills", "orders"))
            states.append(now["state"])
            before = now
    print(
        json.dumps(
            {"kills": kills, "sessions": sessions, "lost": lost, "halted_seen": states.count("reducing")}
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
