"""A queue of work on a GPU of one's own, and graphs: launches recorded once and replayed with one call.

Owns: CUDA's stream and capture. Never: knows what is launched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, final

from gpuscalp.device import import_cupy


@final
class DeviceStream:
    """A stream that waits for no other. Inside ``with`` it is the thread's current one.

    What a graph reads and writes has to be allocated in it, before; see ``capture``.
    """

    def __init__(self) -> None:
        self._stream: Any = import_cupy().cuda.Stream(non_blocking=True)

    def __enter__(self) -> DeviceStream:
        self._stream.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stream.__exit__(*exception)

    def synchronize(self) -> None:
        """Wait until everything queued so far is done."""
        self._stream.synchronize()

    def capture(self, launch: Callable[[], None]) -> Callable[[], None]:
        """Record what ``launch`` queues, without running it; return what runs all of it, queued here.

        Each kernel must have run before: loading one is not permitted in a capture. The addresses of all
        arrays are part of the graph, and it does not keep the arrays: the caller does, and captures anew when
        one is replaced. So are the scalars.
        """
        with self:
            self._stream.begin_capture()
            try:
                launch()
            except BaseException:
                # The stream is of no use to anybody before its capture has ended; what spoilt it is known.
                with contextlib.suppress(Exception):
                    self._stream.end_capture()
                raise
            graph = self._stream.end_capture()
            graph.upload(self._stream)
        return lambda: graph.launch(self._stream)
