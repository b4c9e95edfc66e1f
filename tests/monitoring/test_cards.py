"""CUDA's numbers to NVML's cards: the first is a list of rules that CUDA documents, the second the bus."""

from __future__ import annotations

import pytest

from gpuscalp.monitoring.nvml_cards import find_again, visible_cards
from tests.fake_nvml import FakeCard, FakeNvml, FakeSlice

A, B, C = "GPU-aaaa1111-0000", "GPU-aaaa2222-0000", "GPU-cccc3333-0000"


def _machine(**slices: list[FakeSlice | None]) -> FakeNvml:
    nvml = FakeNvml(
        FakeCard(A, "00000000:17:00.0", slices=slices.get("a", [])),
        FakeCard(B, "00000000:3B:00.0", slices=slices.get("b", [])),
        FakeCard(C, "00000001:17:00.0", slices=slices.get("c", [])),
    )
    nvml.nvmlInit()
    return nvml


def _visible(nvml: FakeNvml, told: str | None, bus_ids: tuple[str, ...] = ()) -> list[str | None]:
    found = visible_cards(nvml, {} if told is None else {"CUDA_VISIBLE_DEVICES": told}, bus_ids)
    assert [card.index for card in found] == list(range(len(found))), "counted as CUDA does"
    return [card.uuid for card in found]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, [A, B, C]),
        ("", []),
        ("NoDevFiles", []),
        ("0", [A]),
        ("2,0", [C, A]),
        (" 1 , 2 ", [B, C]),
        ("0,2,-1,1", [A, C]),  # what comes after an invalid one is not seen
        ("7,0", []),
        ("0,0", []),  # a double makes all invalid
        (C, [C]),
        (f"{B},{A}", [B, A]),
        ("GPU-cccc", [C]),
        ("GPU-aaaa", []),  # of two cards
        ("GPU-aaaa1,2", [A, C]),
        (C.upper().replace("GPU", "GPU"), [C]),
        (f"0,{A}", []),
        ("cccc3333", []),
        ("MIG-none", []),
    ],
)
def test_environment_is_read_as_cuda_documents(told, expected):
    assert _visible(_machine(), told) == expected


def test_what_cuda_says_itself_overrules_numbers_which_count_the_fastest_first():
    # A small card for the screen sits first on the bus: number 0 was its health, and not that of the big one.
    bus_ids = ("0000:3B:00.0", "0001:17:00.0", "0000:17:00.0")
    assert _visible(_machine(), None, bus_ids) == [B, C, A]
    assert _visible(_machine(), "2", ("0001:17:00.0",)) == [C]
    # A bus id that NVML does not know is no reason to watch fewer cards than there are.
    assert _visible(_machine(), "1", ("0000:99:00.0",)) == [B]


def test_cards_that_do_not_answer_are_watched_under_the_numbers_that_cuda_gives_them():
    nvml = _machine()
    nvml.cards[0].gone = nvml.cards[1].gone = 15
    bus_ids = ("0000:3B:00.0", "0001:17:00.0", "0000:17:00.0")
    assert _visible(nvml, None, bus_ids) == [None, C, None]
    assert _visible(nvml, "0,1,2") == [None, None, C], "two without a name are not one card named twice"
    nvml.cards[1].gone = None
    assert _visible(nvml, None, bus_ids) == [B, C, None]


def test_slices_are_found_by_uuid_by_the_old_form_and_as_the_first_of_their_card():
    one, two = (
        FakeSlice("MIG-1111-x", gpu_instance=3),
        FakeSlice("MIG-2222-x", gpu_instance=4, compute_instance=1),
    )
    nvml = _machine(b=[None, one, two, None])
    assert _visible(nvml, None) == [A, "MIG-1111-x", C]
    assert _visible(nvml, "1") == ["MIG-1111-x"]
    assert _visible(nvml, B) == ["MIG-1111-x"]
    assert _visible(nvml, "MIG-2222-x") == ["MIG-2222-x"]
    assert _visible(nvml, "MIG-2") == ["MIG-2222-x"]
    assert _visible(nvml, "MIG-") == []
    assert _visible(nvml, f"MIG-{B}/4/1") == ["MIG-2222-x"]
    assert _visible(nvml, f"MIG-{B}/4/0") == []
    assert _visible(nvml, f"MIG-{C}/4/1") == []
    # CUDA's bus id is that of the whole card.
    assert _visible(nvml, "MIG-2222-x", ("0000:3B:00.0",)) == ["MIG-2222-x"]
    assert _visible(nvml, None, ("0000:3B:00.0",)) == ["MIG-1111-x"]


def test_card_that_knows_nothing_of_mig_is_a_whole_one():
    nvml = FakeNvml(FakeCard(A, refused={"nvmlDeviceGetMigMode": 3}))
    nvml.nvmlInit()
    assert _visible(nvml, None) == [A]


def test_card_is_found_again_after_another_start_also_as_another_number_of_the_bus():
    nvml = _machine(b=[part := FakeSlice("MIG-1", gpu_instance=2)])
    mig, last = visible_cards(nvml, {"CUDA_VISIBLE_DEVICES": "1,2"})
    nvml.reload()
    nvml.nvmlInit()
    del nvml.cards[0]
    again = find_again(nvml, last)
    assert (again.index, again.uuid) == (1, C)
    assert nvml.nvmlDeviceGetUUID(again.handle) == C
    assert nvml.nvmlDeviceGetUUID(find_again(nvml, mig).mig) == part.uuid
    del nvml.cards[1]
    gone = find_again(nvml, last)
    assert (gone.index, gone.uuid, gone.handle) == (1, C, None)
    assert gone.fault == "it is not found any more"
