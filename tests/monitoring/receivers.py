"""Those who are told: an HTTP server and a mail server on loopback that keep what they get."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 20.0


class Webhook:
    """What came to an HTTP server. ``status`` is what it answers; ``hold`` keeps it from answering."""

    def __init__(self, port: int) -> None:
        self.port, self.status = port, 200
        self.got: list[dict[str, Any]] = []
        self.hold: threading.Event | None = None

    def url(self, secret: str) -> str:
        """Return a URL of apprise that carries a password."""
        return f"json://{secret}:{secret}@127.0.0.1:{self.port}/{secret}"


@contextmanager
def webhook() -> Iterator[Webhook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if found.hold is not None:
                found.hold.wait(PATIENCE_S)
            found.got.append(json.loads(content))
            self.send_response(found.status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Webhook(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        if found.hold is not None:
            found.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
