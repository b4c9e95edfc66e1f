"""REST calls of the account: balances, positions, settings, commission, listen key.

Owns: their answers, and the changes of leverage, margin type and position mode. Shapes: Binance
documentation, account endpoints v2 and v3.
"""

from __future__ import annotations

from typing import Any, Final

from gpuscalp.exchange.calls import Call, Endpoint
from gpuscalp.exchange.ledger import POSITION_SIDES
from gpuscalp.exchange.refusals import ApiError
from gpuscalp.exchange.rules import text
from gpuscalp.exchange.users import LISTEN_KEY_MS
from gpuscalp.execution.margin import TIERS
from gpuscalp.schema import E8

_LEVERAGE_MAX: Final = 125


def _money(value_e8: int) -> str:
    return text(value_e8, 8)


def _totals(call: Call) -> dict[str, Any]:
    user = call.user
    ledger, orders = user.ledger, list(user.open_orders.values())
    wallet, unrealised = ledger.account.wallet_e8, ledger.unrealised_total_e8()
    positions, waiting = ledger.initial_total_e8(), ledger.orders_margin_e8(orders)
    available = max(0, ledger.available_e8(orders))
    return {
        "initial": _money(positions + waiting),
        "maint": _money(ledger.maintenance_total_e8()),
        "wallet": _money(wallet),
        "unrealised": _money(unrealised),
        "margin": _money(wallet + unrealised),
        "positions": _money(positions),
        "orders": _money(waiting),
        "available": _money(available),
    }


def _account(call: Call, *, v2: bool) -> dict[str, Any]:
    sums = _totals(call)
    quote = call.user.ledger.rules[0].quote
    asset = {
        "asset": quote,
        "walletBalance": sums["wallet"],
        "unrealizedProfit": sums["unrealised"],
        "marginBalance": sums["margin"],
        "maintMargin": sums["maint"],
        "initialMargin": sums["initial"],
        "positionInitialMargin": sums["positions"],
        "openOrderInitialMargin": sums["orders"],
        "crossWalletBalance": sums["wallet"],
        "crossUnPnl": sums["unrealised"],
        "availableBalance": sums["available"],
        "maxWithdrawAmount": sums["available"],
        "updateTime": call.user.ledger.updated_ms,
    }
    totals = {
        "totalInitialMargin": sums["initial"],
        "totalMaintMargin": sums["maint"],
        "totalWalletBalance": sums["wallet"],
        "totalUnrealizedProfit": sums["unrealised"],
        "totalMarginBalance": sums["margin"],
        "totalPositionInitialMargin": sums["positions"],
        "totalOpenOrderInitialMargin": sums["orders"],
        "totalCrossWalletBalance": sums["wallet"],
        "totalCrossUnPnl": sums["unrealised"],
        "availableBalance": sums["available"],
        "maxWithdrawAmount": sums["available"],
    }
    if not v2:
        return {**totals, "assets": [asset], "positions": _account_positions(call)}
    flags = dict.fromkeys(("canTrade", "canDeposit", "canWithdraw"), True)
    head = {"feeTier": 0, "feeBurn": False, **flags, "updateTime": 0}
    modes = {"multiAssetsMargin": False, "tradeGroupId": -1}
    return {
        **head,
        **modes,
        **totals,
        "assets": [{**asset, "marginAvailable": True}],
        "positions": [
            {
                **_position(call, rules.symbol, side),
                "leverage": str(call.user.ledger.settings[rules.symbol].leverage),
                "maxNotional": _max_notional(call, rules.symbol),
                "isolated": call.user.ledger.settings[rules.symbol].isolated,
                "bidNotional": "0",
                "askNotional": "0",
            }
            for rules in call.user.ledger.rules
            for side in _sides(call)
        ],
    }


def _account_positions(call: Call) -> list[dict[str, Any]]:
    names = (
        *("symbol", "positionSide", "positionAmt", "unrealizedProfit", "isolatedMargin", "notional"),
        *("isolatedWallet", "initialMargin", "maintMargin", "updateTime"),
    )
    rows = (_position(call, symbol, side) for symbol, side in _shown(call))
    return [{name: row[name] for name in names} for row in rows]


def _position(call: Call, symbol: str, side: str) -> dict[str, Any]:
    ledger = call.user.ledger
    position, rules = ledger.position(symbol, side), call.listing_of(symbol).rules
    initial = _money(ledger.initial_e8(symbol, side))
    return {
        "symbol": symbol,
        "positionSide": side,
        "positionAmt": rules.qty(position.qty_e8),
        "entryPrice": text(ledger.entry_e8(position), 1),
        "breakEvenPrice": text(ledger.break_even_e8(symbol, side), 1),
        "markPrice": _money(call.listing_of(symbol).mark_e8()),
        "unrealizedProfit": _money(ledger.unrealised_e8(symbol, side)),
        "liquidationPrice": "0",
        "isolatedMargin": "0",
        "notional": _money(position.value_e8(call.listing_of(symbol).mark_e8())),
        "marginAsset": rules.quote,
        "isolatedWallet": "0",
        "initialMargin": initial,
        "maintMargin": _money(ledger.maintenance_e8(symbol, side)),
        "positionInitialMargin": initial,
        "openOrderInitialMargin": "0",
        "updateTime": ledger.updated.get((symbol, side), 0),
    }


def _shown(call: Call) -> list[tuple[str, str]]:
    """Return what v3 lists: what has a position or an open order."""
    user = call.user
    shown = [(rules.symbol, side) for rules, side, _ in user.ledger.held()]
    for order in user.open_orders.values():
        if (order.symbol, order.position_side) not in shown:
            shown.append((order.symbol, order.position_side))
    return shown


def _sides(call: Call) -> tuple[str, ...]:
    # One-way accounts have the position BOTH only; hedge mode lists all three, as the venue does.
    return POSITION_SIDES if call.user.ledger.hedge else POSITION_SIDES[:1]


def account_v2(call: Call) -> dict[str, Any]:
    return _account(call, v2=True)


def account_v3(call: Call) -> dict[str, Any]:
    return _account(call, v2=False)


def balances(call: Call) -> list[dict[str, Any]]:
    """Answer GET /fapi/v2/balance and v3/balance."""
    sums = _totals(call)
    return [
        {
            "accountAlias": "sim",
            "asset": call.user.ledger.rules[0].quote,
            "balance": sums["wallet"],
            "crossWalletBalance": sums["wallet"],
            "crossUnPnl": sums["unrealised"],
            "availableBalance": sums["available"],
            "maxWithdrawAmount": sums["available"],
            "marginAvailable": True,
            "updateTime": call.user.ledger.updated_ms,
        }
    ]


def positions_v3(call: Call) -> list[dict[str, Any]]:
    """Answer GET /fapi/v3/positionRisk."""
    wanted = call.params.optional("symbol")
    if wanted:
        call.listing()
    rows = []
    for symbol, side in _shown(call):
        if wanted in ("", symbol):
            row = _position(call, symbol, side)
            row["unRealizedProfit"] = row.pop("unrealizedProfit")
            rows.append({**row, "adl": 2, "bidNotional": "0", "askNotional": "0"})
    return rows


def positions_v2(call: Call) -> list[dict[str, Any]]:
    """Answer GET /fapi/v2/positionRisk: all symbols, with leverage and margin type."""
    wanted = call.params.optional("symbol")
    if wanted:
        call.listing()
    rows = []
    for rules in call.user.ledger.rules:
        setting = call.user.ledger.settings[rules.symbol]
        for side in _sides(call) if wanted in ("", rules.symbol) else ():
            row = _position(call, rules.symbol, side)
            row["unRealizedProfit"] = row.pop("unrealizedProfit")
            rows.append(
                {
                    **row,
                    "marginType": "isolated" if setting.isolated else "cross",
                    "isAutoAddMargin": "false",
                    "leverage": str(setting.leverage),
                    "maxNotionalValue": _max_notional(call, rules.symbol),
                }
            )
    return rows


def _account_config(call: Call) -> dict[str, Any]:
    return {
        "feeTier": 0,
        "canTrade": True,
        "canDeposit": True,
        "canWithdraw": True,
        "dualSidePosition": call.user.ledger.hedge,
        "updateTime": 0,
        "multiAssetsMargin": False,
        "tradeGroupId": -1,
    }


def _symbol_config(call: Call) -> list[dict[str, Any]]:
    wanted = call.params.optional("symbol")
    if wanted:
        call.listing()
    return [
        {
            "symbol": symbol,
            "marginType": "ISOLATED" if setting.isolated else "CROSSED",
            "isAutoAddMargin": False,
            "leverage": setting.leverage,
            "maxNotionalValue": _max_notional(call, symbol),
        }
        for symbol, setting in call.user.ledger.settings.items()
        if wanted in ("", symbol)
    ]


def _mode(call: Call) -> dict[str, Any]:
    return {"dualSidePosition": call.user.ledger.hedge}


def _set_mode(call: Call) -> dict[str, Any]:
    call.params.text("dualSidePosition")
    hedge = call.params.boolean("dualSidePosition")
    ledger = call.user.ledger
    if hedge == ledger.hedge:
        raise ApiError(-4059)
    if call.user.open_orders or call.venue.algo.open_orders(call.user):
        raise ApiError(-4067)
    if ledger.held():
        raise ApiError(-4068)
    ledger.hedge = hedge
    return {"code": 200, "msg": "success"}


def _multi_assets(_: Call) -> dict[str, Any]:
    return {"multiAssetsMargin": False}


def _fee_burn(_: Call) -> dict[str, Any]:
    return {"feeBurn": False}


def _commission(call: Call) -> dict[str, Any]:
    listing, ledger = call.listing(), call.user.ledger
    return {
        "symbol": listing.symbol,
        "makerCommissionRate": text(ledger.maker_e8, 4),
        "takerCommissionRate": text(ledger.taker_e8, 4),
        "rpiCommissionRate": "0.00005",
    }


def _brackets(call: Call) -> Any:
    wanted = call.params.optional("symbol")
    symbols = [call.listing().symbol] if wanted else list(call.venue.listings)
    steps = [
        {
            "bracket": number,
            "initialLeverage": tier.leverage,
            "notionalCap": tier.cap_e8 // E8,
            "notionalFloor": tier.floor_e8 // E8,
            "maintMarginRatio": tier.rate_e8 / E8,
            "cum": tier.amount_e8 / E8,
        }
        for number, tier in enumerate(TIERS, 1)
    ]
    return [{"symbol": symbol, "notionalCoef": 1.0, "brackets": steps} for symbol in symbols]


def _set_leverage(call: Call) -> dict[str, Any]:
    listing, leverage = call.listing(), call.params.integer("leverage")
    if leverage is None:
        raise ApiError(-1102, "leverage")
    if not 1 <= leverage <= _LEVERAGE_MAX:
        raise ApiError(-4028, leverage)
    user = call.user
    setting = user.ledger.settings[listing.symbol]
    limit = listing.rules.max_notional_e8(leverage)
    before, setting.leverage = setting.leverage, leverage
    held = (user.ledger.position(listing.symbol, side) for side in POSITION_SIDES)
    code = 0
    if any(abs(position.value_e8(listing.mark_e8())) > limit for position in held):
        code = -2027
    elif leverage < before and user.ledger.available_e8(user.open_orders.values()) < 0:
        code = -2028
    if code:
        setting.leverage = before
        raise ApiError(code)
    event = {
        "e": "ACCOUNT_CONFIG_UPDATE",
        "E": call.now_ms,
        "T": call.now_ms,
        "ac": {"s": listing.symbol, "l": leverage},
    }
    call.venue.tell(user, event)
    return {
        "leverage": leverage,
        "maxNotionalValue": _max_notional(call, listing.symbol),
        "symbol": listing.symbol,
    }


def _set_margin_type(call: Call) -> dict[str, Any]:
    listing, kind, user = call.listing(), call.params.text("marginType"), call.user
    if kind not in ("ISOLATED", "CROSSED"):
        raise ApiError(-1130, "marginType")
    setting = user.ledger.settings[listing.symbol]
    if setting.isolated == (kind == "ISOLATED"):
        raise ApiError(-4046)
    if any(order.symbol == listing.symbol for order in user.open_orders.values()):
        raise ApiError(-4047)
    if any(rules.symbol == listing.symbol for rules, _, _ in user.ledger.held()):
        raise ApiError(-4048)
    setting.isolated = kind == "ISOLATED"
    return {"code": 200, "msg": "success"}


def start_listening(call: Call) -> dict[str, Any]:
    """Answer POST /fapi/v1/listenKey, and ``userDataStream.start``: the same key while it lives."""
    return {"listenKey": call.user.start_listening(call.now_ms)}


def keep_listening(call: Call) -> dict[str, Any]:
    """Answer PUT /fapi/v1/listenKey, and ``userDataStream.ping``."""
    if not call.user.listen_key:
        raise ApiError(-1125)
    call.user.listen_key_until_ms = call.now_ms + LISTEN_KEY_MS
    return {"listenKey": call.user.listen_key}


def stop_listening(call: Call) -> dict[str, Any]:
    """Answer DELETE /fapi/v1/listenKey, and ``userDataStream.stop``."""
    call.user.stop_listening()
    return {}


def _max_notional(call: Call, symbol: str) -> str:
    leverage = call.user.ledger.settings[symbol].leverage
    return str(call.listing_of(symbol).rules.max_notional_e8(leverage) // E8)


_KEY, _LEVERAGE = "/fapi/v1/listenKey", "/fapi/v1/leverage"
ACCOUNT_CALLS: Final[dict[tuple[str, str], Endpoint]] = {
    ("GET", "/fapi/v2/account"): Endpoint(account_v2, "SIGNED", 5),
    ("GET", "/fapi/v3/account"): Endpoint(account_v3, "SIGNED", 5),
    ("GET", "/fapi/v2/balance"): Endpoint(balances, "SIGNED", 5),
    ("GET", "/fapi/v3/balance"): Endpoint(balances, "SIGNED", 5),
    ("GET", "/fapi/v2/positionRisk"): Endpoint(positions_v2, "SIGNED", 5),
    ("GET", "/fapi/v3/positionRisk"): Endpoint(positions_v3, "SIGNED", 5),
    ("GET", "/fapi/v1/accountConfig"): Endpoint(_account_config, "SIGNED", 5),
    ("GET", "/fapi/v1/symbolConfig"): Endpoint(_symbol_config, "SIGNED", 5),
    ("GET", "/fapi/v1/positionSide/dual"): Endpoint(_mode, "SIGNED", 30),
    ("POST", "/fapi/v1/positionSide/dual"): Endpoint(_set_mode, "SIGNED"),
    ("GET", "/fapi/v1/multiAssetsMargin"): Endpoint(_multi_assets, "SIGNED", 30),
    ("GET", "/fapi/v1/feeBurn"): Endpoint(_fee_burn, "SIGNED", 30),
    ("GET", "/fapi/v1/commissionRate"): Endpoint(_commission, "SIGNED", 20),
    ("GET", "/fapi/v1/leverageBracket"): Endpoint(_brackets, "SIGNED"),
    ("POST", _LEVERAGE): Endpoint(_set_leverage, "SIGNED"),
    ("POST", "/fapi/v1/marginType"): Endpoint(_set_margin_type, "SIGNED"),
    ("POST", _KEY): Endpoint(start_listening, "KEY"),
    ("PUT", _KEY): Endpoint(keep_listening, "KEY"),
    ("DELETE", _KEY): Endpoint(stop_listening, "KEY"),
}
