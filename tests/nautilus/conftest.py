"""A market, a bundle and a configuration that trades, for the tests with NautilusTrader."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from msgspec.structs import replace

from gpuscalp.config import RiskConfig
from gpuscalp.schema import NS_PER_S
from gpuscalp.synthetic.spec import DEFAULT_SYMBOLS, MarketSpec
from gpuscalp.synthetic.write import write
from tests.backtest.model import CONFIG as TRADING
from tests.backtest.model import write_stump_bundle

SECONDS = 60
# Recordings have no mark prices, or gaps.
CONFIG = replace(TRADING, risk=RiskConfig(max_losses="off", max_collar_bps="off", blocked_quality=()))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs NautilusTrader where it is not installed; pass over its use of old pandas calls."""
    installed = find_spec("nautilus_trader") is not None
    for item in items:
        if item.get_closest_marker("nautilus") is None:
            continue
        if installed:
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))
        else:
            item.add_marker(pytest.mark.skip(reason="NautilusTrader is not installed (extra nautilus)"))


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a synthetic market of two symbols, a minute over a funding time."""
    path = tmp_path_factory.mktemp("nautilus-market") / "archive"
    # Funding falls due in the middle: the default market starts five minutes before it.
    start_ns = MarketSpec().start_ns + 270 * NS_PER_S
    write(MarketSpec(start_ns=start_ns, duration_s=SECONDS, symbols=DEFAULT_SYMBOLS[:2]), path)
    return path


@pytest.fixture(scope="session")
def bundle(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stump_bundle(tmp_path_factory.mktemp("nautilus-model") / "bundle", archive)
