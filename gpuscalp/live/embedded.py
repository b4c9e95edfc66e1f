"""A live session with nothing else: an exchange of our own with a synthetic market, and a model of it.

Owns: the choice of both. The market is the one of ``gpuscalp demo``, running in real time; the model is a
small one without the long windows, so that it is warm within seconds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from gpuscalp.config import CostConfig, EngineConfig, FeatureConfig, LiveConfig, StrategyConfig
from gpuscalp.demo import SYNTHETIC_FEE_BPS, SYNTHETIC_HORIZON_MS
from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.faults import Fault
from gpuscalp.exchange.server import ServeSpec
from gpuscalp.exchange.source import Source
from gpuscalp.progress import Progress, silent
from gpuscalp.schema import NS_PER_S
from gpuscalp.synthetic import VENUE, MarketSpec, write

_TRAINED_S: Final = 240
_IDS_PER_S: Final = 100_000
# What needs more than a few seconds to be warm.
_DROP: Final = ("*.128", "*.512", "*.ewm.*", "*.macd.*", "*.spectrum.*")


def embedded_config(config: LiveConfig, urls: dict[str, str]) -> LiveConfig:
    """Return a configuration that listens to an exchange on this machine, everything else as it was: trades
    come one by one, as the model was trained on."""
    feed, stream = config.feed, urls["stream"]
    feed = msgspec.structs.replace(
        feed,
        public_url=f"{stream}/public",
        market_url=f"{stream}/market",
        rest_url=urls["rest"],
        redundant_urls=(),
        streams=tuple("trade" if name == "aggTrade" else name for name in feed.streams),
    )
    return msgspec.structs.replace(config, feed=feed)


def embedded_defaults(*, rehearsed: bool = False) -> LiveConfig:
    """Return the configuration where none is given: the demo's strategy, and the fee of its venue.

    At Binance's fee no signal of this market is worth a trade.

    Parameters
    ----------
    rehearsed : predict in a worker on the CPU that is replaced quickly, so that its failures can be watched
    """
    engine = EngineConfig(workers="cpu", restart_ms=3_000) if rehearsed else EngineConfig()
    return LiveConfig(
        venue=VENUE,
        strategy=StrategyConfig(min_confidence=0.4, min_agreement=0.6),
        cost=CostConfig(taker_fee_bps=SYNTHETIC_FEE_BPS, maker_fee_bps=0.0),
        engine=engine,
    )


def train_embedded(path: Path, *, seed: int, now_ns: int, told: Progress = silent) -> None:
    """Train a small model on some minutes of the synthetic market that end now, and write its bundle."""
    from gpuscalp.archive import Archive
    from gpuscalp.device import core_count
    from gpuscalp.train import ArchiveSource, train
    from gpuscalp.train.quick import quick_config

    start_ns = (now_ns // NS_PER_S - _TRAINED_S) * NS_PER_S
    spec = MarketSpec(seed=seed + 1, start_ns=start_ns, duration_s=_TRAINED_S)
    with tempfile.TemporaryDirectory(prefix="gpuscalp-embedded-", ignore_cleanup_errors=True) as folder:
        write(spec, Path(folder) / "archive")
        archive = Archive.open(Path(folder) / "archive")
        config = quick_config(
            VENUE,
            archive.symbols(VENUE),
            horizon_ms=SYNTHETIC_HORIZON_MS,
            seed=seed,
            features=FeatureConfig(drop=_DROP),
        )
        threads = core_count()
        source = ArchiveSource.open(archive, config, threads=threads)
        train(source, config, path, threads=threads, on_progress=told)


def market_of(source: Source) -> str:
    """Return what a market is: made up, or recorded and replayed."""
    return VENUE if any(each.venue == VENUE for each in source.instruments) else "replayed"


@contextmanager
def served(source: Source, *, faults: Sequence[Fault] = (), seed: int = 7) -> Iterator[dict[str, str]]:
    """Serve a market on loopback in this process, in real time; yield the exchange's URLs."""
    # A session may go on over a restart: ids must not begin again. No market of ours makes more a second.
    first_id = (time.time_ns() // NS_PER_S) * _IDS_PER_S
    with Exchange(source, ServeSpec(faults=tuple(faults), seed=seed, first_id=first_id)) as exchange:
        yield exchange.urls
