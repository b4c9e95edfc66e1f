"""NautilusTrader's trading node, put together for one session.

Owns: its configuration. Two things are switched off there, because they are done here and must not be done
twice: its risk engine, and retries of orders.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nautilus_trader.adapters.binance import (
    BINANCE,
    BinanceAccountType,
    BinanceDataClientConfig,
    BinanceExecClientConfig,
    get_cached_binance_http_client,
)
from nautilus_trader.adapters.binance.common.enums import BinanceEnvironment
from nautilus_trader.adapters.binance.futures.http.account import BinanceFuturesAccountHttpAPI
from nautilus_trader.common.component import (
    LiveClock,
    flush_logger,
    init_logging,
    is_logging_initialized,
    log_level_from_str,
)
from nautilus_trader.config import (
    InstrumentProviderConfig,
    LiveExecEngineConfig,
    LiveRiskEngineConfig,
    TradingNodeConfig,
)
from nautilus_trader.live.node import TradingNode
from nautilus_trader.model.identifiers import InstrumentId, TraderId

from gpuscalp.config import NautilusConfig
from gpuscalp.nautilus.account import AccountView
from gpuscalp.nautilus.adapter import DataClients, exec_clients
from gpuscalp.nautilus.keys import Keys, rest_url
from gpuscalp.nautilus.node_log import without_stderr
from gpuscalp.nautilus.user_stream import UserStream

_ACCOUNT: Any = BinanceAccountType.USDT_FUTURES
_TRADER = "GPUSCALP-001"
_STOP_S = 2.0
_LOG_BYTES = 1 << 20


def make_node(
    place: NautilusConfig,
    keys: Keys,
    instruments: Sequence[Any],
    link: Any,
    *,
    stream: UserStream,
    folder: Path,
) -> Any:
    """Return a node with one strategy, built and not started; needs a loop that runs.

    Parameters
    ----------
    instruments : ids of what is traded
    link : the strategy
    stream : is given the connection on which the exchange tells of orders
    folder : for its log (gpuscalp.nautilus.node_log); standard output is not its to write to
    """
    common: dict[str, Any] = {
        "api_key": keys.api_key,
        "api_secret": keys.secret,
        "account_type": _ACCOUNT,
        "environment": _environment(place),
        "base_url_http": place.rest_url or None,
        "instrument_provider": InstrumentProviderConfig(load_ids=frozenset(instruments)),
    }
    private = f"{place.stream_url}/private" if place.stream_url else None
    config = TradingNodeConfig(
        trader_id=_TRADER,
        data_clients={BINANCE: BinanceDataClientConfig(base_url_ws=place.stream_url or None, **common)},
        exec_clients={
            BINANCE: BinanceExecClientConfig(
                base_url_ws=place.ws_api_url or None,
                base_url_ws_stream=private,
                recv_window_ms=place.recv_window_ms,
                # An order that is sent again may be there twice: what became of it is asked instead.
                max_retries=None,
                # One position for each symbol, whoever's order or correction it came of: under the
                # exchange's ids a correction stays beside the position that it was to correct.
                use_position_ids=False,
                **common,
            )
        },
        risk_engine=LiveRiskEngineConfig(bypass=True),
        exec_engine=LiveExecEngineConfig(
            reconciliation=True,
            reconciliation_instrument_ids=list(instruments),
            reconciliation_startup_delay_secs=1.0,
            position_check_interval_secs=max(place.look_s, 5.0),
            graceful_shutdown_on_exception=False,
        ),
        timeout_connection=place.connect_s,
        timeout_reconciliation=place.connect_s,
        timeout_portfolio=place.connect_s,
        timeout_disconnection=_STOP_S,
        timeout_post_stop=_STOP_S / 4,
    )
    guard = begin_log(place.log_level, folder)
    node = TradingNode(config=config, loop=asyncio.get_running_loop())
    node.log_guard = guard  # who lets go of it ends the log
    node.trader.add_strategy(link)
    node.add_data_client_factory(BINANCE, DataClients)
    node.add_exec_client_factory(BINANCE, exec_clients(stream))
    node.build()
    return node


def open_account(place: NautilusConfig, keys: Keys, symbols: Sequence[str]) -> AccountView:
    """Return a view of the account; needs a loop that runs when it is used."""
    clock = LiveClock()
    client = get_cached_binance_http_client(
        clock=clock,
        account_type=_ACCOUNT,
        api_key=keys.api_key,
        api_secret=keys.secret,
        base_url=rest_url(place),
        environment=_environment(place),
    )
    return AccountView(BinanceFuturesAccountHttpAPI(client, clock, _ACCOUNT), symbols)


def instrument_ids(names: Sequence[str]) -> list[Any]:
    return [InstrumentId.from_str(name) for name in names]


def begin_log(level: str, folder: Path) -> Any:
    """Begin Nautilus's log, before a node does it where its errors go to our standard error.

    Returns
    -------
    what has to be kept as long as there is to be a log; None: there is one already, one for each process
    """
    if is_logging_initialized():
        return None
    return without_stderr(
        lambda: init_logging(
            trader_id=TraderId(_TRADER),
            level_stdout=log_level_from_str("OFF"),
            level_file=log_level_from_str(level),
            directory=str(folder),
            file_name="nautilus",
            file_format="json",
            colors=False,
            max_file_size=_LOG_BYTES,
            max_backup_count=1,
            fileout_sync_on_flush=False,  # it is memory
        )
    )


def flush_log() -> None:
    """Have Nautilus put into its files what it has written, if it writes already."""
    if is_logging_initialized():
        flush_logger()


def _environment(place: NautilusConfig) -> Any:
    # Of a local exchange it decides nothing: all of its URLs are given.
    return BinanceEnvironment.LIVE if place.where == "live" else BinanceEnvironment.DEMO
