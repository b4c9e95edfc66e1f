"""One card, asked everything, on a stand-in for NVML."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import msgspec
import pytest

import gpuscalp.monitoring
from gpuscalp.monitoring.nvml import CardSample, import_nvml, read_card, survey
from gpuscalp.monitoring.nvml_cards import all_cards
from gpuscalp.monitoring.nvml_events import CardEvents
from tests.fake_nvml import GIB, MIB, SAMPLE, FakeCard, FakeNvml, FakeSlice

PACKAGE = Path(gpuscalp.monitoring.__file__).parent
# What answers a question about one field: all but the field's own refusal stays as it is.
QUESTIONS = {
    "nvmlDeviceGetMemoryInfo": {"used_bytes", "free_bytes", "total_bytes"},
    "nvmlDeviceGetUtilizationRates": {"gpu_percent", "memory_percent"},
    "nvmlDeviceGetComputeRunningProcesses": {"own_bytes"},
    "nvmlDeviceGetTemperature": {"celsius"},
    "nvmlDeviceGetMarginTemperature": {"margin_celsius"},
    "nvmlDeviceGetPowerUsage": {"power_watts"},
    "nvmlDeviceGetEnforcedPowerLimit": {"power_limit_watts"},
    "nvmlDeviceGetTotalEnergyConsumption": {"energy_mj"},
    "nvmlDeviceGetClockInfo": {"sm_mhz", "memory_mhz"},
    "nvmlDeviceGetMaxClockInfo": {"sm_mhz_max", "memory_mhz_max"},
    "nvmlDeviceGetCurrentClocksEventReasons": {"clock_event_mask", "slowed"},
    "nvmlDeviceGetTotalEccErrors": {"ecc_errors", "ecc_corrected"},
    "nvmlDeviceGetRemappedRows": {"remap_pending", "remap_failed"},
    "nvmlDeviceGetPcieThroughput": {"rx_kb_s", "tx_kb_s"},
    "nvmlDeviceGetCurrPcieLinkGeneration": {"link_generation"},
    "nvmlDeviceGetMaxPcieLinkGeneration": {"link_generation_max"},
    "nvmlDeviceGetCurrPcieLinkWidth": {"link_width"},
    "nvmlDeviceGetMaxPcieLinkWidth": {"link_width_max"},
    "nvmlDeviceGetPcieReplayCounter": {"replays"},
    "nvmlDeviceGetFieldValues": {"recovery"},
    "nvmlDeviceGetMigMode": {"mig"},
    "nvmlSystemGetDriverVersion": {"driver"},
}


def _read(nvml: FakeNvml, *, pids: tuple[int, ...] = (), listen: bool = False) -> CardSample:
    nvml.nvmlInit()
    (card,) = all_cards(nvml)
    events = CardEvents(nvml) if listen else None
    if events is not None:
        events.listen(card)
    return read_card(nvml, card, at_ns=7, pids=pids, events=events)


def test_every_field_is_read_in_its_unit():
    card = FakeCard(
        processes={11: 3 * MIB, 12: 5 * MIB, 13: None}, reasons=0x1 | 0x8 | 0x40, rows=(0, 1, 1, 0)
    )
    assert _read(FakeNvml(card), pids=(11, 13), listen=True) == SAMPLE


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_that_is_not_answered_leaves_its_field_unknown_and_no_other(question):
    nvml = FakeNvml(FakeCard(processes={11: MIB}, refused={question: 3}))
    found, well = _read(nvml, pids=(11,)), _read(FakeNvml(FakeCard(processes={11: MIB})), pids=(11,))
    told, known = msgspec.to_builtins(found), msgspec.to_builtins(well)
    assert {name for name in known if told[name] != known[name]} == QUESTIONS[question]
    assert {told[name] for name in QUESTIONS[question]} == {None}


@pytest.mark.parametrize("code", [1, 9, 15, 16])
@pytest.mark.parametrize(
    "question", ["nvmlDeviceGetTemperature", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetFieldValues"]
)
def test_card_that_is_gone_is_lost_whatever_it_was_asked(question, code):
    found = _read(FakeNvml(FakeCard(refused={question: code})))
    assert found.lost
    assert (found.uuid, found.name) == ("GPU-11111111-aaaa", "NVIDIA Card"), "which one, is still known"
    assert found.free_bytes is found.celsius is found.driver is None


def test_unknown_error_means_lost_only_where_every_card_has_an_answer():
    assert _read(FakeNvml(FakeCard(refused={"nvmlDeviceGetMemoryInfo": 999}))).lost == "Unknown Error"
    found = _read(FakeNvml(FakeCard(refused={"nvmlDeviceGetPowerUsage": 999})))
    assert (found.lost, found.power_watts, found.celsius) == (None, None, 55)
    # A card that shares the machine's memory has none to tell of.
    assert _read(FakeNvml(FakeCard(refused={"nvmlDeviceGetMemoryInfo": 3}))).lost is None


def test_card_without_a_handle_is_lost_and_the_others_are_not():
    found = survey(FakeNvml(FakeCard(), FakeCard(uuid="GPU-2", gone=15)))
    assert not isinstance(found, str)
    assert [sample.lost for sample in found] == [None, "GPU is lost"]


@pytest.mark.parametrize(
    ("action", "returned", "told"),
    [
        (0, 0, "none"),
        (1, 0, "gpu_reset"),
        (4, 0, "drain_and_reset"),
        (7, 0, "system_reboot"),
        (9, 0, "action_9"),
        (1, 3, None),
    ],
)
def test_recovery_action_is_told_in_words(action, returned, told):
    assert _read(FakeNvml(FakeCard(recovery=action, recovery_return=returned))).recovery == told


def test_slice_has_memory_and_processes_of_its_own_and_no_utilisation():
    part = FakeSlice("MIG-1", free=4 * GIB, processes={11: GIB})
    nvml = FakeNvml(FakeCard(slices=[part], processes={11: 7 * GIB}))
    nvml.nvmlInit()
    (whole,) = all_cards(nvml)
    handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole.handle, 0)
    card = type(whole)(0, whole.handle, handle, "MIG-1", whole.bus_id, whole.name)
    found = read_card(nvml, card, at_ns=0, pids=(11,))
    assert (found.mig, found.gpu_percent, found.memory_percent) == (True, None, None)
    assert (found.free_bytes, found.used_bytes, found.total_bytes, found.own_bytes) == (
        4 * GIB,
        6 * GIB,
        10 * GIB,
        GIB,
    )
    assert (found.celsius, found.ecc_errors) == (55, 0), "the card's own"


def test_processes_that_are_not_shown_are_not_zero():
    assert _read(FakeNvml(FakeCard(processes={99: MIB})), pids=(11,)).own_bytes is None


def test_events_are_kept_and_the_last_xid_is_told_like_dcgm_does():
    nvml = FakeNvml(card := FakeCard())
    nvml.nvmlInit()
    (found,) = all_cards(nvml)
    events = CardEvents(nvml)
    events.listen(found)
    assert (events.last_xid, events.xids, events.words) == (0, (), ())
    for xid in (13, 79, 13):
        nvml.happen(card, nvml.nvmlEventTypeXidCriticalError, xid)
    nvml.happen(card, nvml.nvmlEventTypeDoubleBitEccError)
    nvml.happen(card, nvml.nvmlEventTypeGpuUnavailableError)
    events.drain()
    events.drain()
    assert (events.last_xid, events.xids) == (13, (13, 79))
    assert events.words == ("double_bit_ecc", "unavailable")
    events.close()
    assert not nvml.sets


def test_events_of_another_slice_are_not_ours():
    part = FakeSlice("MIG-1", gpu_instance=2)
    nvml = FakeNvml(card := FakeCard(slices=[part]))
    nvml.nvmlInit()
    (whole,) = all_cards(nvml)
    mine = type(whole)(0, whole.handle, nvml.nvmlDeviceGetMigDeviceHandleByIndex(whole.handle, 0))
    events = CardEvents(nvml)
    events.listen(mine)
    nvml.happen(card, 0x8, 63, instance=1)
    events.drain()
    assert events.xids == ()
    nvml.happen(card, 0x8, 94, instance=2)
    nvml.happen(card, 0x8, 79)  # of the whole card
    events.drain()
    assert events.xids == (94, 79)


@pytest.mark.parametrize(
    "nvml",
    [
        FakeNvml(FakeCard(supported_events=0)),
        FakeNvml(FakeCard(supported_events=0x2)),
        FakeNvml(FakeCard(refused={"nvmlDeviceRegisterEvents": 3})),
    ],
)
def test_xid_is_unknown_and_not_zero_where_events_are_not_supported(nvml):
    assert _read(nvml, listen=True).last_xid is None


def _names_used() -> set[str]:
    found = {
        node.attr
        for path in PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    return {name for name in found if name.startswith(("nvml", "NVML"))} - {"nvml", "nvmlReturn"}


def test_names_of_nvml_that_are_used_exist_in_the_installed_library():
    nvml: Any = import_nvml()
    used = _names_used()
    assert len(used) > 40, "the search finds them"
    assert not {name for name in used if not hasattr(nvml, name)}


def test_fields_of_answers_that_are_read_exist_in_the_installed_library():
    nvml: Any = import_nvml()
    read = {
        "c_nvmlFieldValue_t": {"nvmlReturn", "value"},
        "c_nvmlValue_t": {"uiVal"},
        "c_nvmlEventData_t": {"eventType", "eventData", "gpuInstanceId"},
        "c_nvmlMemory_t": {"free", "used", "total"},
        "c_nvmlUtilization_t": {"gpu", "memory"},
        "c_nvmlProcessInfo_v3_t": {"pid", "usedGpuMemory"},
        "nvmlPciInfo_t": {"busId"},
    }
    for name, fields in read.items():
        assert fields <= {field for field, *_ in getattr(nvml, name)._fields_}, name
    assert nvml.NVMLError(nvml.NVML_ERROR_GPU_IS_LOST).value == nvml.NVML_ERROR_GPU_IS_LOST


def test_stand_in_has_every_name_that_is_used_and_only_names_of_the_library():
    assert not {name for name in _names_used() if not hasattr(FakeNvml(), name)}
    nvml: Any = import_nvml()
    names = [name for name in dir(FakeNvml) if name.lower().startswith("nvml")]
    assert not [name for name in names if not hasattr(nvml, name)]
    constants = [name for name in names if isinstance(getattr(FakeNvml, name), int)]
    assert {name: getattr(FakeNvml, name) for name in constants} == {
        name: getattr(nvml, name) for name in constants
    }


def test_what_the_driver_says_at_the_end_or_cannot_spell_costs_nothing_that_was_read():
    """A driver that was loaded anew refused the end, and a name that is no text was a traceback."""

    class Reloaded(FakeNvml):
        def nvmlShutdown(self) -> None:  # noqa: N802
            raise self.NVMLError(1)

        def nvmlDeviceGetUUID(self, handle: Any) -> str:  # noqa: N802
            if handle.what is self.cards[1]:
                raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
            return super().nvmlDeviceGetUUID(handle)

        def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    found = survey(Reloaded(FakeCard(), FakeCard(uuid="GPU-2")))
    assert [(card.driver, card.celsius, bool(card.lost)) for card in found] == [
        (None, 55, False),
        (None, None, True),
    ]


def test_installed_library_without_a_driver_says_so():
    nvml: Any = import_nvml()
    found = survey(nvml)
    assert isinstance(found, list) or found.startswith("NVML does not start: ")
