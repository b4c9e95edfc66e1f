"""The dashboard's command as a process of its own, and its server as a thread of ours."""

from __future__ import annotations

import asyncio
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpuscalp.dashboard import server
from gpuscalp.dashboard.watch import Watch


@dataclass(frozen=True)
class Served:
    """Where it is, and what it takes to stop a session."""

    url: str
    port: int
    token: str
    pid: int
    process: subprocess.Popen[str]


@contextmanager
def served(session: Path) -> Iterator[Served]:
    """Run ``gpuscalp dashboard`` on a session; it must end cleanly and say nothing on the side."""
    command = [sys.executable, "-m", "gpuscalp", "dashboard", str(session), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            told = json.loads(line)
            token = Path(told["token_file"]).read_text().strip()
            yield Served(told["url"], told["port"], token, process.pid, process)
        finally:
            process.terminate()
            out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, (process.returncode, errors)
    assert (out, errors) == ("", ""), errors


@contextmanager
def served_here(session: Path) -> Iterator[int]:
    """Serve a session in a thread of this process; yield the port."""
    watch = Watch(session, wall=time.time_ns, monotonic=time.monotonic_ns)
    ready: queue.Queue[int] = queue.Queue()
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        dashboard = server.DashboardServer(watch, "token")
        loop = asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(dashboard.end))
        await dashboard.run("127.0.0.1", 0, (), None, lambda told: ready.put(told["port"]))

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield ready.get(timeout=20)
        assert thread.is_alive()  # nothing has ended it
    finally:
        ends[0]()
        thread.join(20)
    assert not thread.is_alive()
