"""Tells somebody what is wrong with a session, from threads of its own: one looks, and one for each channel.

Owns: when it looks (by the monotonic clock: the other one may be set), and what every channel is given.
Nothing here may hold up or end a session: no call waits for a network, nothing raises, the threads are
daemons, and the end of a session waits for them some seconds at most.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, final

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from gpuscalp.config import NotifyConfig
from gpuscalp.monitoring.alarms import Alarms, Digest, Message
from gpuscalp.monitoring.channel import Channel
from gpuscalp.monitoring.conditions import CONDITIONS, SEVERITIES
from gpuscalp.monitoring.courier import WAITING_MAX, Courier
from gpuscalp.monitoring.expressions import Scrapes

_RETRIES_S: Final = (5.0, 20.0, 60.0)
_RESULTS: Final = ("sent", "failed", "dropped")


@dataclass(eq=False)
class _Delivery:
    """A message that channels have been given. ``open``: how many have neither sent nor dropped it."""

    message: Message
    open: int
    arrived: bool = False


@final
class Notifier(Collector):
    """Looks at the metrics of a session and sends what is to be told, from ``start`` to ``stop``.

    Parameters
    ----------
    channels : not empty
    who : the session's name, for titles
    collect : returns the metrics of the session, now
    look_on : calls what it is given, by a name, and lets no error of it pass (``gpuscalp.live.onlookers``)
    clock : Unix seconds, for the age of what metrics tell
    end_s : how long ``stop`` waits for the last message, of all channels together
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        config: NotifyConfig,
        who: str,
        collect: Callable[[], Iterable[Metric]],
        look_on: Callable[[str, Callable[[], None]], None],
        *,
        clock: Callable[[], float] = time.time,
        end_s: float = 3.0,
        retries_s: Sequence[float] = _RETRIES_S,
    ) -> None:
        self._couriers = [Courier(channel, retries_s) for channel in channels]
        self._config, self._collect, self._clock, self._end_s = config, collect, clock, end_s
        self._alarms = Alarms(CONDITIONS)
        self._scrapes = Scrapes(self._alarms.ranges)
        self._digest = Digest(config, who)
        self._said: deque[Message] = deque(maxlen=WAITING_MAX)
        self._settled: deque[tuple[_Delivery, bool]] = deque()  # by couriers, until the next look
        self._look_on, self._look_s = look_on, 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notify", daemon=True)

    def start(self) -> None:
        for courier in self._couriers:
            courier.start()
        self._thread.start()

    def say(self, message: Message) -> None:
        """Send a message that no condition stands for, if it is grave enough; without waiting."""
        if SEVERITIES.index(message.severity) <= SEVERITIES.index(self._config.severity):
            self._said.append(message)

    def stop(self) -> None:
        """Send what is left, for at most ``end_s``; whatever is not out by then is given up."""
        self._stopping.set()
        end_s = time.monotonic() + self._end_s
        for thread in (self._thread, *(each.thread for each in self._couriers)):
            if thread.is_alive():
                thread.join(max(0.0, end_s - time.monotonic()))

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        """(service, result) → messages; for the results see ``Courier``."""
        found: Counter[tuple[str, str]] = Counter()
        for courier in self._couriers:
            for result in _RESULTS:
                found[courier.service, result] += courier.counts[result]
        return found

    def collect(self) -> Iterable[Metric]:
        metric = CounterMetricFamily(
            "gpuscalp_notifications", "Messages to people.", labels=("service", "result")
        )
        for (service, result), count in sorted(self.counts.items()):
            metric.add_metric([service, result], count)
        yield metric

    def _run(self) -> None:
        ending = False
        while not ending:
            ending = self._stopping.is_set()
            self._look_on("notifier", partial(self._turn, time.monotonic(), ending=ending))
            if not ending:
                self._stopping.wait(min(1.0, self._config.every_s))
        for courier in self._couriers:
            courier.end()

    def _turn(self, now_s: float, *, ending: bool) -> None:
        while self._said:
            self._owe(self._said.popleft())
        if ending or now_s >= self._look_s:
            self._look_s = now_s + self._config.every_s
            self._look(now_s)

    def _look(self, now_s: float) -> None:
        """Judge the conditions, and owe every channel what is to be told of them."""
        self._take_back(now_s)
        self._scrapes.add(now_s, self._collect(), unix_s=self._clock())
        self._digest.add(self._alarms.observe(self._scrapes), now_s)
        message = self._digest.due(self._alarms.firing, now_s)
        if message is not None:
            self._owe(message)

    def _take_back(self, now_s: float) -> None:
        """Take back what no channel has delivered: it is told again for as long as it is true."""
        while self._settled:
            delivery, sent = self._settled.popleft()
            delivery.open -= 1
            delivery.arrived |= sent
            if not delivery.open and not delivery.arrived:
                self._digest.take_back(delivery.message, self._alarms.firing, now_s)

    def _owe(self, message: Message) -> None:
        delivery = _Delivery(message, len(self._couriers))
        for courier in self._couriers:
            courier.owe(message, lambda sent: self._settled.append((delivery, sent)))
