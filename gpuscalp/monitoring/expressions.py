"""What an alert looks at: small expressions over metrics that Prometheus and a session itself can both read.

Owns: their meaning in PromQL, and the same meaning over scrapes that were kept in memory. One definition,
two readers: tests/monitoring/test_conditions.py holds them against a real Prometheus. Fetches nothing.

PromQL's ``increase`` extrapolates to the whole range, ours does not. Conditions ask whether something rose,
or compare a rate that lasts; for both that makes no difference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, final

from prometheus_client.metrics_core import Metric

Labels = tuple[tuple[str, str], ...]  # sorted by name
Vector = dict[Labels, float]
Ranges = dict[str, int]  # names of samples, each with how many seconds back it is read; 0: the newest alone

_JOB: Final = "instance, job"  # labels that Prometheus adds, and that tell one session from another


@final
class Scrapes:
    """Samples of the last while, of those metrics that somebody asks for.

    Parameters
    ----------
    ranges : names such as ``gpuscalp_frames_total``, each with how many seconds it is kept: most of a
        session's series belong to metrics of which the newest is enough

    Attributes
    ----------
    now_s, unix_s : time of the newest scrape, and the same by the wall clock
    """

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self._kept: dict[str, deque[tuple[float, Vector]]] = {name: deque() for name in ranges}
        self.now_s = self.unix_s = 0.0

    def add(self, at_s: float, metrics: Iterable[Metric], *, unix_s: float) -> None:
        """Keep a scrape.

        Parameters
        ----------
        at_s : when it was made, by a clock that nobody sets
        unix_s : the same by the wall clock, which alone can be compared with an instant that a metric tells
        """
        self.now_s, self.unix_s = at_s, unix_s
        found: dict[str, Vector] = {name: {} for name in self._ranges}
        for metric in metrics:
            for sample in metric.samples:
                if sample.name in found:
                    labels = tuple(sorted(sample.labels.items()))
                    found[sample.name][labels] = float(sample.value)
        for name, vector in found.items():
            kept = self._kept[name]
            kept.append((at_s, vector))
            while kept[0][0] < at_s - self._ranges[name]:
                kept.popleft()

    def newest(self, name: str) -> Vector:
        return self._kept[name][-1][1]

    def since(self, name: str, seconds: int) -> list[tuple[float, Vector]]:
        """Return what a metric was during the last seconds, oldest first."""
        assert seconds <= self._ranges[name], f"{name} is kept for {self._ranges[name]} s"
        first_s = self.now_s - seconds
        return [(at_s, vector) for at_s, vector in self._kept[name] if at_s >= first_s]


class Expression(Protocol):
    """A vector: a value for each combination of labels that there is one for."""

    def promql(self) -> str: ...

    def read(self, scrapes: Scrapes) -> Vector: ...

    def ranges(self) -> Ranges:
        """Return what it reads, and how far back."""


@final
@dataclass(frozen=True)
class Series:
    """The newest value of a metric.

    Parameters
    ----------
    labels : that its series must have
    """

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def promql(self) -> str:
        chosen = ", ".join(f'{name}="{value}"' for name, value in self.labels.items())
        return f"{self.name}{{{chosen}}}" if chosen else self.name

    def read(self, scrapes: Scrapes) -> Vector:
        return self.chosen(scrapes.newest(self.name))

    def ranges(self) -> Ranges:
        return {self.name: 0}

    def chosen(self, vector: Vector) -> Vector:
        wanted = set(self.labels.items())
        return {labels: value for labels, value in vector.items() if wanted <= set(labels)}


@final
@dataclass(frozen=True)
class Age:
    """Seconds since an instant that a metric tells as Unix time."""

    of: Series

    def promql(self) -> str:
        return f"time() - {self.of.promql()}"

    def read(self, scrapes: Scrapes) -> Vector:
        return {labels: scrapes.unix_s - value for labels, value in self.of.read(scrapes).items()}

    def ranges(self) -> Ranges:
        return self.of.ranges()


@final
@dataclass(frozen=True)
class Rise:
    """By how much a counter rose within some seconds, or ``per_second`` of them."""

    of: Series
    seconds: int
    per_second: bool = False

    def promql(self) -> str:
        return f"{'rate' if self.per_second else 'increase'}({self.of.promql()}[{self.seconds}s])"

    def read(self, scrapes: Scrapes) -> Vector:
        """Return the rise of each series; one that was seen once has none."""
        first: dict[Labels, float] = {}
        last: dict[Labels, tuple[float, float]] = {}
        rose = Vector()
        for at_s, vector in scrapes.since(self.of.name, self.seconds):
            for labels, value in self.of.chosen(vector).items():
                if labels in last:
                    before = last[labels][1]
                    rose[labels] += value - before if value >= before else value  # else it began anew
                else:
                    first[labels], rose[labels] = at_s, 0.0
                last[labels] = (at_s, value)
        return {
            labels: rose[labels] / (at_s - first[labels] if self.per_second else 1.0)
            for labels, (at_s, _) in last.items()
            if at_s > first[labels]
        }

    def ranges(self) -> Ranges:
        return {self.of.name: self.seconds}


@final
@dataclass(frozen=True)
class Total:
    """The sum over all labels of a session."""

    of: Series

    def promql(self) -> str:
        return f"sum by ({_JOB}) ({self.of.promql()})"

    def read(self, scrapes: Scrapes) -> Vector:
        found = self.of.read(scrapes)
        return {(): sum(found.values())} if found else {}

    def ranges(self) -> Ranges:
        return self.of.ranges()


@final
@dataclass(frozen=True)
class Ratio:
    """One by the other, where both have the same labels."""

    upper: Series | Rise
    lower: Series

    def promql(self) -> str:
        return f"{self.upper.promql()} / {self.lower.promql()}"

    def read(self, scrapes: Scrapes) -> Vector:
        lower = self.lower.read(scrapes)
        upper = self.upper.read(scrapes)
        return {labels: value / lower[labels] for labels, value in upper.items() if lower.get(labels)}

    def ranges(self) -> Ranges:
        return merged((self.upper.ranges(), self.lower.ranges()))


@final
@dataclass(frozen=True)
class Quantile:
    """A quantile of what a histogram took in within some seconds.

    Parameters
    ----------
    of : the histogram without ``_bucket``, as Prometheus' histogram_quantile: linear within a bucket
    """

    of: Series
    share: float
    seconds: int

    def promql(self) -> str:
        return f"histogram_quantile({self.share}, sum by ({_JOB}, le) ({self._rates().promql()}))"

    def read(self, scrapes: Scrapes) -> Vector:
        rates: dict[float, float] = {}
        for labels, rate in self._rates().read(scrapes).items():
            bound = float(dict(labels)["le"])
            rates[bound] = rates.get(bound, 0.0) + rate
        bounds = sorted(rates)
        if len(bounds) < 2 or not rates[bounds[-1]]:
            return {}
        rank = self.share * rates[bounds[-1]]
        at = next(index for index, bound in enumerate(bounds) if rates[bound] >= rank)
        if at == len(bounds) - 1:  # +Inf
            return {(): bounds[-2]}
        low, below = (bounds[at - 1], rates[bounds[at - 1]]) if at else (0.0, 0.0)
        inside = rates[bounds[at]] - below
        return {(): low + (bounds[at] - low) * (rank - below) / inside}

    def ranges(self) -> Ranges:
        return self._rates().ranges()

    def _rates(self) -> Rise:
        return Rise(Series(f"{self.of.name}_bucket", self.of.labels), self.seconds, per_second=True)


_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": lambda value, limit: value > limit,
    "<": lambda value, limit: value < limit,
}


@final
@dataclass(frozen=True)
class Beyond:
    """Those values of an expression that lie beyond a limit."""

    of: Expression
    sign: str  # ">" or "<"
    limit: float

    def promql(self) -> str:
        return f"{self.of.promql()} {self.sign} {self.limit:g}"

    def read(self, scrapes: Scrapes) -> Vector:
        holds = _OPERATORS[self.sign]
        return {labels: value for labels, value in self.of.read(scrapes).items() if holds(value, self.limit)}


def merged(ranges: Iterable[Ranges]) -> Ranges:
    """Return what several read together: of each name the longest range."""
    found: Ranges = {}
    for each in ranges:
        for name, seconds in each.items():
            found[name] = max(seconds, found.get(name, 0))
    return found
