"""Orders after the risk gate: their life cycle, and the paper broker that fills them.

Pure: time and market events come in as arguments, randomness as a seed; no sockets, no files, no clock.
"""
