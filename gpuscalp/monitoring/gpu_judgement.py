"""Whether a card may be used, by what it says of itself.

Owns: the words for what is wrong with a card, and what each follows from. Pure.

``failed``: nothing that it computes may be used any more. ``doubtful``: what it computes is right, but it may
not be in time, or may fail soon: nothing new is opened upon its word. What is not known is not held against a
card: most cards do not tell everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gpuscalp.config import GpuHealthConfig
from gpuscalp.monitoring.nvml import CardSample

# Errors of a program, of ours or of another on the same card: the card is well. If it was ours, its context
# is dead, and whoever runs the program knows. Source: what NVIDIA/k8s-device-plugin leaves out of its health.
PROGRAM_XIDS: Final = frozenset({13, 31, 43, 45, 68, 109})
# Below it a link may be narrow because nothing is sent.
_LOADED_PERCENT: Final = 10
# Reasons of a slowdown that come from the hardware; heat that software regulates and a power cap cost time
# that the deadline of predictions already watches.
_HARDWARE: Final = ("hw_thermal", "power_brake")


@dataclass(frozen=True, slots=True)
class CardVerdict:
    """What is wrong with one card, in words of a fixed vocabulary (docs/gpu.md).

    Attributes
    ----------
    index : as in ``CardSample``
    failed : it must not be used any more
    doubtful : nothing new upon its word
    """

    index: int
    failed: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        """All of it, each with the card: ``gpu0:xid79``."""
        return tuple(f"gpu{self.index}:{word}" for word in (*self.failed, *self.doubtful))


def judge_card(sample: CardSample, config: GpuHealthConfig) -> CardVerdict:
    """Return what is wrong with a card."""
    return CardVerdict(sample.index, tuple(_failures(sample)), tuple(_doubts(sample, config)))


def _failures(sample: CardSample) -> list[str]:
    found = [f"xid{xid}" for xid in sample.xids if xid not in PROGRAM_XIDS]
    if sample.lost is not None:
        found.insert(0, "lost")
    if sample.ecc_errors or "double_bit_ecc" in sample.events:
        found.append("ecc")
    if "unavailable" in sample.events:
        found.append("unavailable")
    if sample.remap_failed:
        found.append("remap_failed")
    if sample.recovery not in (None, "none"):
        found.append(f"recovery_{sample.recovery}")
    return found


def _doubts(sample: CardSample, config: GpuHealthConfig) -> list[str]:
    found: list[str] = []
    if config.on_slowdown == "refuse" and sample.slowed is not None:
        found += [word for word in _HARDWARE if word in sample.slowed]
        if not found and "hw_slowdown" in sample.slowed:  # NVML sets it beside the other two as well
            found.append("hw_slowdown")
    if sample.margin_celsius is not None and sample.margin_celsius <= config.margin_celsius:
        found.append("margin")
    if sample.free_bytes is not None and sample.free_bytes < config.min_free_mib << 20:
        found.append("memory")
    if sample.link_width is not None and sample.link_width_max is not None:
        loaded = sample.gpu_percent is not None and sample.gpu_percent >= _LOADED_PERCENT
        if loaded and sample.link_width < sample.link_width_max:
            found.append("pcie_width")
    if sample.remap_pending:
        found.append("remap_pending")
    return found
