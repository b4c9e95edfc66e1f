"""One WebSocket: bytes from the network to lists of whole messages. The only file that knows sockets.

Owns: the fast way for what nearly everything is, whole data frames in one piece. Their payloads are cut out
of the received chunk here, at half a microsecond each; handshake, TLS, proxies, pings, fragments, closing and
every error go through the library ``websockets``, whose own way costs twenty times as much for a frame.

Never: decodes a message, or decides when to connect.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final, final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from gpuscalp.config import FeedConfig
from gpuscalp.errors import FeedError
from gpuscalp.feeds.proxies import UNPROVED, UNPROVED_FIX

# (receive time, messages): all whole messages of one chunk, in order.
Sink = Callable[[int, list[bytes]], None]

MESSAGE_BYTES_MAX: Final = 1 << 22
_WHOLE: Final = frozenset((0x81, 0x82))  # text and binary, final frame, no extension
_LOOPBACK: Final = re.compile(r"wss?://(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])(?::\d+)?(?:/|$)")
_DIGITS: Final = re.compile(r"\d{1,7}")


class SocketError(FeedError):
    """A socket that could not be opened. ``retry_after_ms``: the venue asks for so much patience."""

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        value: object = None,
        fix: str | None = None,
        retry_after_ms: int = 0,
    ) -> None:
        super().__init__(what, where=where, value=value, fix=fix)
        self.retry_after_ms = retry_after_ms


@final
class Socket:
    """An open socket; made by ``open_socket``."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, text: str) -> None:
        """Send a text message. On a socket that is closing nothing happens: its end will be told."""
        try:
            await self._connection.send(text)
        except WebSocketException:
            return

    async def close(self) -> None:
        """Close, politely for up to a second, then in any case."""
        await self._connection.close()

    async def wait_closed(self) -> str:
        """Return, when the socket has ended, why."""
        await self._connection.wait_closed()
        return str(self._connection.protocol.close_exc)


async def open_socket(url: str, config: FeedConfig, *, sink: Sink, clock: Callable[[], int]) -> Socket:
    """Connect.

    Parameters
    ----------
    sink : called with the messages of every chunk, and with none where only a ping came
    clock : wall clock, ns; read once for every chunk

    Raises
    ------
    SocketError    refused, unreachable, or no handshake in time
    """
    try:
        connection = await connect(
            url,
            compression=None,  # unpacking costs more than the bytes do, and the venue does not promise it
            open_timeout=config.open_timeout_ms / 1e3,
            close_timeout=1.0,
            ping_interval=None,  # the venue pings; silence is watched by feeds.connection
            max_size=MESSAGE_BYTES_MAX,
            proxy=None if _LOOPBACK.match(url) else True,  # True: what the environment names
            create_connection=partial(_FastConnection, sink, clock),  # type: ignore[arg-type]
        )
    except InvalidStatus as error:
        status, headers = error.response.status_code, error.response.headers
        raise SocketError(
            f"the venue refuses the connection: HTTP {status}",
            where=url,
            retry_after_ms=_patience_ms(status, headers.get("Retry-After", "")),
        ) from None
    except TimeoutError:
        raise SocketError("no handshake in time", where=url) from None
    except ssl.SSLCertVerificationError as error:
        raise SocketError(UNPROVED, where=url, value=error.verify_message, fix=UNPROVED_FIX) from None
    except (OSError, InvalidHandshake, WebSocketException) as error:
        raise SocketError("the connection cannot be opened", where=url, value=str(error)) from None
    return Socket(connection)


def _patience_ms(status: int, asked: str) -> int:
    if _DIGITS.fullmatch(asked):
        return int(asked) * 1_000
    return {418: 120_000, 429: 60_000, 503: 5_000}.get(status, 0)


@final
class _FastConnection(ClientConnection):
    """The library's connection, with a shorter way for whole data frames.

    Between two frames the library's parser is at a frame's beginning, so it can be given any frame that is
    not taken here and continues as if it had seen all of them.
    """

    def __init__(self, sink: Sink, clock: Callable[[], int], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sink, self._clock = sink, clock
        self._rest = b""
        self._fragments: list[bytes] = []
        self._messages: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        recv_ns = self._clock()
        if self.protocol.state is State.OPEN:
            self._rest = self._cut(self._rest + data if self._rest else data)
        else:
            # A handshake or a closing one; what follows it in the same chunk comes by process_event.
            data, self._rest = self._rest + data, b""
            super().data_received(data)
        messages, self._messages = self._messages, []
        self._sink(recv_ns, messages)

    def eof_received(self) -> None:
        if self._rest:
            data, self._rest = self._rest, b""
            super().data_received(data)
        super().eof_received()

    def process_event(self, event: Any) -> None:
        if not isinstance(event, Frame) or event.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            super().process_event(event)
            return
        # The library has checked the order and the total size of fragments.
        self._fragments.append(bytes(event.data))
        if event.fin:
            self._messages.append(b"".join(self._fragments))
            self._fragments.clear()

    def _cut(self, data: bytes) -> bytes:
        """Take all whole frames; return the beginning of the one that is not here yet."""
        append, at, end = self._messages.append, 0, len(data)
        while end - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                if end - at < 4:
                    break
                length, start = data[at + 2] << 8 | data[at + 3], at + 4
            elif length == 127:
                if end - at < 10:
                    break
                length, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            elif length > 127:
                length = (
                    MESSAGE_BYTES_MAX + 1
                )  # masked, which a server's must not be: an error, by the library
            stop = start + length
            if length > MESSAGE_BYTES_MAX:
                super().data_received(data[at:])
                return b""
            if stop > end:
                break
            kind = data[at]
            if kind in _WHOLE and not self._fragments:
                append(data[start:stop])
            else:
                super().data_received(data[at:stop])
                if self.protocol.state is not State.OPEN:
                    super().data_received(data[stop:])
                    return b""
            at = stop
        return data[at:] if at else data
