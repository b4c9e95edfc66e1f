"""Fixtures of a live session against an exchange on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gpuscalp.exchange.embedded import Exchange
from gpuscalp.exchange.server import ServeSpec
from tests.live.sessions import Market, Running, eager_config, feed_of, write_eager_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that wants to buy at every frame."""
    return write_eager_bundle(tmp_path_factory.mktemp("eager") / "bundle")


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange(Market(), ServeSpec()) as served:
        yield served


@pytest.fixture
def session(exchange: Exchange, bundle: Path, tmp_path: Path) -> Callable[..., Any]:
    """Return a context: a session that is trading, with some connections and changes of the feed."""

    @contextmanager
    def running(copies: int, **feed: Any) -> Iterator[Running]:
        config = eager_config(feed_of(exchange, redundancy=copies, **feed))
        with Running(tmp_path / "session", config, bundle) as started:
            started.wait_trading()
            yield started

    return running
