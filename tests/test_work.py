"""The count of work against the definition itself, run on numbers that count what is done with them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu_work import Work, ceiling, context_work, ladder_work
from gpuscalp.config import FeatureConfig, GridConfig
from gpuscalp.features import FeatureGraph
from gpuscalp.ops import cuda_ladder
from gpuscalp.ops.ladder_codes import Op

ROOT = Path(__file__).resolve().parent.parent

# One step of the ladder, with the compiled functions as plain Python, over float32 numbers that count. A step
# lifts, merges and finishes each group once, without any halo.
COUNTED = """
import json, math, sys
from types import SimpleNamespace
import numpy as np
from gpuscalp.ops import ladder, ladder_families, ladder_finish
from tests.ops.test_cuda_ladder import program_of, unused_families
from gpuscalp.schema import Channel

count = 0

class Counted:
    __array_priority__ = 1000
    def __init__(self, value):
        self.value = np.float32(value)
    def __neg__(self):
        return Counted(-self.value)
    def __abs__(self):
        return Counted(abs(self.value))

def plain(x):
    return x.value if isinstance(x, Counted) else np.float32(x)

def arithmetic(name):
    def forward(self, other):
        global count
        count += 1
        return Counted(getattr(self.value, name)(plain(other)))
    def backward(self, other):
        global count
        count += 1
        return Counted(getattr(plain(other), name)(self.value))
    setattr(Counted, name, forward)
    setattr(Counted, name.replace("__", "__r", 1), backward)

def comparison(name):
    def compare(self, other):
        global count
        count += 1
        return bool(getattr(self.value, name)(plain(other)))
    setattr(Counted, name, compare)

for name in ("__add__", "__sub__", "__mul__", "__truediv__"):
    arithmetic(name)
for name in ("__lt__", "__gt__", "__ne__"):
    comparison(name)

def root(x):
    global count
    count += 1
    return Counted(np.sqrt(plain(x)))

ladder_finish.math = SimpleNamespace(sqrt=root)
# What a statistic starts from counts as well: sums begin at zero, and the number of a bin is divided.
ladder_finish.np = SimpleNamespace(float32=Counted)
ladder_finish._ZERO = ladder_families._ZERO = Counted(0.0)
np.seterr(all="ignore")
rng = np.random.default_rng(1)

def numbers(shape):
    array = np.empty(shape, object)
    for at in np.ndindex(*shape):
        array[at] = Counted(abs(rng.standard_normal()) + 0.1)
    return array

found = {}
for name, program in (("default", program_of()), ("unused", unused_families())):
    count = 0
    state = ladder.StepState(numbers((ladder.ring_rows(program), 1)), np.zeros(1, np.int64))
    scratch = numbers(ladder.step_scratch(program, 1).shape)
    out = np.empty((int(program.finishes[:, 2].max()) + 1, 1), object)
    ladder.step(program, numbers((len(Channel), 1)), state, scratch, out)
    found[name] = {"operations": count, "columns": sum(value is not None for value in out[:, 0])}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def counted():
    env = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", COUNTED], capture_output=True, text=True, cwd=ROOT, env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["default", "unused"])
def test_operations_are_those_that_the_definition_does(counted, name):
    from tests.ops.test_cuda_ladder import program_of, unused_families

    program = program_of() if name == "default" else unused_families()
    work = ladder_work(program, tile_frames=float("inf"), step_frames=cuda_ladder.step_frames)
    assert work.operations == counted[name]["operations"]
    assert work.written_bytes == 4 * counted[name]["columns"]


def test_halo_is_counted_as_the_blocks_walk_it():
    """Against the walk of a block, frame by frame, over one group of the graph at a time."""
    program = FeatureGraph(GridConfig(), FeatureConfig()).program
    tile, step_frames = 1_000, cuda_ladder.step_frames
    bare = ladder_work(program, tile_frames=float("inf"), step_frames=step_frames)
    lifts = merges = 0.0
    for index in range(len(program.groups)):
        one = program._replace(groups=program.groups[index : index + 1])
        reach = (1 << int(one.groups[0, 4])) - 1
        step = step_frames(Op(one.groups[0, 0]), int(one.groups[0, 3]))
        walked = lifted = 0
        at = 0
        while at > -reach:
            at -= step
        while at < tile:
            walked += step
            lifted += sum(-reach <= frame < tile for frame in range(at, at + step))
            at += step
        alone = ladder_work(one, tile_frames=float("inf"), step_frames=step_frames)
        halved = one._replace(groups=one.groups.copy())
        halved.groups[0, 4] = 0  # no level, no merge: lift and finishes remain
        rest = ladder_work(halved, tile_frames=float("inf"), step_frames=step_frames)
        merges += (alone.operations - rest.operations) * walked / tile + rest.operations
        lifts += alone.read_bytes * lifted / tile
    work = ladder_work(program, tile_frames=tile, step_frames=step_frames)
    assert work.read_bytes == pytest.approx(lifts)
    # The lift's own operations, in the halo, are in neither: a few of thousands.
    assert work.operations == pytest.approx(merges, rel=2e-3)
    assert work.operations > bare.operations


def test_context_moves_what_its_columns_need():
    graph = FeatureGraph(GridConfig(), FeatureConfig(), ["BTCUSDT", "ETHUSDT"])
    context = graph.context
    work = context_work(context, 2)
    columns = sum(
        len(table)
        for table in (
            context.leader_columns,
            context.mean_columns,
            context.relative_columns,
            context.time_columns,
        )
    )
    assert work.written_bytes == 4 * columns
    ladder = ladder_work(graph.program, tile_frames=4096, step_frames=cuda_ladder.step_frames)
    assert ladder.written_bytes + work.written_bytes == 4 * len(graph)


def test_ceiling_names_what_binds_and_the_share_that_was_reached():
    work = Work(read_bytes=100.0, written_bytes=900.0, operations=4_000.0)
    found = ceiling(work, 1e8, bytes_per_s=2e12, multiprocessors=100, clock_hz=1e9, lanes=100)
    assert found.memory_s == pytest.approx(0.05)
    assert found.arithmetic_s == pytest.approx(0.04)
    assert found.binds == "memory"
    assert found.share(0.1) == pytest.approx(0.5)
    slow = ceiling(work, 1e8, bytes_per_s=2e12, multiprocessors=10, clock_hz=1e9, lanes=100)
    assert slow.binds == "arithmetic"
    assert np.isclose(slow.share(0.8), 0.5)
