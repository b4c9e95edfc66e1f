"""How long a message is on its way to the exchange and back, and a decision takes: seeded distributions.

Owns: the draws. Never: knows what the message says.

Each leg has its own stream of random numbers, drawn in blocks: the n-th request of a run takes the same time
whatever was answered before, so that two runs that differ in one setting meet the same latencies.
"""

from __future__ import annotations

from typing import Final, final

import numpy as np

from gpuscalp.config import LegConfig
from gpuscalp.errors import ConfigError
from gpuscalp.schema import I64, NS_PER_MS

_BLOCK: Final = 1_024


@final
class Leg:
    """Draws of one way.

    Parameters
    ----------
    config : the distribution
    generator : this leg's own; advanced by every block of draws

    Raises
    ------
    ConfigError
        ``high_ms`` below ``low_ms``, or an empirical leg without samples
    """

    def __init__(self, config: LegConfig, generator: np.random.Generator) -> None:
        _check(config)
        self._config = config
        self._generator = generator
        self._samples_ns = np.rint(np.asarray(config.samples_ms, np.float64) * NS_PER_MS).astype(np.int64)
        self._drawn: list[int] = []
        self._used = 0

    def draw_ns(self) -> int:
        """Return how long the next message takes, in nanoseconds."""
        if self._used == len(self._drawn):
            self._drawn, self._used = self._block().tolist(), 0
        self._used += 1
        return self._drawn[self._used - 1]

    def draw_many_ns(self, count: int) -> I64:
        """Return the next ``count`` draws, int64[count]."""
        return np.array([self.draw_ns() for _ in range(count)], np.int64)

    def _block(self) -> I64:
        config = self._config
        if config.kind == "empirical":
            return self._generator.choice(self._samples_ns, _BLOCK)
        low, high = round(config.low_ms * NS_PER_MS), round(config.high_ms * NS_PER_MS)
        if config.kind == "fixed":
            return np.full(_BLOCK, low, np.int64)
        return self._generator.integers(low, high, _BLOCK, endpoint=True)


def least_ns(config: LegConfig) -> int:
    """Return the shortest time that a message may take on a leg, in nanoseconds."""
    least_ms = min(config.samples_ms, default=0.0) if config.kind == "empirical" else config.low_ms
    return round(least_ms * NS_PER_MS)


def at_quantile(config: LegConfig, quantile: float, *, fixed_factor: float) -> LegConfig:
    """Return a leg on which every message takes what a share ``quantile`` of them does not exceed.

    A fixed leg has no distribution: it takes ``fixed_factor`` times its time.

    Raises
    ------
    ConfigError
        as ``Leg`` does
    """
    _check(config)
    if config.kind == "fixed":
        taken_ms = config.low_ms * fixed_factor
    elif config.kind == "uniform":
        taken_ms = config.low_ms + quantile * (config.high_ms - config.low_ms)
    else:
        taken_ms = float(np.quantile(config.samples_ms, quantile))
    return LegConfig(kind="fixed", low_ms=taken_ms, high_ms=taken_ms)


def median_ns(config: LegConfig) -> int:
    """Return what half of the messages do not exceed, in nanoseconds."""
    return round(at_quantile(config, 0.5, fixed_factor=1.0).low_ms * NS_PER_MS)


def legs(request: LegConfig, reply: LegConfig, seed: int) -> tuple[Leg, Leg]:
    """Return both legs, each with a stream of its own from one seed."""
    there, back = np.random.SeedSequence(seed).spawn(2)
    return Leg(request, np.random.default_rng(there)), Leg(reply, np.random.default_rng(back))


def compute_leg(compute: LegConfig, seed: int) -> Leg:
    """Return the times that decisions take, with a stream beside those of the legs of the same seed."""
    return Leg(compute, np.random.default_rng(np.random.SeedSequence(seed).spawn(3)[2]))


def _check(config: LegConfig) -> None:
    if config.kind == "uniform" and config.high_ms < config.low_ms:
        raise ConfigError("high_ms is below low_ms", where="latency", value=config.high_ms)
    if config.kind == "empirical" and not config.samples_ms:
        raise ConfigError(
            "an empirical latency needs samples", where="latency", fix="set samples_ms, or kind = 'fixed'"
        )
