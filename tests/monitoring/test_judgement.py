"""What is held against a card, at its limits and one step on either side."""

from __future__ import annotations

from typing import Any

import pytest

from gpuscalp.config import GpuHealthConfig
from gpuscalp.monitoring.gpu_judgement import judge_card
from gpuscalp.monitoring.nvml import CardSample

MIB = 1 << 20
CONFIG = GpuHealthConfig(min_free_mib=256, margin_celsius=5)


def _judge(config: GpuHealthConfig = CONFIG, **fields: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = judge_card(CardSample(index=2, at_ns=0, **fields), config)
    return found.failed, found.doubtful


def test_nothing_is_held_against_a_card_that_tells_nothing():
    assert _judge() == ((), ())


@pytest.mark.parametrize(
    ("fields", "failed"),
    [
        ({"lost": "GPU is lost"}, ("lost",)),
        ({"xids": (79,)}, ("xid79",)),
        ({"xids": (13, 63, 31, 94)}, ("xid63", "xid94")),
        ({"xids": (13, 31, 43, 45, 68, 109), "last_xid": 109}, ()),  # of a program, perhaps of another's
        ({"ecc_errors": 1}, ("ecc",)),
        ({"ecc_errors": 0, "ecc_corrected": 9}, ()),
        ({"events": ("double_bit_ecc",)}, ("ecc",)),
        ({"events": ("double_bit_ecc", "unavailable"), "ecc_errors": 2}, ("ecc", "unavailable")),
        ({"remap_failed": True}, ("remap_failed",)),
        ({"remap_failed": False}, ()),
        ({"recovery": "none"}, ()),
        ({"recovery": "gpu_reset"}, ("recovery_gpu_reset",)),
        ({"recovery": "drain_and_reset"}, ("recovery_drain_and_reset",)),
        ({"lost": "x", "xids": (79,)}, ("lost", "xid79")),
    ],
)
def test_card_has_failed(fields, failed):
    assert _judge(**fields) == (failed, ())


@pytest.mark.parametrize(
    ("fields", "doubtful"),
    [
        ({"slowed": ()}, ()),
        ({"slowed": ("power_cap", "sw_thermal")}, ()),
        ({"slowed": ("hw_thermal",)}, ("hw_thermal",)),
        ({"slowed": ("hw_slowdown", "power_brake")}, ("power_brake",)),
        ({"slowed": ("hw_slowdown",)}, ("hw_slowdown",)),
        ({"slowed": ("hw_slowdown", "hw_thermal", "power_brake")}, ("hw_thermal", "power_brake")),
        ({"margin_celsius": 6}, ()),
        ({"margin_celsius": 5}, ("margin",)),
        ({"margin_celsius": -3}, ("margin",)),
        ({"free_bytes": 256 * MIB}, ()),
        ({"free_bytes": 256 * MIB - 1}, ("memory",)),
        ({"link_width": 8, "link_width_max": 16, "gpu_percent": 10}, ("pcie_width",)),
        ({"link_width": 8, "link_width_max": 16, "gpu_percent": 9}, ()),  # it may sleep
        ({"link_width": 8, "link_width_max": 16}, ()),
        ({"link_width": 16, "link_width_max": 16, "gpu_percent": 90}, ()),
        ({"link_width": 8, "gpu_percent": 90}, ()),
        # The generation falls whenever little is sent.
        ({"link_generation": 1, "link_generation_max": 5, "gpu_percent": 90}, ()),
        ({"remap_pending": True}, ("remap_pending",)),
    ],
)
def test_card_is_doubtful(fields, doubtful):
    assert _judge(**fields) == ((), doubtful)


def test_slowdowns_are_ignored_where_that_is_configured_and_nothing_else():
    config = GpuHealthConfig(on_slowdown="ignore")
    slowed = ("hw_slowdown", "hw_thermal", "power_brake")
    assert _judge(config, slowed=slowed, margin_celsius=1, xids=(79,)) == (("xid79",), ("margin",))


def test_codes_name_the_card():
    found = judge_card(CardSample(index=2, at_ns=0, xids=(79,), free_bytes=1), CONFIG)
    assert found.codes == ("gpu2:xid79", "gpu2:memory")
