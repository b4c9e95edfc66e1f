"""Metrics of GPUs and of the engine that runs on them, in Prometheus' format.

Owns: names, units and labels (gpuscalp.monitoring.server hands them out). Collectors read plain snapshots
when somebody asks; nothing is counted on the way from a message to an order. A value that is not known is
absent, never 0.

GPUs bear the names of NVIDIA's dcgm-exporter, so that its dashboards show them. Two differences in kind: its
PCIe throughputs are called counters there and are gauges; its counters are of an unknown kind here, because
the name of a counter has to end in ``_total``. Source: NVIDIA/dcgm-exporter, etc/default-counters.csv; "DCGM
API Reference", field identifiers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, final

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    UnknownMetricFamily,
)
from prometheus_client.registry import Collector

from gpuscalp.monitoring.gpu_judgement import CardVerdict
from gpuscalp.monitoring.nvml import CardSample

_MIB: Final = 1 << 20
_CARD: Final = ("gpu", "UUID", "modelName", "pci_bus_id")


class _Family(NamedTuple):
    """One metric of a card, and the field of ``CardSample`` that it is."""

    name: str
    field: str
    what: str
    unit: float = 1.0  # of the metric, in units of the field
    counts: bool = False


# fmt: off
_FAMILIES: Final = (
    _Family("DCGM_FI_DEV_GPU_UTIL", "gpu_percent", "GPU utilization, %."),
    _Family("DCGM_FI_DEV_MEM_COPY_UTIL", "memory_percent", "Memory utilization, %."),
    _Family("DCGM_FI_DEV_FB_USED", "used_bytes", "Memory used, MiB.", _MIB),
    _Family("DCGM_FI_DEV_FB_FREE", "free_bytes", "Memory free, MiB.", _MIB),
    _Family("DCGM_FI_DEV_FB_TOTAL", "total_bytes", "Memory, MiB.", _MIB),
    _Family("DCGM_FI_DEV_GPU_TEMP", "celsius", "Temperature, C."),
    _Family("DCGM_FI_DEV_GPU_TEMP_LIMIT", "margin_celsius", "Distance to the temperature of slowdown, C."),
    _Family("DCGM_FI_DEV_POWER_USAGE", "power_watts", "Power draw, W."),
    _Family("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "power_limit_watts", "Power limit in force, W."),
    _Family("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "energy_mj", "Since the driver came, mJ.", counts=True),
    _Family("DCGM_FI_DEV_SM_CLOCK", "sm_mhz", "Clock of the multiprocessors, MHz."),
    _Family("DCGM_FI_DEV_MAX_SM_CLOCK", "sm_mhz_max", "Highest clock of the multiprocessors, MHz."),
    _Family("DCGM_FI_DEV_MEM_CLOCK", "memory_mhz", "Clock of the memory, MHz."),
    _Family("DCGM_FI_DEV_MAX_MEM_CLOCK", "memory_mhz_max", "Highest clock of the memory, MHz."),
    _Family("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "clock_event_mask", "Reasons of the clocks, NVML's bits."),
    _Family("DCGM_FI_DEV_XID_ERRORS", "last_xid", "Last Xid since the session's start, 0 = none."),
    _Family("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "ecc_corrected", "Corrected errors of memory.", counts=True),
    _Family("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "ecc_errors", "Uncorrectable errors of memory.", counts=True),
    _Family("DCGM_FI_DEV_ROW_REMAP_PENDING", "remap_pending", "Memory rows wait to be replaced."),
    _Family("DCGM_FI_DEV_ROW_REMAP_FAILURE", "remap_failed", "Memory rows could not be replaced."),
    _Family("DCGM_FI_DEV_PCIE_RX_THROUGHPUT", "rx_kb_s", "To the card over PCIe, KB/s."),
    _Family("DCGM_FI_DEV_PCIE_TX_THROUGHPUT", "tx_kb_s", "From the card over PCIe, KB/s."),
    _Family("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "replays", "PCIe packets sent again.", counts=True),
    _Family("DCGM_FI_DEV_PCIE_LINK_GEN", "link_generation", "PCIe generation."),
    _Family("DCGM_FI_DEV_PCIE_MAX_LINK_GEN", "link_generation_max", "Highest PCIe generation."),
    _Family("DCGM_FI_DEV_PCIE_LINK_WIDTH", "link_width", "PCIe lanes."),
    _Family("DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH", "link_width_max", "Highest number of PCIe lanes."),
    _Family("gpuscalp_gpu_process_memory_bytes", "own_bytes", "Memory of the session's own processes."),
)
# fmt: on


@final
class GpuCollector(Collector):
    """The cards of a session.

    Parameters
    ----------
    judged : returns the newest sample and verdict of each card
    """

    def __init__(self, judged: Callable[[], Sequence[tuple[CardSample, CardVerdict]]]) -> None:
        self._judged = judged

    def collect(self) -> Iterable[Metric]:
        judged = [(_labels(sample), sample, verdict) for sample, verdict in self._judged()]
        for name, field, what, unit, counts in _FAMILIES:
            kind = UnknownMetricFamily if counts else GaugeMetricFamily
            metric = kind(name, what, labels=_CARD)
            for labels, sample, _ in judged:
                value = getattr(sample, field)
                if value is not None:
                    metric.add_metric(labels, value / unit)
            if metric.samples:
                yield metric
        lost = GaugeMetricFamily("gpuscalp_gpu_lost", "The card does not answer any more.", labels=_CARD)
        for labels, sample, _ in judged:
            lost.add_metric(labels, sample.lost is not None)
        yield lost
        reasons = GaugeMetricFamily(
            "gpuscalp_gpu_reason",
            "1 while a card is failed or doubtful for a reason.",
            labels=(*_CARD, "verdict", "reason"),
        )
        for labels, _, verdict in judged:
            for kind_of, words in (("failed", verdict.failed), ("doubtful", verdict.doubtful)):
                for word in words:
                    reasons.add_metric([*labels, kind_of, word], 1)
        yield reasons


@final
class DeviceCollector(Collector):
    """Which device predicts, and what has gone wrong with it.

    Parameters
    ----------
    status : returns a session's status, of which the section ``engine`` is read (docs/live.md)
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        engine = self._status().get("engine")
        if engine is None:
            return
        info = InfoMetricFamily("gpuscalp_engine", "The device that predicts, and why this one.")
        info.add_metric([], {"device": str(engine["device"]), "why": str(engine["why"])})
        yield info
        yield GaugeMetricFamily(
            "gpuscalp_engine_gpu_leading", "Predictions are the GPU's.", value=float(bool(engine["leading"]))
        )
        yield CounterMetricFamily(
            "gpuscalp_engine_lost_frames",
            "Frames without a prediction after a fault.",
            value=engine["lost_frames"],
        )
        yield CounterMetricFamily(
            "gpuscalp_engine_late_predictions",
            "Predictions that came after their deadline and went no further.",
            value=engine["late_predictions"],
        )
        yield GaugeMetricFamily(
            "gpuscalp_engine_deadline_seconds", "Of a prediction.", value=engine["deadline_ms"] / 1_000
        )
        yield from _of_workers(engine["workers"], engine["past_workers"])


def _of_workers(
    workers: Sequence[Mapping[str, Any]], past_workers: Sequence[Mapping[str, Any]]
) -> Iterator[Metric]:
    # Counted first: workers that run on no GPU share their labels, and a series must not be told twice.
    faults, restarts, states = Counter[tuple[str, str]](), Counter[str](), Counter[tuple[str, str]]()
    for worker in (*past_workers, *workers):
        for reason, count in worker["faults"].items():
            faults[str(reason), _gpu(worker)] += count
        restarts[_gpu(worker)] += worker["restarts"]
    for worker in workers:
        states[_gpu(worker), str(worker["state"])] += 1
    fault = CounterMetricFamily("gpuscalp_engine_faults", "Faults by reason.", labels=("reason", "gpu"))
    restart = CounterMetricFamily("gpuscalp_engine_restarts", "Workers that were replaced.", labels=("gpu",))
    state = GaugeMetricFamily("gpuscalp_engine_worker_state", "Workers in a state.", labels=("gpu", "state"))
    for labels, value in faults.items():
        fault.add_metric(labels, value)
    for gpu, value in restarts.items():
        restart.add_metric([gpu], value)
    for labels, value in states.items():
        state.add_metric(labels, value)
    yield from (fault, restart, state)


def _gpu(worker: Mapping[str, Any]) -> str:
    return "" if worker["gpu"] is None else str(worker["gpu"])


def _labels(sample: CardSample) -> list[str]:
    return [str(sample.index), sample.uuid or "", sample.name or "", sample.bus_id or ""]
