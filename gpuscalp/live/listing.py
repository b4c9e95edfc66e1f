"""The instruments of a session and what the venue lists: at its beginning, and at every start after that.

Owns: which change of an instrument ends a session. A venue changes tick and step sizes now and then; a
session keeps those that it was begun with, for its journal and its model count in them. Never: changes one.
"""

from __future__ import annotations

from pathlib import Path

from gpuscalp.archive.instruments import parse_exchange_info, trading_symbols
from gpuscalp.bundle import read_contract
from gpuscalp.errors import ConfigError, DataError, FeedError
from gpuscalp.feeds.rest import RestClient
from gpuscalp.live.directory import SessionFile
from gpuscalp.schema import E8, Instrument

_FIX = (
    "begin a new session in another directory, with a model trained on the new sizes; what is open in this "
    'one: docs/operations.md, "When a tick size changes"'
)


def instruments_of(rest: RestClient, venue: str, model: Path) -> list[Instrument]:
    """Ask the venue for the instruments of a model, in the model's order.

    Raises
    ------
    FeedError      the venue cannot be reached
    DataError      what it says is no list of instruments
    ConfigError    it does not list a symbol of the model
    """
    wanted = read_contract(model).training.symbols
    reply = rest.exchange_info()
    listed = parse_exchange_info(reply.body, venue, where=reply.request, wanted=wanted)
    missing = [symbol for symbol in wanted if symbol not in listed]
    if missing:
        raise ConfigError(
            "the venue does not list a symbol of the model",
            where=reply.request,
            value=", ".join(missing),
            fix="train a model without it: its columns depend on all of its symbols",
        )
    return [listed[symbol] for symbol in wanted]


def compare_listing(rest: RestClient, about: SessionFile) -> tuple[str, ...]:
    """Compare the instruments of a session that goes on with what the venue lists now.

    A venue that cannot be asked keeps no session from its positions: rows that do not fit make their symbol
    doubtful (``gpuscalp.live.off_tick``).

    Returns
    -------
    what the session's log has to say: which symbols do not trade, or have smaller market orders than the
    session sends, or that nothing could be compared

    Raises
    ------
    ConfigError    a tick or step size is another one than the session's
    """
    try:
        reply = rest.exchange_info()
        listed = parse_exchange_info(reply.body, about.config.venue, where=reply.request)
        trading = trading_symbols(reply.body, where=reply.request)
    except (FeedError, DataError) as error:
        return (f"tick and step sizes were not compared with the venue's: {error}",)
    changed = [
        f"{ours.symbol}: {what} size {was / E8:.10g}, now {now / E8:.10g}"
        for ours in about.instruments
        if (theirs := listed.get(ours.symbol)) is not None
        for what, was, now in (
            ("tick", ours.tick_size_e8, theirs.tick_size_e8),
            ("step", ours.step_size_e8, theirs.step_size_e8),
        )
        if was != now
    ]
    if changed:
        raise ConfigError(
            "the venue has changed the tick or step size of a symbol of this session",
            where=reply.request,
            value="; ".join(changed),
            fix=_FIX,
        )
    idle = [each.symbol for each in about.instruments if each.symbol not in trading]
    smaller = [
        f"{ours.symbol}: {ours.max_market_qty_e8 / E8:.10g}, now {theirs.max_market_qty_e8 / E8:.10g}"
        for ours in about.instruments
        if (theirs := listed.get(ours.symbol)) is not None
        and theirs.at_market_e8(ours.max_market_qty_e8) < ours.max_market_qty_e8
    ]
    notes = (
        (idle, "the venue does not trade now"),
        (smaller, "the venue refuses a market order, so an exit as well, of more than"),
    )
    return tuple(f"{what}: {', '.join(names)}" for names, what in notes if names)
