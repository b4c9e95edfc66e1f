"""What a confined process may take, asked of the kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFINED = """
import json, os, resource
from gpuscalp.retrain.caps import confine
caps = confine(1, 400)
try:
    held = bytearray(600 << 20)
    refused = False
except MemoryError:
    refused = True
small = bytearray(100 << 20)
print(json.dumps({
    "cores": sorted(os.sched_getaffinity(0)), "told": list(caps.cores), "idle": caps.idle,
    "policy": os.sched_getscheduler(0), "nice": os.getpriority(os.PRIO_PROCESS, 0), "refused": refused,
    "first_to_go": int(open("/proc/self/oom_score_adj").read()),
}))
"""


def test_processors_memory_and_priority_are_bounded():
    done = subprocess.run([sys.executable, "-c", CONFINED], capture_output=True, timeout=300, check=True)
    found = json.loads(done.stdout)
    assert found["refused"]
    assert found["cores"] == found["told"] == sorted(os.sched_getaffinity(0))[-1:]
    assert found["nice"] == 19
    assert (found["policy"] == os.SCHED_IDLE) == found["idle"]
    assert found["first_to_go"] in (1_000, int(Path("/proc/self/oom_score_adj").read_text()))


def test_a_process_that_leads_a_session_makes_it_nice():
    """Where sessions share processors out first, what is idle in one takes half of them from another."""
    code = "from gpuscalp.retrain.caps import confine; confine(1, 400)"
    said = "; print(open('/proc/self/autogroup').read())"
    if not Path("/proc/self/autogroup").exists():
        pytest.skip("this kernel has no groups of sessions")
    ours = Path("/proc/self/autogroup").read_text()
    for leads in (True, False):
        command = [sys.executable, "-c", code + said]
        done = subprocess.run(
            command, capture_output=True, timeout=300, check=True, text=True, start_new_session=leads
        )
        assert done.stdout.split()[-2:] == (["nice", "19"] if leads else ours.split()[-2:])


def test_an_attended_process_ends_with_its_input():
    code = "import time; from gpuscalp.retrain.caps import end_with_input; end_with_input(); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=120) == 1
