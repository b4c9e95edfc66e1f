"""``python -m gpuscalp.worker``: the process that gpuscalp.worker.process starts. Not for people."""

import sys

from gpuscalp.worker.child import main

sys.exit(main(sys.argv[1:]))
