"""Whether this is still the market of the training: distances, the flag, and rows unlike all of it.

Pure: columns come in as arguments (docs/drift.md).
"""
