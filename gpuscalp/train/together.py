"""What the workers of one training tell each other. Where there is one alone, nothing is said.

Owns: the exchange of small values over XGBoost's collective, which is there anyway. Every worker must call it
at the same place of its work. Never: starts a worker.
"""

from __future__ import annotations

from typing import TypeVar

from gpuscalp.xgb import import_xgboost

T = TypeVar("T")


def gather(value: T) -> list[T]:
    """Return every worker's value, in the order of their ranks."""
    collective = import_xgboost().collective
    workers = collective.get_world_size()
    if workers == 1:
        return [value]
    rank = collective.get_rank()
    # Boxed: None is a value here, and none to broadcast there.
    return [collective.broadcast((value,) if root == rank else None, root)[0] for root in range(workers)]
