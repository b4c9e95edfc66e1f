"""The one door to XGBoost: importing it takes seconds, and its threads must not spin.

OpenMP's waiting threads burn a core by default. Where the cores are shared with anything else, a thread that
should work then waits for one that spins: 20 rounds on 14,000 rows took 5.6 and 13.5 s with two spinning
threads on two busy cores, 1.3 and 2.1 s with two sleeping ones, 1.7 s with a single thread. The policy is
read once, when the library is loaded, so it has to be set before.
"""

from __future__ import annotations

import os
from typing import Any


def import_xgboost() -> Any:
    """Return the module ``xgboost``; a wait policy that the user has set is left alone."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import xgboost

    return xgboost
