"""Whether an intent becomes an order, and of what size: the gate, its rules and breakers, what they look at.

Pure: positions, prices and times come in as arguments (docs/risk.md).
"""
