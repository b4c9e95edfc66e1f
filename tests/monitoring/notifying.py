"""A session's metrics that a test changes, and a notifier that looks at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily

from gpuscalp.config import NotifyConfig
from gpuscalp.live.onlookers import Onlookers
from gpuscalp.monitoring.alarms import Message
from gpuscalp.monitoring.channel import open_channels
from gpuscalp.monitoring.notifier import Notifier

SECRET = "s3cr3tT0k3n"
CONFIG = NotifyConfig(every_s=0.02, group_s=0.0)
HELLO = Message("A title", "A body", "critical")


class Session:
    """Metrics that a test changes. ``halted`` and ``drawdown`` are two alerts."""

    def __init__(self) -> None:
        self.halted, self.drawdown = 0.0, 0.0
        self.defect = False

    def collect(self) -> Iterator[GaugeMetricFamily]:
        if self.defect:
            raise RuntimeError("a defect of ours")
        state = GaugeMetricFamily("gpuscalp_risk_state", "", labels=("state",))
        state.add_metric(["halted"], self.halted)
        yield state
        yield GaugeMetricFamily("gpuscalp_drawdown_ratio", "", value=self.drawdown)


@contextmanager
def running(
    *urls: str, session: Session | None = None, onlookers: Onlookers | None = None, **more: Any
) -> Iterator[Notifier]:
    collect, look_on = (session or Session()).collect, (onlookers or Onlookers()).run
    channels = open_channels(urls)
    notifier = Notifier(channels, CONFIG, "s1", collect, look_on, retries_s=(0.05, 0.05), **more)
    notifier.start()
    try:
        yield notifier
    finally:
        notifier.stop()
