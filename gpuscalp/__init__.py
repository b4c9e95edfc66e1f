"""gpuscalp: micro-batched features and gradient-boosted predictions for crypto futures, on a GPU or a CPU."""

__version__ = "0.1.0"
