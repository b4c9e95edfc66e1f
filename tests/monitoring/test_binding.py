"""The real nvidia-ml-py over a library of ours in place of the driver's: arguments, structures, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host_shim.build import compiler

SOURCE = Path(__file__).with_name("nvml_library.cpp")
PROGRAM = """
import msgspec, pynvml
from gpuscalp.monitoring.nvml import read_card
from gpuscalp.monitoring.nvml_cards import find_again, visible_cards
from gpuscalp.monitoring.nvml_events import CardEvents

pynvml.nvmlInit()
(card,) = visible_cards(pynvml, {}, ("0000:3B:00.0",))
card = find_again(pynvml, card)
events = CardEvents(pynvml)
events.listen(card)
sample = read_card(pynvml, card, at_ns=7, pids=(11, 12), events=events)
events.close()
pynvml.nvmlShutdown()
print(msgspec.json.encode(sample).decode())
"""


@pytest.mark.skipif(compiler() is None, reason="there is no g++")
def test_installed_library_is_called_as_it_wants_to_be(tmp_path):
    library = tmp_path / "libnvidia-ml.so.1"
    command = [compiler(), "-shared", "-fPIC", "-O1", "-Wall", "-o", library, SOURCE]
    subprocess.run(command, check=True, timeout=120)
    env = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, check=True, stdout=subprocess.PIPE, text=True, timeout=120
    )
    assert json.loads(done.stdout) == {
        "index": 0,
        "at_ns": 7,
        "uuid": "GPU-1234",
        "bus_id": "00000000:3B:00.0",
        "name": "Card of C",
        "lost": None,
        "driver": "580.95.05",
        "mig": False,
        "gpu_percent": 37,
        "memory_percent": 12,
        "used_bytes": 10,
        "free_bytes": 70,
        "total_bytes": 80,
        "own_bytes": 5,
        "celsius": 55,
        "margin_celsius": -3,
        "power_watts": 310.5,
        "power_limit_watts": None,
        "energy_mj": 1 << 40,
        "sm_mhz": 1_001,
        "sm_mhz_max": 2_001,
        "memory_mhz": 1_002,
        "memory_mhz_max": 2_002,
        "clock_event_mask": 0x49,
        "slowed": ["hw_slowdown", "hw_thermal"],
        "ecc_errors": 4,
        "ecc_corrected": 9,
        "remap_pending": True,
        "remap_failed": False,
        "rx_kb_s": 222,
        "tx_kb_s": 111,
        "link_generation": 4,
        "link_generation_max": 5,
        "link_width": 8,
        "link_width_max": 16,
        "replays": 3,
        "recovery": "drain_and_reset",
        "last_xid": 79,
        "xids": [79],
        "events": [],
    }
