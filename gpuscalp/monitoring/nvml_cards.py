"""Which cards there are, and which of them CUDA uses in this process.

Owns: the way from CUDA's numbers, bus ids and UUIDs to NVML's handles. Never: asks a card how it is.

NVML counts all cards of the machine in the order of the PCI bus. CUDA counts those that
``CUDA_VISIBLE_DEVICES`` leaves, by default the fastest first. So an index of one is none of the other, and
cards are matched by bus id or UUID. Source: NVIDIA, "CUDA Programming Guide", environment variables;
"MIG User Guide", device names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
# Of a driver before 470: the card's UUID, and which slice of it. The old form goes on to work.
_OLD_MIG: Final = re.compile(r"MIG-(GPU-[0-9a-fA-F-]+)/(\d+)/(\d+)\Z")


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU, or one MIG slice of a GPU, as it was found.

    Attributes
    ----------
    index : its number as CUDA counts, or as NVML does where all cards were asked for
    handle : NVML's, of the whole card; None where it could not be had
    mig : NVML's handle of the slice; None for a whole card
    uuid : of the slice if there is one, else of the card
    fault : why there is no handle
    """

    index: int
    handle: Any
    mig: Any = None
    uuid: str | None = None
    bus_id: str | None = None
    name: str | None = None
    fault: str | None = None


def all_cards(nvml: Any) -> list[Card]:
    """Return every card that the driver shows, counted by NVML. NVML has to be started.

    Raises
    ------
    nvml.NVMLError    the cards cannot be counted
    """
    return [_card(nvml, index) for index in range(int(nvml.nvmlDeviceGetCount()))]


def visible_cards(nvml: Any, environment: Mapping[str, str], bus_ids: Sequence[str] = ()) -> list[Card]:
    """Return the cards that CUDA uses, counted by CUDA. NVML has to be started.

    A card in MIG mode stands for its first slice unless a slice was named: CUDA takes that one.

    Parameters
    ----------
    nvml : the module ``pynvml``, or what behaves like it
    environment : of the process that CUDA runs in
    bus_ids : what CUDA says itself, in its order (``gpuscalp.device.cuda_bus_ids``). Without them, cards that
        are named by numbers are taken in the order of the bus, which differs from CUDA's on a machine with
        cards of several kinds unless ``CUDA_DEVICE_ORDER`` is ``PCI_BUS_ID``

    Raises
    ------
    nvml.NVMLError    the cards cannot be counted
    """
    every = all_cards(nvml)
    told = environment.get(_VISIBLE)
    if bus_ids and "MIG-" not in (told or ""):
        by_bus = {bus_numbers(card.bus_id): card for card in every if card.bus_id is not None}
        silent = iter([card for card in every if card.bus_id is None])  # of whichever bus id nobody has
        named = [by_bus.get(bus_numbers(each)) or next(silent, None) for each in bus_ids]
        found = [card for card in named if card is not None]
        if len(found) == len(named):
            return _numbered(_first_slice(nvml, card) for card in found)
    if told is None:
        return _numbered(_first_slice(nvml, card) for card in every)
    chosen: list[Card] = []
    for token in (each.strip() for each in told.split(",")):
        card = _named(nvml, every, token)
        if card is None:
            break  # CUDA shows nothing from the first on that it does not know
        if card.uuid is not None and any(card.uuid == other.uuid for other in chosen):
            return []  # nor anything at all where one is named twice
        chosen.append(card)
    return _numbered(chosen)


def find_again(nvml: Any, card: Card) -> Card:
    """Return a card with handles of an NVML that was started anew; with ``fault`` where it is not there."""
    every = [found for whole in all_cards(nvml) for found in (whole, *_slices(nvml, whole))]
    found = next((each for each in every if each.uuid is not None and each.uuid == card.uuid), None)
    if found is None:
        return replace(card, handle=None, mig=None, fault="it is not found any more")
    return replace(found, index=card.index)


def _card(nvml: Any, index: int) -> Card:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid, name = nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle)
        return Card(index, handle, None, uuid, nvml.nvmlDeviceGetPciInfo(handle).busId, name)
    except (nvml.NVMLError, ValueError) as error:  # ValueError: a name that the library cannot read
        return Card(index, None, fault=str(error))


def _slices(nvml: Any, card: Card) -> Iterator[Card]:
    """Yield the MIG slices of a card."""
    try:
        if card.handle is None or nvml.nvmlDeviceGetMigMode(card.handle)[0] != nvml.NVML_DEVICE_MIG_ENABLE:
            return
        count = int(nvml.nvmlDeviceGetMaxMigDeviceCount(card.handle))
    except nvml.NVMLError:
        return  # a card or a driver without MIG
    for number in range(count):
        try:
            mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(card.handle, number)
            yield replace(card, mig=mig, uuid=nvml.nvmlDeviceGetUUID(mig), name=nvml.nvmlDeviceGetName(mig))
        except nvml.NVMLError:
            continue  # numbers without a slice


def _first_slice(nvml: Any, card: Card) -> Card:
    return next(_slices(nvml, card), card)


def _named(nvml: Any, every: Sequence[Card], token: str) -> Card | None:
    """Return the card or slice that one entry of CUDA_VISIBLE_DEVICES names, None where it names none."""
    if token.isdecimal():
        return _first_slice(nvml, every[int(token)]) if int(token) < len(every) else None
    if old := _OLD_MIG.match(token):
        uuid, *numbers = old.groups()
        parents = [card for card in every if card.uuid == uuid]
        slices = [each for card in parents for each in _slices(nvml, card)]
        found = [each for each in slices if _slice_numbers(nvml, each) == [int(number) for number in numbers]]
    elif token.startswith("MIG-"):
        found = _starting([each for card in every for each in _slices(nvml, card)], token)
    elif token.startswith("GPU-"):
        found = [_first_slice(nvml, card) for card in _starting(every, token)]
    else:
        return None
    return found[0] if len(found) == 1 else None


def _starting(cards: Sequence[Card], token: str) -> list[Card]:
    return [card for card in cards if card.uuid is not None and card.uuid.lower().startswith(token.lower())]


def _slice_numbers(nvml: Any, card: Card) -> list[int] | None:
    try:
        return [
            int(nvml.nvmlDeviceGetGpuInstanceId(card.mig)),
            int(nvml.nvmlDeviceGetComputeInstanceId(card.mig)),
        ]
    except nvml.NVMLError:
        return None


def _numbered(cards: Iterator[Card] | Sequence[Card]) -> list[Card]:
    return [replace(card, index=index) for index, card in enumerate(cards)]


def bus_numbers(bus_id: str) -> tuple[int, ...]:
    """Return a bus id as numbers: CUDA writes its domain with four digits, NVML with eight."""
    return tuple(int(part, 16) for part in re.split("[:.]", bus_id))
