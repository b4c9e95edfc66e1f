"""What a card reports by itself: Xid errors, and that it has become unavailable.

Owns: the event set of one card, and what has come from it since. NVML keeps no "last Xid" to be asked for, so
what happens while nobody listens is not known. Never: waits for longer than a moment.

An Xid is the number of an error that the driver writes to the kernel's log. Source: NVIDIA, "Xid Errors".
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, final

from gpuscalp.monitoring.nvml_cards import Card

# Zero is not documented as "do not wait".
_WAIT_MS: Final = 1
_AT_ONCE_MAX: Final = 64
# In place of an instance's number: the event concerns the whole card.
_WHOLE_CARD: Final = 0xFFFFFFFF


@final
class CardEvents:
    """Listens to one card, between ``listen`` and ``close``; what has come stays.

    Each card has a set of its own: an event of a card that is lost does not always say whose it is.

    Attributes
    ----------
    last_xid : 0 = none so far; None where events are not supported
    xids : all different ones so far, in order
    words : other events so far: "double_bit_ecc", "unavailable"
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._set: Any = None
        self.last_xid: int | None = None
        self.xids: tuple[int, ...] = ()
        self.words: tuple[str, ...] = ()
        self._xid = nvml.nvmlEventTypeXidCriticalError
        # Our words for the others. A change of the recovery action is not among them: it comes when an action
        # is wanted and when none is any more, and the action itself is asked for.
        self._bits = {
            nvml.nvmlEventTypeDoubleBitEccError: "double_bit_ecc",
            nvml.nvmlEventTypeGpuUnavailableError: "unavailable",
        }
        self._instance = _WHOLE_CARD

    def listen(self, card: Card) -> None:
        """Begin to listen, or begin again with another handle of the same card."""
        nvml = self._nvml
        if card.handle is None:
            return
        try:
            if card.mig is not None:
                self._instance = int(nvml.nvmlDeviceGetGpuInstanceId(card.mig))
            wanted = self._xid | sum(self._bits)
            supported = int(nvml.nvmlDeviceGetSupportedEventTypes(card.handle)) & wanted
            if not supported & self._xid:
                return
            events = nvml.nvmlEventSetCreate()
            nvml.nvmlDeviceRegisterEvents(card.handle, supported, events)
        except nvml.NVMLError:
            return
        self._set, self.last_xid = events, self.last_xid or 0

    def drain(self) -> None:
        """Take all events that have come."""
        if self._set is None:
            return
        for _ in range(_AT_ONCE_MAX):
            try:
                event = self._nvml.nvmlEventSetWait(self._set, _WAIT_MS)
            except self._nvml.NVMLError:
                return  # nothing has come; or the card is gone, which its own answers say
            if int(event.gpuInstanceId) in (_WHOLE_CARD, self._instance) or self._instance == _WHOLE_CARD:
                self._take(int(event.eventType), int(event.eventData))

    def _take(self, kind: int, data: int) -> None:
        if kind == self._xid:
            self.last_xid = data
            self.xids = tuple(dict.fromkeys((*self.xids, data)))
        elif word := self._bits.get(kind):
            self.words = tuple(dict.fromkeys((*self.words, word)))

    def close(self) -> None:
        """Stop listening; what has come is taken first."""
        self.drain()
        events, self._set = self._set, None
        if events is not None:
            with suppress(self._nvml.NVMLError):  # it may have gone with the driver
                self._nvml.nvmlEventSetFree(events)
