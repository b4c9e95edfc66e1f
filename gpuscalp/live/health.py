"""What a session knows of its surroundings: our clock, its device, and which symbols' streams deliver.

Owns: the judgement. A symbol is silent while one of its streams comes from no connection: redundant ones
cover for each other. That a stream was acknowledged, after a silence or a cut, says nothing: it counts when
its first message has come. A stream over all symbols is one of each; one that speaks only when something
happens (liquidations) is of none. Never: measures (gpuscalp.feeds.clock, gpuscalp.feeds.watchdog,
gpuscalp.live.gpu_watch).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, final

from gpuscalp.feeds.client import FeedClient
from gpuscalp.feeds.clock import ClockOffset
from gpuscalp.feeds.routes import is_rare
from gpuscalp.live.records import HealthRecord
from gpuscalp.schema import NS_PER_MS

# A smaller change of the clock's uncertainty is not worth a record.
_STEP_MS: Final = 5.0


@final
class Health:
    """Judges what the feed and the clock say.

    Parameters
    ----------
    symbols : names, in the order of axis S
    streams : all that are subscribed to
    """

    def __init__(self, symbols: Sequence[str], streams: Iterable[str]) -> None:
        index = {symbol.lower(): number for number, symbol in enumerate(symbols)}
        everyone = tuple(index.values())
        self._symbols_of = {
            name: everyone if name.startswith("!") else (index[name.partition("@")[0]],)
            for name in streams
            if not is_rare(name)
        }
        self._last = HealthRecord(None, drifted=True)

    def judge(
        self,
        client: FeedClient,
        clock: ClockOffset,
        device: tuple[str, ...] = (),
        off_tick: tuple[int, ...] = (),
    ) -> HealthRecord:
        """Return the health as it is now; the last one again where nothing worth a record has changed.

        Parameters
        ----------
        device : why the device that predicts is not trusted
        off_tick : symbols whose prices are off their tick
        """
        uncertainty_ns = clock.uncertainty_ns
        error_ms = None if uncertainty_ns is None else round(uncertainty_ns / NS_PER_MS, 3)
        last = self._last.clock_error_ms
        if error_ms is not None and last is not None and abs(error_ms - last) < _STEP_MS:
            error_ms = last
        self._last = HealthRecord(
            error_ms,
            drifted=clock.has_drifted,
            silent=self._silent(client),
            device=device,
            off_tick=off_tick,
        )
        return self._last

    def _silent(self, client: FeedClient) -> tuple[int, ...]:
        missing = self._symbols_of.keys() - client.delivering_streams()
        return tuple(sorted({symbol for name in missing for symbol in self._symbols_of[name]}))
