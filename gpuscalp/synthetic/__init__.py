"""A seeded synthetic market with one planted secret: followers copy the leader's moves after a known lag.

``ticks(spec)`` gives the market in memory, ``write(spec, path)`` as an archive of the venue ``synthetic``.
docs/demo.md describes the model, its sources and what it leaves out.
"""

from gpuscalp.synthetic.market import SymbolRows, instruments, slices
from gpuscalp.synthetic.spec import VENUE, FlowSpec, MarketSpec, SymbolSpec
from gpuscalp.synthetic.ticks import ticks
from gpuscalp.synthetic.write import write

__all__ = [
    "VENUE",
    "FlowSpec",
    "MarketSpec",
    "SymbolRows",
    "SymbolSpec",
    "instruments",
    "slices",
    "ticks",
    "write",
]
