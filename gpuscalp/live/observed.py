"""What the outside sees of a session that runs: metrics, health, and messages when something is wrong.

Owns: which collectors there are, and that both end with the session, the last message with the reason.
"""

from __future__ import annotations

import os
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuscalp.config import LiveConfig, NotifyConfig
from gpuscalp.errors import ConfigError, GpuscalpError
from gpuscalp.live.control import SESSION_FILE
from gpuscalp.live.onlookers import Onlookers
from gpuscalp.live.probes import Pulse, alive, ready
from gpuscalp.locks import read_lock
from gpuscalp.monitoring.gpu_judgement import CardVerdict
from gpuscalp.monitoring.nvml import CardSample

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from gpuscalp.monitoring.notifier import Notifier


@contextmanager
def observed(
    path: Path,
    config: LiveConfig,
    status: Callable[[], Mapping[str, Any]],
    detail: Callable[[], Mapping[str, Any]],
    judged: Callable[[], Sequence[tuple[CardSample, CardVerdict]]],
    pulse: Pulse,
    onlookers: Onlookers,
    *,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[None]:
    """Serve the metrics of a session and its health, and tell those who want to be told, if either is wanted.

    Parameters
    ----------
    path : of the session; its last part is the name that messages bear
    status, detail, judged : return the newest status, what is too long for it, and the session's cards
    onlookers : keep from the session what fails here
    pulse : beats while the session's loop turns
    environment : names those who are to be told (``gpuscalp.monitoring.channel``)

    Raises
    ------
    ConfigError    the port cannot be opened, or nobody can be told as asked
    """
    from gpuscalp.monitoring.channel import open_channels, read_urls

    channels = open_channels(read_urls(environment))
    if not channels and not config.metrics.port:
        yield
        return
    from prometheus_client import ProcessCollector

    from gpuscalp.monitoring.metrics import DeviceCollector, GpuCollector
    from gpuscalp.monitoring.notifier import Notifier
    from gpuscalp.monitoring.server import HEALTH, READY, served
    from gpuscalp.monitoring.session_metrics import SessionCollector

    session = [SessionCollector(status, detail), DeviceCollector(status), GpuCollector(judged)]
    with ExitStack() as around:
        told = []
        if channels:
            process = ProcessCollector(registry=None)

            def collect() -> Iterable[Metric]:
                for collector in (*session, process):
                    yield from collector.collect()

            notifier = Notifier(channels, config.notify, path.name, collect, onlookers.run)
            told.append(notifier)
            around.enter_context(_telling(notifier, path.name, status))
        if config.metrics.port:
            probes = {
                HEALTH: lambda: alive(pulse, time.monotonic_ns()),
                READY: lambda: ready(pulse, dict(status()), time.monotonic_ns(), time.time_ns()),
            }
            collectors, metrics = [*session, *told], config.metrics
            around.enter_context(
                served(metrics.address, metrics.port, collectors, probes, before_scrape=pulse.wait_frame)
            )
        yield


@contextmanager
def refusal_told(path: Path, *, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Tell that a session does not start again, for a block before ``observed`` does.

    Perhaps nothing restarts it then, and who was killed before has told nothing. Of a session that is a new
    one, or that runs all the same, nobody is told.

    Parameters
    ----------
    path : of the session
    environment : as of ``observed``
    """
    known = (path / SESSION_FILE).exists()
    try:
        yield
    except Exception:
        from gpuscalp.monitoring.channel import Channel, open_channels, read_urls
        from gpuscalp.monitoring.notifier import Notifier

        channels: Sequence[Channel] = ()
        with suppress(ConfigError, OSError):  # what the start was refused for is what is worth telling
            if known and not read_lock(path / "lock").held:
                channels = open_channels(read_urls(environment))
        if not channels:
            raise
        with _telling(Notifier(channels, NotifyConfig(), path.name, tuple, Onlookers().run), path.name, dict):
            raise


@contextmanager
def _telling(notifier: Notifier, who: str, status: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Run the notifier, and tell at the end how the session ended."""
    from gpuscalp.monitoring.alarms import Message

    notifier.start()
    try:
        yield
    except (KeyboardInterrupt, CancelledError):  # Ctrl-C or SIGTERM
        stopped = "It was stopped before it ran."
        notifier.say(Message(f"gpuscalp {who}: the session ended", stopped, "info"))
        raise
    except BaseException as error:
        # The error itself may name a file or a URL: its kind is enough to come and look.
        what = error.what if isinstance(error, GpuscalpError) else type(error).__name__
        notifier.say(
            Message(f"gpuscalp {who}: critical: the session failed", f"It ended: {what}", "critical")
        )
        raise
    else:
        last = status()
        body = (
            f"It ended: {last.get('reason', 'before it began')}. The gate is {last.get('state', 'unknown')}."
        )
        notifier.say(Message(f"gpuscalp {who}: the session ended", body, "info"))
    finally:
        notifier.stop()
