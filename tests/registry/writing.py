"""A process that writes to a registry: ``python -m tests.registry.writing REGISTRY WHO COUNT BUNDLE…``."""

from __future__ import annotations

import sys
from pathlib import Path

from gpuscalp.bundle import read_contract
from gpuscalp.registry import ALIASES, Registry


def main(path: Path, who: str, count: int, bundles: list[Path]) -> None:
    registry = Registry(path, who=who)
    for index in range(count):
        bundle = bundles[index % len(bundles)]
        with registry.writing(wait_s=120.0) as writer:
            writer.add(bundle)
            writer.promote(ALIASES[index % 3], read_contract(bundle).digest, why=str(index))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), [Path(word) for word in sys.argv[4:]])
