"""The kernels load nothing from outside their arrays and do nothing that C++ leaves undefined.

The comparisons of ``test_cuda_*.py``, once more under the sanitizers of addresses and undefined behaviour: a
load past an end mostly changes no result, so that only they see it.
"""

from __future__ import annotations

from tests.host_shim.sanitized import run_sanitized, sanitizer_missing
from tests.host_shim.tools import skip_without

CODE = """
import numpy as np
from gpuscalp.ops import cuda_ladder
from tests.host_shim.cuda_on_host import cuda_on_host
from tests.host_shim.ladder_threads import ladder_threads
from tests.ops.test_cuda_context import check_context, check_transpose
from tests.ops.test_cuda_forest import DEPTHS, check
from tests.ops.test_cuda_frames import check_fold
from tests.ops.test_cuda_ladder import check_batch, check_step, program_of, unused_families
from tests.ops.test_cuda_row_digest import check_digest

rng = np.random.default_rng(1)
cuda_ladder.STEP_THREADS = 32
with cuda_on_host(sanitize=True, seed=1), ladder_threads(8):
    check_fold(rng, 3, 40, 3.0)
    check_fold(rng, 3, 1, 40.0)
    check_context(rng, 3, 40)
    check_context(rng, 3, 1)
    check_transpose(rng, 33, 7)
    check_digest(rng, 9, 131, 2)
    for rows in (1, 33):
        check(rng, DEPTHS["every depth"], rows)
    for program in (program_of(), unused_families()):
        check_step(rng, program, 3, 12)
        check_batch(rng, program, 70, tile=64, cuts=[(0, 70)])
print("fine")
"""


def test_kernels_stay_inside_their_arrays() -> None:
    reason = sanitizer_missing()
    if reason is not None:
        skip_without(reason)
    done = run_sanitized(CODE, timeout_s=280)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr[-4000:]
