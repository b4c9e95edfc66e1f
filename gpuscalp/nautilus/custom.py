"""Data of ours that travel with Nautilus's: what its own types have no field for.

Owns: the types, and the client that they are subscribed from.
"""

from __future__ import annotations

from typing import Any, Final, final

from nautilus_trader.core.data import Data
from nautilus_trader.model.data import CustomData, DataType
from nautilus_trader.model.identifiers import ClientId

CLIENT: Final = ClientId("GPUSCALP")


class _Timed(Data):  # type: ignore[misc]
    """Data with both times."""

    def __init__(self, ts_event: int, ts_init: int) -> None:
        self._ts_event, self._ts_init = ts_event, ts_init

    @property
    def ts_event(self) -> int:
        return self._ts_event

    @property
    def ts_init(self) -> int:
        return self._ts_init


@final
class Doubt(_Timed):
    """The quality bits of the next event of a symbol.

    Attributes
    ----------
    about : Nautilus's instrument id; under this name Nautilus does not file it by instrument
    bits : of gpuscalp.schema.Quality
    """

    def __init__(self, about: Any, bits: int, ts_event: int, ts_init: int) -> None:
        super().__init__(ts_event, ts_init)
        self.about, self.bits = about, bits


@final
class Bell(_Timed):
    """The recording has ended. ``ring`` 0: nothing; 1: cancel; 2: close what is held; 3: hear the rest."""

    def __init__(self, ring: int, ts_ns: int) -> None:
        super().__init__(ts_ns, ts_ns)
        self.ring = ring


DOUBTS: Final = DataType(Doubt)
BELLS: Final = DataType(Bell)


def wrapped(data: Doubt | Bell) -> Any:
    """Return it as Nautilus's engine takes it."""
    return CustomData(DOUBTS if isinstance(data, Doubt) else BELLS, data)
