"""The exchange as seen from here: REST and streams together.

Owns: which calls are made at the same time, and which symbol is probed. Never: judges.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final

from gpuscalp.config import FeedConfig
from gpuscalp.doctor.check import Check, failed_by, skip
from gpuscalp.doctor.clock import check_offset
from gpuscalp.doctor.rest import RestProbe, check_rest, check_symbols, probe_rest
from gpuscalp.doctor.streams import Patience, addresses, check_stream, probe_stream
from gpuscalp.errors import ConfigError
from gpuscalp.feeds.proxies import proxy_of
from gpuscalp.feeds.rest import RestClient
from gpuscalp.feeds.routes import Endpoint
from gpuscalp.schema import Instrument

NAMES: Final = ("rest", "clock_offset", "symbols", "stream")
# Probed where no model names symbols: no exchange of USD-M futures is without it.
DEFAULT_SYMBOL: Final = "BTCUSDT"


async def check_network(
    feed: FeedConfig,
    symbols: Sequence[str],
    *,
    instruments: Mapping[str, Instrument],
    patience: Patience,
) -> list[Check]:
    """Ask the exchange.

    Parameters
    ----------
    symbols : of the model or the session; the first one is subscribed to. Empty: one that the exchange lists
    instruments : see ``gpuscalp.doctor.rest.check_symbols``
    """
    asking = asyncio.ensure_future(asyncio.to_thread(_ask, feed, patience))
    symbol = symbols[0] if symbols else _choose(await asking)
    try:
        places = addresses(symbol, feed)
    except ConfigError as error:
        streams = [failed_by("stream", error, fix="correct feed.streams")]
    else:
        streams = list(
            await asyncio.gather(*(_stream(name, endpoint, feed, patience) for name, endpoint in places))
        )
    probe = await asking
    checks = [check_rest(probe), check_offset(probe.samples, feed)]
    if not symbols:
        checks.append(skip("symbols", "no model or session names any"))
    elif probe.listing is None:
        checks.append(skip("symbols", "the exchange has not listed its symbols"))
    else:
        checks.append(check_symbols(symbols, probe.listing, instruments))
    return [*checks, *streams]


def _ask(feed: FeedConfig, patience: Patience) -> RestProbe:
    client = RestClient(
        feed, clock=time.time_ns, proxy_url=proxy_of(feed.rest_url), timeout_s=patience.rest_s
    )
    try:
        return probe_rest(client, blocked_until_ns=lambda: client.budget.blocked_until_ns)
    finally:
        client.close()


async def _stream(name: str, endpoint: Endpoint, feed: FeedConfig, patience: Patience) -> Check:
    return check_stream(name, await probe_stream(endpoint, feed, patience))


def _choose(probe: RestProbe) -> str:
    trading = None if probe.listing is None else probe.listing.trading
    return DEFAULT_SYMBOL if not trading or DEFAULT_SYMBOL in trading else min(trading)
