"""Codes and table layouts of the ladder, shared by its CPU and CUDA twins and by the feature graph."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from gpuscalp.schema import F32, I64

# Columns of Program.groups
OP, INPUT_X, INPUT_Y, SIZE, TOP, CONSTANTS, FINISH, FINISH_COUNT, RING = range(9)
GROUP_FIELDS: Final = 9
# Columns of Program.finishes
LEVEL, STAT, COLUMN, ELEMENT_A, ELEMENT_B = range(5)
FINISH_FIELDS: Final = 5

SUMS_SIZE: Final = 8
PATH_SIZE: Final = 6
LEVELS: Final = 13  # constants are laid out for levels 0 to 12: windows up to 4096 frames
MAX_SPANS: Final = 8  # elements of a DECAY, which a GPU keeps in registers

SPECTRUM_BINS: Final = 10  # K: 1 to 8, and a neighbour on either side for the Hann window
# A spectrum's shared work: powers of bins 1 to K-2, then their sum, the largest, its bin and its amplitude,
# and the sum again where float32 resolves its parts, else 0.
TOTAL, BEST, BEST_BIN, BEST_RE, BEST_IM, RESOLVED = range(10, 16)
WORK_ROWS: Final = 16


class Program(NamedTuple):
    """A feature graph as tables, the same for every device.

    groups : int64[G, 9]      one family over its inputs: op, input rows (x, y; y -1 = none), number of
                              elements, top level, offset of its constants, its finishes (first, count),
                              offset of its rings (in rows of S)
    finishes : int64[P, 5]    one output column each: level, statistic, column, elements it reads;
                              ordered by (group, level)
    constants : float32[...]  tables made once on the host (decays, twiddles)
    """

    groups: I64
    finishes: I64
    constants: F32


class Op(IntEnum):
    """Families. h is the number of frames in a half, n = 2h in the window."""

    MOMENTS = 0  # mean, M2
    EXTREMES = 1  # min, max
    SUMS = 2  # gains, losses, |return|, notional, flow, |flow|, VWAP flow, variance
    CROSS = 3  # mean x, mean y, M2 x, M2 y, co-moment
    PATH = 4  # of the price relative to the newest frame: move, mean, M2, min, max, co-moment with time
    DECAY = 5  # sum of lambda^age x, one element per lambda
    SPECTRUM = 6  # K complex Fourier bins: K real parts, then K imaginary parts


class Stat(IntEnum):
    """What finish makes of an element, in the order of the functions that do it."""

    # MOMENTS, EXTREMES, SUMS, CROSS, and what is copied
    MEAN = 0
    STD = 1
    ZSCORE = 2
    MIN = 3
    MAX = 4
    FLOW_IMBALANCE = 5
    RSI = 6
    ILLIQUIDITY = 7
    TOXICITY = 8
    VWAP_DEVIATION = 9
    VOLATILITY = 10
    BETA = 11
    CORRELATION = 12
    ROLL_MEASURE = 13
    MOVE = 14
    LAST = 15
    # PATH
    RANGE_POSITION = 16
    RANGE_WIDTH = 17
    SLOPE = 18
    RESIDUAL_STD = 19
    PATH_ZSCORE = 20
    # DECAY
    DECAYED_MEAN = 21
    DECAYED_DIFFERENCE = 22
    # SPECTRUM
    AMPLITUDE = 23
    BAND_SHARE = 24
    CENTROID = 25
    PARTICIPATION = 26
    DOMINANT_FREQUENCY = 27
    DOMINANT_SHARE = 28
    PHASE_COS = 29
    PHASE_SIN = 30
