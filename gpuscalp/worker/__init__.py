"""Engines in processes of their own: a device that fails takes its process with it, and nothing else.

The session computes all features itself, and every answer of a worker is compared with them. A worker counts
only after it has agreed for a while, and a worker that has failed in any way is never listened to again: the
next one is a fresh process, which has to agree anew.
"""

from gpuscalp.worker.faults import Fault, WorkerFault, parse_fault
from gpuscalp.worker.fleet import Fleet, Found
from gpuscalp.worker.spec import WorkerSpec, shard
from gpuscalp.worker.worker import State

__all__ = ["Fault", "Fleet", "Found", "State", "WorkerFault", "WorkerSpec", "parse_fault", "shard"]
