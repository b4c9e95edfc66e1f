"""The kernels load nothing from outside their arrays and do nothing that C++ leaves undefined.

The comparisons of ``test_cuda_*.py``, once more under the sanitizers of addresses and undefined behaviour: a
load past an end mostly changes no result, so that only they see it.
"""

from __future__ import annotations

from tests.host_shim.sanitized import run_sanitized, sanitizer_missing
from tests.host_shim.tools import skip_without

CODE = """
from tests.ops.every_kernel import check_every_kernel

check_every_kernel("memory")
print("fine")
"""


def test_kernels_stay_inside_their_arrays() -> None:
    reason = sanitizer_missing()
    if reason is not None:
        skip_without(reason)
    done = run_sanitized(CODE, timeout_s=280)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr[-4000:]
