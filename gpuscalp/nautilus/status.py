"""What a session's status says of its source where that is NautilusTrader's node."""

from __future__ import annotations

from typing import Any

from gpuscalp.execution.remote import RemoteBroker
from gpuscalp.live.session import Session
from gpuscalp.nautilus.account import AccountView
from gpuscalp.nautilus.link import Link
from gpuscalp.nautilus.looks import Looks
from gpuscalp.schema import E8


def source_status(
    session: Session,
    account: AccountView,
    looks: Looks,
    link: Link,
    *,
    started: bool,
    where: str,
    silent: tuple[str, ...],
    clock: dict[str, Any],
    left: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return feeds, clock and account, ready for JSON.

    Parameters
    ----------
    account, looks : the account at the exchange, and what was found there
    link : to the node
    started : whether the node has: before that it knows of no positions
    where : nautilus.where
    silent : names of symbols of which a stream is
    clock : of the session
    left : positions that an end past the session has left, and how much of them stops cover
    """
    market, trader, found = session.market, session.engine.trader, looks.found
    broker = market.broker
    assert isinstance(broker, RemoteBroker)
    symbols = [each.symbol for each in session.about.instruments]
    nothing = [0] * len(symbols)
    nautilus = link.held_e8() if started else nothing
    exchange = [qty for qty, _ in found.positions] if found is not None else nothing
    ours_e8 = [each.qty_e8 for each in trader.account.positions]
    balance = link.balance_e8(account.quote) if started else None
    return {
        "feeds": {
            "connections": [],
            "messages": market.ingest.account()
            | {"messages": market.input_count, "rejects": link.rejects.total()},
            "gaps_settled": 0,
            "unsynced": [symbols[index] for index in link.rows.unsynced()],
            "silent": list(silent),
            "off_tick": [symbols[index] for index in market.health.off_tick],
            "snapshots": {"fetched": 0, "refused": 0},
        },
        "clock": clock,
        "account": {
            **looks.status(),
            "where": where,
            "positions": [
                {"symbol": name, "trader": ours / E8, "nautilus": theirs / E8, "exchange": qty / E8}
                for name, ours, theirs, qty in zip(symbols, ours_e8, nautilus, exchange, strict=True)
                if ours or theirs or qty
            ],
            "balance_usdt": {
                "trader": trader.account.wallet_e8 / E8,
                "nautilus": None if balance is None else balance / E8,
                "exchange": None if found is None else found.wallet_e8 / E8,
            },
            "orders": len(broker.orders),
            "last_order_id": trader.last_order_id,
            "other_fees": {asset: str(paid) for asset, paid in account.other_fees.items()},
            "others": list(account.others),
            "left": left,
        },
    }
