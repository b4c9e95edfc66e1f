"""The exchange's REST server: reachable, how fast, its time, its list of instruments.

Owns: the calls, and the checks ``rest`` and ``symbols``. Never: signs anything, or goes on after a refusal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gpuscalp.archive.instruments import parse_exchange_info, trading_symbols
from gpuscalp.doctor.check import Check, fail, ok, warn
from gpuscalp.errors import DeadlineError, GpuscalpError, ModelError
from gpuscalp.feeds.rest import RestReply
from gpuscalp.schema import NS_PER_MS, NS_PER_S, Instrument

SAMPLES: Final = 9
# Far from the exchange a round trip takes 0.3 s. Slower than this, a book cannot be repaired in time.
SLOW_MS: Final = 1_000
_VENUE: Final = "binance_usdm"


class Client(Protocol):
    """What is needed of ``gpuscalp.feeds.rest.RestClient``."""

    def server_time(self) -> tuple[int, int, int]: ...
    def exchange_info(self) -> RestReply: ...


@dataclass(frozen=True, slots=True)
class Listing:
    """What the exchange lists: instruments, and the names of those that are trading now."""

    instruments: Mapping[str, Instrument]
    trading: frozenset[str]


@dataclass(frozen=True, slots=True)
class RestProbe:
    """``samples``: (sent, received, server's time) of each call, ns; ``error``: what ended the calls.

    ``patience_ns``: how long the exchange asks to be left alone.
    """

    samples: tuple[tuple[int, int, int], ...]
    listing: Listing | None
    error: GpuscalpError | None = None
    patience_ns: int = 0


def probe_rest(
    client: Client,
    *,
    blocked_until_ns: Callable[[], int] = lambda: 0,
    clock: Callable[[], int] = time.time_ns,
) -> RestProbe:
    """Ask for the time again and again, then for the list; the first refusal ends it.

    Parameters
    ----------
    client : its weight is used up by ``SAMPLES`` + 1
    blocked_until_ns : when the exchange will take calls again, asked after a refusal; ``clock``'s time
    """
    samples: list[tuple[int, int, int]] = []
    try:
        client.server_time()  # the first one pays for the connection
        samples.extend(client.server_time() for _ in range(SAMPLES - 1))
        listing = parse_listing(client.exchange_info())
    except GpuscalpError as error:
        return RestProbe(tuple(samples), None, error, max(0, blocked_until_ns() - clock()))
    return RestProbe(tuple(samples), listing)


def parse_listing(reply: RestReply) -> Listing:
    """Read the list of instruments.

    Raises
    ------
    DataError    it is none
    """
    instruments = parse_exchange_info(reply.body, _VENUE, where=reply.request)
    return Listing(instruments, trading_symbols(reply.body, where=reply.request))


def check_rest(probe: RestProbe) -> Check:
    """Judge whether the server answers, and in time."""
    if probe.error is not None:
        error = probe.error
        value = {"error": error.to_dict(), "wait_s": probe.patience_ns / NS_PER_S}
        what = error.what if error.value is None else f"{error.what}: {error.value}"
        return fail("rest", what, _fix(probe), value, kind=DeadlineError)
    trips_ms = sorted((recv_ns - sent_ns) / NS_PER_MS for sent_ns, recv_ns, _ in probe.samples)
    middle_ms = trips_ms[len(trips_ms) // 2]
    value = {"round_trip_ms": middle_ms, "best_ms": trips_ms[0], "worst_ms": trips_ms[-1]}
    title = f"answers in {middle_ms:.1f} ms"
    if middle_ms > SLOW_MS:
        return warn("rest", f"{title}: slow", "use a machine or a line nearer to the exchange", value)
    return ok("rest", title, value)


def check_symbols(
    symbols: Sequence[str], listing: Listing, trained: Mapping[str, Instrument] | None = None
) -> Check:
    """Compare the symbols of a model with what the exchange lists.

    Parameters
    ----------
    trained : instruments that the model's data or an earlier run had, where they are known: their tick sizes
        have to be those of today
    """
    missing = [name for name in symbols if name not in listing.instruments]
    idle = [name for name in symbols if name in listing.instruments and name not in listing.trading]
    known = {name: trained[name] for name in symbols if trained is not None and name in trained}
    moved = [
        f"{name} {known[name].tick_size:g} → {listing.instruments[name].tick_size:g}"
        for name in known
        if name in listing.instruments and known[name].tick_size_e8 != listing.instruments[name].tick_size_e8
    ]
    value = {
        "missing": missing,
        "not_trading": idle,
        "tick_size_changed": moved,
        "tick_sizes_compared": len(known),
        "tick_sizes": {
            name: listing.instruments[name].tick_size for name in symbols if name in listing.instruments
        },
    }
    if missing:
        fix = "train a model on symbols that the exchange lists, or correct feed.rest_url"
        return fail("symbols", f"not listed: {', '.join(missing)}", fix, value, kind=ModelError)
    if moved:
        fix = "train the model again on data with the present tick sizes, and begin a new session"
        return fail("symbols", f"tick sizes changed: {', '.join(moved)}", fix, value, kind=ModelError)
    if idle:
        fix = "wait until they trade, or leave them out"
        return warn("symbols", f"listed, but not trading now: {', '.join(idle)}", fix, value)
    return ok("symbols", f"all {len(symbols)} are listed and trading", value)


def _fix(probe: RestProbe) -> str:
    error = probe.error
    assert error is not None, "asked for a failure only"
    if probe.patience_ns > 0:
        seconds = -(-probe.patience_ns // NS_PER_S)
        return f"the exchange asks to wait: nothing should be sent to it for {seconds} s"
    if "HTTP 503" in error.what:
        return "the exchange is in maintenance or overloaded: try again in some minutes"
    if "HTTP 451" in error.what or "HTTP 403" in error.what:
        return "the exchange does not serve this address: use a machine or a proxy that it serves"
    if "HTTP 404" in error.what:
        return "correct feed.rest_url: the server is there and is not the exchange"
    return error.fix or "look at the network, at DNS, at HTTPS_PROXY and at feed.rest_url"
