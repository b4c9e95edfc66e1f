"""What a confined process may take, asked of the kernel."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gpuscalp.config import RetrainingConfig
from gpuscalp.errors import DataError, GpuscalpError
from gpuscalp.live.retrainer import Retrainer
from gpuscalp.retrain.caps import Caps, fitting

CAPS = Caps((0,), 400, False)
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


XGBOOST = """
import resource, sys
import numpy as np
from gpuscalp.retrain.caps import Caps, fitting
from gpuscalp.xgb import import_xgboost
xgboost = import_xgboost()
x = np.zeros((400_000, 60), np.float32)
matrix = xgboost.DMatrix(x[:9], x[:9, 0], nthread=1)  # what it needs at its first use
held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, ((held << 10) + (20 << 20),) * 2)
try:
    with fitting(Caps((0,), 400, False)):
        xgboost.DMatrix(x, x[:, 0], nthread=1)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_what_xgboost_gets_no_memory_for_is_told_as_what_it_is():
    done = subprocess.run([sys.executable, "-c", XGBOOST], capture_output=True, timeout=300, check=True)
    assert done.stdout.startswith(b"GpuscalpError the training does not fit into the memory"), done.stdout
    assert b"400 MiB" in done.stdout


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), GpuscalpError),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), GpuscalpError),
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
        (ValueError("std::bad_alloc"), ValueError),
        (DataError("too short"), DataError),
    ],
    ids=lambda it: repr(it) if isinstance(it, Exception) else "",
)
def test_only_the_end_of_memory_is_called_so(error, told):
    with pytest.raises(type(error) if told is not GpuscalpError else told) as caught, fitting(CAPS):
        raise error
    assert type(caught.value) is told


def test_retraining_that_does_not_fit_says_so_to_people_and_to_its_session(cli, tmp_path, monkeypatch):
    """It was called a defect, with a traceback, under the command's own limit."""
    monkeypatch.setattr("gpuscalp.retrain.caps.confine", lambda cores, memory_mb: CAPS)
    monkeypatch.setattr("gpuscalp.live.directory.lead_of", lambda session: session)
    monkeypatch.setattr("gpuscalp.retrain.run.retrain", lambda session, **_: bytearray(1 << 62))
    found = cli("retrain", tmp_path, "--memory-mb", "400", "--json")
    told = json.loads(found.stdout)
    assert (found.code, told["error"]["value"], found.stderr) == (1, "400 MiB", "")
    assert "--memory-mb" in told["error"]["where"]
    retrainer = Retrainer(tmp_path, RetrainingConfig(), begun_ns=0)
    assert (
        retrainer._why(found.code, told)
        == "the training does not fit into the memory that it may use: 400 MiB (--memory-mb)"
    )


BLAS = """
import resource, sys
import numpy as np
from scipy.optimize import minimize
from gpuscalp.retrain.caps import Caps, take_blas_buffers

def leave(mib):
    held = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, ((held << 10) + (mib << 20), resource.RLIM_INFINITY))

caps = Caps((0,), 400, False)
leave(4)
try:
    take_blas_buffers(caps)
except MemoryError:
    print("no room")
leave(400)
take_blas_buffers(caps)
leave(4)
done = minimize(lambda x: (float(x @ x), 2 * x), np.ones(6), jac=True, method="L-BFGS-B")
print(done.success)
"""


def test_blas_has_its_buffers_before_memory_is_short():
    """It asked for them for ever: a retraining that did not fit ran until it was ended, hours later."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BLAS]
    done = subprocess.run(command, capture_output=True, timeout=100, check=True, text=True, env=environment)
    assert done.stdout.split("\n") == ["no room", "True", ""]


@pytest.mark.timeout(900)  # it gets what others leave of one core
def test_an_attended_process_ends_with_its_input(tmp_path):
    command = [sys.executable, "-m", "gpuscalp", "retrain", str(tmp_path / "nothing"), "--cores", "1"]
    alone = subprocess.run(command, input=b"", capture_output=True, timeout=400, check=False)
    assert (alone.returncode, b"no session here" in alone.stderr) == (2, True)
    done = subprocess.run([*command, "--attended"], input=b"", capture_output=True, timeout=400, check=False)
    # It had closed before, or closes while the kernel watches it: nobody is left who would read a word.
    assert done.returncode in (0, -signal.SIGIO)
    assert done.stdout + done.stderr == b""
