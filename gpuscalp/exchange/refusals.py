"""Refusals of the exchange: codes, texts and HTTP status, as Binance's USD-M documentation lists them.

Owns: the vocabulary. Never: decides. A refusal travels as ``ApiError`` up to the shell, which turns it into
an HTTP reply or a WebSocket reply; it is never a failure of the program.
"""

from __future__ import annotations

from typing import Final

TEXTS: Final[dict[int, str]] = {
    -1000: "An unknown error occurred while processing the request.",
    -1003: "Too many requests; current limit is %s requests per minute.",
    -1007: "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    -1015: "Too many new orders; current limit is %s.",
    -1016: "This service is no longer available.",
    -1021: "Timestamp for this request is outside of the recvWindow.",
    -1022: "Signature for this request is not valid.",
    -1102: "Mandatory parameter '%s' was not sent, was empty/null, or malformed.",
    -1106: "Parameter '%s' sent when not required.",
    -1111: "Precision is over the maximum defined for this asset.",
    -1115: "Invalid timeInForce.",
    -1116: "Invalid orderType.",
    -1117: "Invalid side.",
    -1121: "Invalid symbol.",
    -1125: "This listenKey does not exist.",
    -1128: "Combination of optional parameters invalid.",
    -1130: "Invalid data sent for parameter '%s'.",
    -1131: "recvWindow must be less than 60000.",
    -2011: "Unknown order sent.",
    -2013: "Order does not exist.",
    -2014: "API-key format invalid.",
    -2015: "Invalid API-key, IP, or permissions for action.",
    -2019: "Margin is insufficient.",
    -2021: "Order would immediately trigger.",
    -2022: "ReduceOnly Order is rejected.",
    -2025: "Reach max open order limit.",
    -2027: "Exceeded the maximum allowable position at current leverage.",
    -2028: "Leverage is smaller than permitted: insufficient margin balance.",
    -4001: "Price less than 0.",
    -4002: "Price greater than max price.",
    -4003: "Quantity less than zero.",
    -4004: "Quantity less than min quantity.",
    -4005: "Quantity greater than max quantity.",
    -4013: "Price less than min price.",
    -4014: "Price not increased by tick size.",
    -4015: "Client order id is not valid.",
    -4016: "Price is higher than mark price multiplier cap.",
    -4023: "Quantity not increased by step size.",
    -4024: "Price is lower than mark price multiplier floor.",
    -4028: "Leverage %s is not valid",
    -4046: "No need to change margin type.",
    -4047: "Margin type cannot be changed if there exists open orders.",
    -4048: "Margin type cannot be changed if there exists position.",
    -4059: "No need to change position side.",
    -4061: "Order's position side does not match user's setting.",
    -4067: "Position side cannot be changed if there exists open orders.",
    -4068: "Position side cannot be changed if there exists position.",
    -4116: "ClientOrderId is duplicated.",
    -4120: ("Order type not supported for this endpoint. Please use the Algo Order API endpoints instead."),
    -4140: "Invalid symbol status for opening position.",
    -4164: "Order's notional must be no smaller than %s (unless you choose reduce only).",
    -5021: "Due to the order could not be filled immediately, the FOK order has been rejected."
    " The order will not be recorded in the order history",
    -5022: "Due to the order could not be executed as maker, the Post Only order will be rejected."
    " The order will not be recorded in the order history",
    -5025: "Only limit order is supported.",
    -5026: "Exceed maximum modify order limit.",
    -5027: "No need to modify the order.",
    -5038: "Invalid price match.",
    -5039: "Invalid self trade prevention mode.",
    -5040: "The goodTillDate timestamp must be greater than the current time plus 600 seconds"
    " and smaller than 253402300799000",
}

_STATUS: Final[dict[int, int]] = {-2014: 401, -2015: 401, -1003: 429, -1015: 429, -1007: 408}


class ApiError(Exception):
    """One refusal.

    Parameters
    ----------
    code : Binance's error code
    text : fills the ``%s`` of the code's text, if it has one
    status : HTTP status; None = the usual one of the code
    message : replaces the text
    headers : further HTTP headers, such as Retry-After
    """

    def __init__(
        self,
        code: int,
        text: object = "",
        *,
        status: int | None = None,
        message: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        words = TEXTS[code] if message is None else message
        self.code = code
        self.message = words % text if message is None and "%s" in words else words
        self.status = _STATUS.get(code, 400) if status is None else status
        self.headers = headers or {}
        super().__init__(f"{code} {self.message}")

    def body(self) -> dict[str, object]:
        """Return the JSON body."""
        return {"code": self.code, "msg": self.message}
