"""How much is tried: all of it in continuous integration, less of the same where somebody waits."""

from __future__ import annotations

import os

# Set by .ci/run and by make bench.
THOROUGH = os.environ.get("GPUSCALP_THOROUGH") == "1"


def examples(count: int) -> int:
    """Return how many of so many examples Hypothesis draws: half of them where somebody waits."""
    return count if THOROUGH else -(-count // 2)
