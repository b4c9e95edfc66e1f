"""A worker runs wherever its session may, whichever thread has begun it."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

CODE = """
import os, socket
from gpuscalp.worker import child

def tell(_):
    print(*sorted(os.sched_getaffinity(0)), flush=True)
    os._exit(0)

child.Link = tell  # the first thing that it would need a session for
ours, theirs = socket.socketpair()
child.main([str(ours.fileno()), "0", "0", "0"])
"""


def test_worker_begun_by_a_thread_that_is_kept_to_one_core_may_use_all():
    everywhere = sorted(os.sched_getaffinity(0))

    def begin() -> str:
        os.sched_setaffinity(0, everywhere[-1:])
        command = [sys.executable, "-c", CODE]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:  # its input stays open: it ends with it
            return process.stdout.read()

    with ThreadPoolExecutor(1) as pool:
        assert [int(word) for word in pool.submit(begin).result().split()] == everywhere
