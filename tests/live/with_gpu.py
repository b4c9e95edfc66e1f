"""``gpuscalp`` with a GPU to watch where there is none: ``python -m tests.live.with_gpu live --embedded …``.

The command and everything behind it are the real ones. Only the answers of NVML are those of a card that
tests/fake_nvml.py makes up, so that all metrics of GPUs are there.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

from gpuscalp.cli import run as run_command
from gpuscalp.config import GpuHealthConfig
from gpuscalp.live import run
from gpuscalp.live.gpu_watch import GpuWatch
from gpuscalp.monitoring.nvml_cards import visible_cards
from tests.fake_nvml import GIB, FakeCard, FakeNvml


def _watch(device: str, config: GpuHealthConfig, predictor: Any = None) -> GpuWatch:
    # Too hot, so that there is a reason to show; nobody predicts on it, so that the gate is not told.
    nvml = FakeNvml(FakeCard(processes={os.getpid(): 3 * GIB}, reasons=0x40))
    return GpuWatch(nvml, partial(visible_cards, nvml, {}), config, leads=lambda: False)


if __name__ == "__main__":
    run.open_watch = _watch  # type: ignore[assignment]
    sys.exit(run_command(sys.argv[1:]))
