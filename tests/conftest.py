"""Fixtures that every test may use: real recordings, seeded randomness, the device, the command line.

Environment: ``GPUSCALP_REQUIRE_GPU=1`` makes a missing GPU a failure instead of a skip,
``GPUSCALP_TEST_SEED`` replaces the seed of ``rng``, ``GPUSCALP_RECORDINGS`` the folder of recordings,
``HYPOTHESIS_PROFILE`` the choice between ``dev`` and ``ci``, ``GPUSCALP_KILLS`` how often
``live/test_kill.py`` kills; ``GPUSCALP_THOROUGH=1`` runs what is marked ``thorough``, and draws twice as many
examples.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import math
import os
import signal
import subprocess
import warnings
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


# Before Numba is imported, and inherited by the worker processes and by every command under test: all of
# them, and the Makefile, share what is compiled. gpuscalp.ops separates the revisions of its sources in it.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".cache" / "numba"))
os.environ.setdefault("GPUSCALP_KERNEL_CACHE", str(ROOT / ".cache" / "kernels"))
os.environ.setdefault("GPUSCALP_CRASH_DIR", str(ROOT / ".cache" / "crashes"))
os.environ.setdefault("MPLBACKEND", "agg")
# Worker processes share the cores: an OpenMP thread that spins while it waits takes one from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# So does one of NumPy's BLAS, which has no such policy: on small matrices they double the processor time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A session under test must not tell the people whom those of this machine tell.
for _name in ("GPUSCALP_NOTIFY_URLS", "GPUSCALP_NOTIFY_FILE"):
    os.environ.pop(_name, None)

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from tests import compiled_ahead  # noqa: E402
from tests.thorough import THOROUGH, examples  # noqa: E402

# No deadline: the first example of a kernel compiles it. "ci" takes the same examples at every run.
settings.register_profile(
    "dev", deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci",
    deadline=None,
    max_examples=examples(100),
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@functools.cache
def missing_gpu() -> str | None:
    """Return why CUDA cannot be used here, or None where it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import cupy
    except ImportError as error:
        return f"CuPy is not installed ({error})"
    return None if cupy.cuda.is_available() else "CuPy finds no CUDA device or no driver"


# Files that run no kernel of the CPU: a run begins with them, while those of a session are compiled.
FIRST_FILES = (
    "host_shim/test_host_shim.py",
    "ops/test_kernels_compile.py",
    "ops/test_cuda_module.py",
)
# Files of more than half a minute, the longest first, come next. A wait comes before work: what waits for
# a minute to pass leaves the cores to the others.
LONG_FILES = (
    "live/test_prometheus.py",
    "live/test_kill.py",
    "tuning/test_tune.py",
    "distributed/test_ray.py",
    "nautilus/test_live.py",
    "worker/test_failures.py",
    "dashboard/test_page.py",
    "walkforward/test_run.py",
    "walkforward/test_bars.py",
    "backtest/test_like_session.py",
    "live/test_faults.py",
    "live/test_commands.py",
    "live/test_exchange_faults.py",
    "live/test_succession.py",
    "tracking/test_mlflow.py",
    "risk/test_machine.py",
    "test_order_laws.py",
    "archive/test_export_hftbacktest.py",
    "live/test_workers.py",
    "backtest/test_band.py",
    "worker/test_fleet.py",
    "worker/test_scarcity.py",
    "test_planted_lag.py",
)


_FIRST_PATHS = {ROOT / "tests" / name for name in FIRST_FILES}


def _is_whole_run(config: pytest.Config) -> bool:
    """Whether this process has workers that run all files."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return whole and bool(config.getoption("numprocesses", None)) and not config.option.collectonly


_compiling: pytest.StashKey[subprocess.Popen[bytes]] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    if _is_whole_run(config):
        config.stash[_compiling] = compiled_ahead.begin()


def pytest_unconfigure(config: pytest.Config) -> None:
    if _compiling in config.stash:
        compiled_ahead.end(config.stash[_compiling])


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use one process more than there are cores: many tests wait, for sockets, processes and time to pass.

    Cores by the quota of a container too: its processes stand still together when that is used up.
    """
    from gpuscalp.doctor.machine import read_machine

    machine = read_machine()
    return math.ceil(min(machine.core_count, machine.quota_cores or machine.core_count)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long: one that came last would leave the other processes idle."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    place = {ROOT / "tests" / name: number for number, name in enumerate((*FIRST_FILES, *LONG_FILES))}
    items.sort(key=lambda item: place.get(item.path, len(place) + (item.path not in slow)))


def pytest_collection(session: pytest.Session) -> None:
    # Hundreds of modules are imported, and nearly nothing of what they make goes away again.
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    # What has been collected and imported stays to the end: nothing to look at again and again.
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    # Before the test's limit on time begins.
    if item.path not in _FIRST_PATHS:
        compiled_ahead.wait()
    return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("thorough") is not None and not THOROUGH:
        pytest.skip("left to continuous integration (GPUSCALP_THOROUGH=1 runs it)")
    if item.get_closest_marker("gpu") is None:
        return
    reason = missing_gpu()
    if reason is None:
        return
    if os.environ.get("GPUSCALP_REQUIRE_GPU") == "1":
        pytest.fail(f"GPUSCALP_REQUIRE_GPU=1, but {reason}", pytrace=False)
    pytest.skip(f"no GPU: {reason}")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Run the test once for each device; ``cuda`` is skipped with its reason where there is none."""
    return str(request.param)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Return the folder of real Binance recordings (``usdm/``, ``spot/``, ``rest/``); read-only."""
    path = Path(os.environ.get("GPUSCALP_RECORDINGS", ROOT.parent / "shared" / "data" / "binance"))
    if not path.is_dir():
        pytest.skip(f"no recordings: {path} is not there (GPUSCALP_RECORDINGS names another folder)")
    return path


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Return a generator seeded by the test's name, the same at every run; a failure shows the seed."""
    seed = int(os.environ.get("GPUSCALP_TEST_SEED", zlib.crc32(request.node.nodeid.encode())))
    print(f"rng seed: {seed} (GPUSCALP_TEST_SEED={seed} repeats it)")
    return np.random.default_rng(seed)


class CliResult(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., CliResult]:
    """Return a function that runs a command line in this process: ``cli("data", "info", path, "--json")``."""
    from gpuscalp.cli import run

    def call(*words: object) -> CliResult:
        capsys.readouterr()
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return CliResult(code, captured.out, captured.err)

    return call


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """A test run that a shell has put into the background ignores it, and so would all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
