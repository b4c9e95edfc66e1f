"""GPU: load, memory, heat, power, clocks, faults, and the workers that compute on it."""

from __future__ import annotations

from scripts.dashboards.panel import Panel, Row, or_none

_CARD = "GPU {{gpu}}"


def _card(name: str, legend: str = _CARD, scale: str = "") -> tuple[str, str]:
    return f"DCGM_FI_DEV_{name}{{@}}{scale}", legend


ROWS = (
    Row(
        "Now",
        (
            Panel(
                "Predictions by",
                "Whether the GPU's are used.",
                (("gpuscalp_engine_gpu_leading{@}", ""),),
                kind="number",
                width=4,
                words=(("0", "CPU", "blue"), ("1", "GPU", "green")),
            ),
            Panel(
                "Cards lost",
                "That do not answer any more.",
                (("sum(gpuscalp_gpu_lost{@})", ""),),
                "none",
                "number",
                4,
                ((None, "green"), (1.0, "red")),
            ),
            Panel(
                "Utilisation",
                "Of the busiest card.",
                (("max(DCGM_FI_DEV_GPU_UTIL{@})", ""),),
                "percent",
                "number",
                4,
                low=0,
                high=100,
            ),
            Panel(
                "Memory used",
                "Of the fullest card.",
                (("max(DCGM_FI_DEV_FB_USED{@} / DCGM_FI_DEV_FB_TOTAL{@})", ""),),
                "percentunit",
                "number",
                4,
                ((None, "green"), (0.9, "orange"), (0.98, "red")),
                low=0,
                high=1,
            ),
            Panel(
                "Temperature",
                "Of the hottest card.",
                (("max(DCGM_FI_DEV_GPU_TEMP{@})", ""),),
                "celsius",
                "number",
                4,
                ((None, "green"), (80.0, "orange"), (90.0, "red")),
            ),
            Panel("Power", "Of all cards.", (("sum(DCGM_FI_DEV_POWER_USAGE{@})", ""),), "watt", "number", 4),
        ),
    ),
    Row(
        "Load",
        (
            Panel(
                "Utilisation",
                "Share of time in which a kernel ran, and in which memory was read or written.",
                (_card("GPU_UTIL", "GPU {{gpu}}"), _card("MEM_COPY_UTIL", "GPU {{gpu}} memory")),
                "percent",
                low=0,
                high=100,
            ),
            Panel(
                "Memory",
                "Used by all, by the session, and the card's.",
                (
                    _card("FB_USED", "GPU {{gpu}} used", " * 1048576"),
                    _card("FB_TOTAL", "GPU {{gpu}} all", " * 1048576"),
                    _card("FB_FREE", "GPU {{gpu}} free", " * 1048576"),
                    ("gpuscalp_gpu_process_memory_bytes{@}", "GPU {{gpu}} session"),
                ),
                "bytes",
                low=0,
            ),
            Panel(
                "PCIe",
                "To the card and from it.",
                (
                    _card("PCIE_RX_THROUGHPUT", "GPU {{gpu}} to", " * 1024"),
                    _card("PCIE_TX_THROUGHPUT", "GPU {{gpu}} from", " * 1024"),
                ),
                "Bps",
                low=0,
            ),
            Panel(
                "PCIe link",
                "Generation and lanes in use, and the highest; a card at rest lowers them.",
                (
                    _card("PCIE_LINK_GEN", "GPU {{gpu}} generation"),
                    _card("PCIE_MAX_LINK_GEN", "GPU {{gpu}} highest generation"),
                    _card("PCIE_LINK_WIDTH", "GPU {{gpu}} lanes"),
                    _card("PCIE_MAX_LINK_WIDTH", "GPU {{gpu}} most lanes"),
                ),
                "none",
                low=0,
            ),
        ),
    ),
    Row(
        "Heat and power",
        (
            Panel(
                "Temperature",
                "And how far it is to slowdown; below 5 nothing new is opened.",
                (_card("GPU_TEMP"), _card("GPU_TEMP_LIMIT", "GPU {{gpu}} left to slowdown")),
                "celsius",
            ),
            Panel(
                "Power",
                "And its limit.",
                (_card("POWER_USAGE"), _card("ENFORCED_POWER_LIMIT", "GPU {{gpu}} limit")),
                "watt",
                low=0,
            ),
            Panel(
                "Clocks",
                "Of the multiprocessors and the memory.",
                (
                    _card("SM_CLOCK", "GPU {{gpu}}", " * 1e6"),
                    _card("MAX_SM_CLOCK", "GPU {{gpu}} highest", " * 1e6"),
                    _card("MEM_CLOCK", "GPU {{gpu}} memory", " * 1e6"),
                    _card("MAX_MEM_CLOCK", "GPU {{gpu}} memory, highest", " * 1e6"),
                ),
                "hertz",
                low=0,
            ),
            Panel(
                "Reasons of the clocks",
                "NVML's bits; 0x8, 0x40 and 0x80 are slowdowns by the hardware.",
                (_card("CLOCKS_EVENT_REASONS"),),
                "hex",
            ),
            Panel(
                "Energy",
                "Drawn over time.",
                (("rate(DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{@}[$__rate_interval]) / 1000", _CARD),),
                "watt",
                low=0,
            ),
        ),
    ),
    Row(
        "Faults",
        (
            Panel(
                "Cards and reasons",
                "1 while a card is failed or doubtful for a reason; none is well.",
                ((or_none("gpuscalp_gpu_reason{@}", "reason"), "GPU {{gpu}} {{verdict}} {{reason}}"),),
                "none",
                low=0,
                high=1,
            ),
            Panel(
                "Errors of the memory",
                "Corrected, and those that could not be; rows that wait to be replaced.",
                (
                    _card("ECC_SBE_VOL_TOTAL", "GPU {{gpu}} corrected"),
                    _card("ECC_DBE_VOL_TOTAL", "GPU {{gpu}} uncorrectable"),
                    _card("ROW_REMAP_PENDING", "GPU {{gpu}} rows pending"),
                    _card("ROW_REMAP_FAILURE", "GPU {{gpu}} rows failed"),
                ),
                "none",
                low=0,
            ),
            Panel("Xid", "The last one; 0 is none.", (_card("XID_ERRORS"),), "none", low=0, width=8),
            Panel(
                "PCIe packets sent again",
                "Since the driver came.",
                (_card("PCIE_REPLAY_COUNTER"),),
                low=0,
                width=8,
            ),
            Panel(
                "Lost",
                "1 while a card does not answer.",
                (("gpuscalp_gpu_lost{@}", _CARD),),
                "none",
                low=0,
                high=1,
                width=8,
            ),
        ),
    ),
    Row(
        "Workers",
        (
            Panel(
                "Workers by state",
                "The processes that predict.",
                ((or_none("sum by (state) (gpuscalp_engine_worker_state{@})", "state"), "{{state}}"),),
                low=0,
                stacked=True,
            ),
            Panel(
                "Faults and replacements",
                "Since the process began.",
                (
                    (or_none("sum by (reason) (gpuscalp_engine_faults_total{@})", "reason"), "{{reason}}"),
                    (or_none("sum(gpuscalp_engine_restarts_total{@})", "gpu"), "replaced"),
                ),
                low=0,
            ),
            Panel(
                "Device and why",
                "Which one predicts.",
                (("gpuscalp_engine_info{@}", "{{device}}: {{why}}"),),
                "none",
                low=0,
                high=1,
            ),
            Panel(
                "Deadline of a prediction",
                "One that comes later is not used.",
                (
                    ("gpuscalp_engine_deadline_seconds{@}", "deadline"),
                    (
                        "histogram_quantile(0.99, sum by (le) (rate("
                        'gpuscalp_stage_duration_seconds_bucket{@, stage="predict"}[$__rate_interval])))',
                        "p99",
                    ),
                ),
                "s",
                low=0,
            ),
        ),
    ),
)
