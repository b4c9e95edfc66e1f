"""Models in MLflow: runs and model versions on a server or in a store of this machine.

MLflow is imported when something is sent or fetched, not with this package.
"""

from __future__ import annotations

from gpuscalp.tracking.connection import Target, target_of
from gpuscalp.tracking.pull import pull
from gpuscalp.tracking.push import push, track_training

__all__ = ["Target", "pull", "push", "target_of", "track_training"]
