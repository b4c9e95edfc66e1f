"""The one door to Ray: a cluster that is running already, or one of our own on this machine for one command.

Owns: starting, connecting, and leaving nothing behind. Never: decides what runs there. Ray is imported when
it is needed (a second or two), reports nothing to anybody, and starts no dashboard.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from gpuscalp.errors import ConfigError, UsageError
from gpuscalp.redaction import keep

_INSTALL: Final = "make setup EXTRAS=ray in the checkout (docs/install.md)"
_ANSWER_S: Final = 5.0
# What goes through the object store here is small: models, counts, held-out predictions. Features never do.
_STORE_BYTES: Final = 256_000_000
# Read by Ray when it is imported, and by the processes that it starts; what the user has set stays.
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how soon it is seen that workers have ended, or are lost
}
# A path of a socket has at most 107 bytes, and Ray puts some 60 behind its folder.
_SHORT: Final = Path("/tmp")  # noqa: S108
_PREFIX: Final = "gsr-"
# Ray opens its folder, and all that is in it, to everybody; the one around it lets nobody in but us.
_INSIDE: Final = "r"


def import_ray() -> Any:
    """Return the module ``ray``.

    Raises
    ------
    ConfigError    it is not installed
    """
    try:
        metadata.version("ray")
    except metadata.PackageNotFoundError:
        raise ConfigError("Ray is not installed", where="extra ray", fix=_INSTALL) from None
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    return ray


@contextmanager
def connected(
    address: str | None = None, *, cpus: int | None = None, note: Path | None = None
) -> Iterator[Any]:
    """Be connected to a cluster, and give the module ``ray``.

    Parameters
    ----------
    address : ``host:port`` of a cluster's head, ``auto`` for the one that runs on this machine; None starts
        one here, on loopback, and ends it afterwards with all that it has written. Where this process is
        connected already, that connection is used and left as it is
    cpus : cores of the cluster that is started; None takes all
    note : file that names its folder meanwhile, so that the next call removes what one that was killed left

    Raises
    ------
    ConfigError    Ray is not installed
    UsageError     there is no cluster at ``address``
    """
    if address is None:
        _close_off()
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    on_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if on_main else None
    folder = None
    try:
        _clear(note)
        if address is None:
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_SHORT if _SHORT.is_dir() else None))
            if note is not None:
                note.write_text(str(folder), encoding="utf-8")
        try:
            if folder is not None:
                _start(ray, folder, cpus)
            elif address is not None:
                _join(ray, address)
        except SystemExit:  # Ray has taken SIGTERM over, and one came
            raise KeyboardInterrupt from None
        finally:
            if on_main:
                signal.signal(signal.SIGTERM, before)
        yield ray
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
            if note is not None:
                note.unlink(missing_ok=True)


def _close_off() -> None:
    """Keep others out of a cluster of ours."""
    # Ray lets in who has its token. Without this it would write one into the home directory.
    keep([os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))])
    if "ray" in sys.modules:  # it has read the rest when it was imported
        return
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Without other machines it listens on the loopback alone; else on all interfaces, whatever it is given.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def _clear(note: Path | None) -> None:
    if note is not None and note.exists():
        left = Path(note.read_text(encoding="utf-8"))
        if left.name.startswith(_PREFIX):  # the note may have been changed by hand
            shutil.rmtree(left, ignore_errors=True)


def _start(ray: Any, folder: Path, cpus: int | None) -> None:
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(folder / _INSIDE),
    )


def _join(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    if address != "auto":
        # Ray itself would try for a quarter of an hour, and say so on the terminal.
        try:
            socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
        except (OSError, ValueError, OverflowError) as error:
            raise _no_cluster(address, error) from None
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UsageError:
    return UsageError(
        "no Ray cluster can be reached",
        where="--address",
        value=address,
        fix=f"start one with `ray start --head`, or leave --address out ({str(error).splitlines()[0]})",
    )
