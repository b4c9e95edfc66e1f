"""Who predicts: the CPU, or worker processes whose answers the CPU has checked.

Owns: how far an answer is trusted. A worker's features were compared with ours, row by row and to the bit,
before its margins are looked at. Of the margins those are computed once more on which an order could follow,
and one row more each frame, so that every row has its turn. What differs makes the frame a lost one: nothing
is predicted in it. What was not computed once more is not proved, and must not be acted upon.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, Protocol, final

import numpy as np
import numpy.typing as npt

from gpuscalp.ensemble import Ensemble, Signals
from gpuscalp.frames import ClosedFrames
from gpuscalp.live.fleets import Fleets
from gpuscalp.ops.forest import ForestScratch, predict_margins
from gpuscalp.ops.row_digest import U64
from gpuscalp.schema import F32
from gpuscalp.worker import Fleet

Rows = npt.NDArray[np.bool_]
MayAct = Callable[[Signals], Rows]


_TOLD_MAX: Final = 256


class Prediction(NamedTuple):
    """Signals of one frame.

    Attributes
    ----------
    signals : None where there are none
    lost : there are none because a device failed at the frame
    unproved : bool[S], rows whose margins a worker alone has computed; None: there are none such
    """

    signals: Signals | None
    lost: bool
    unproved: Rows | None = None


class Told(NamedTuple):
    """A prediction as a journal has it: without the signals, which are computed once more, and as bits."""

    lost: bool = False
    unproved: bytes = b""


def pack_rows(rows: Rows) -> bytes:
    return np.packbits(rows).tobytes()


def unpack_rows(packed: bytes, count: int) -> Rows:
    """Return bool[count], whatever the bytes are: a journal may be forged."""
    return np.unpackbits(np.frombuffer(packed, np.uint8), count=count).view(np.bool_)


class Predictor(Protocol):
    """Order of calls: for each frame ``begin``, then the caller's own features, then ``predict``."""

    def begin(self, closed: ClosedFrames, checkpoint: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Take a closed frame; ``checkpoint`` gives the feature stream's state before it."""
        ...

    def predict(self, x: F32, digests: U64, *, wanted: bool) -> Prediction:
        """Return the frame's signals.

        Parameters
        ----------
        x : float32[S, F]    its features, C-contiguous
        digests : uint64[S]  of its rows (gpuscalp.inference.chunk_digests)
        wanted : False where the frame is too old to be predicted
        """
        ...

    def signals(self, x: F32) -> Signals:
        """Return what the model says of every row of float32[S, F], by the CPU alone."""
        ...

    def use(self, digest: str, ensemble: Ensemble) -> None:
        """Predict with another model, or another calibration, from the next frame on; call it between frames.

        Parameters
        ----------
        digest : of its bundle
        """
        ...


@final
class HostPredictor:
    """The CPU alone."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble, self._scratch = ensemble, ForestScratch.of(ensemble.forest)

    def use(self, digest: str, ensemble: Ensemble) -> None:  # noqa: ARG002
        self._ensemble = ensemble

    def begin(self, closed: ClosedFrames, checkpoint: Callable[[], Mapping[str, np.ndarray]]) -> None:
        """Nothing is to be done ahead."""

    def predict(self, x: F32, digests: U64, *, wanted: bool) -> Prediction:  # noqa: ARG002
        return Prediction(self.signals(x) if wanted else None, False)

    def signals(self, x: F32) -> Signals:
        return self._ensemble.predict(x, scratch=self._scratch)


@final
class FleetPredictor:
    """Workers that have proved themselves, and the CPU for the rows of which none has.

    Parameters
    ----------
    ensemble : the model
    fleets : of the model
    may_act : bool[S] of the rows on which an order could follow, or whose signals are written with one

    Attributes
    ----------
    leads : a worker's answer to the last frame counted
    """

    def __init__(self, ensemble: Ensemble, fleets: Fleets, may_act: MayAct) -> None:
        self.fleets, self.leads = fleets, False
        self._fleet = fleets.look()
        self._ensemble, self._may_act = ensemble, may_act
        self._scratch = ForestScratch.of(ensemble.forest)
        self._turn = 0
        # Bounded: a sick card is told of again and again, and without frames nobody takes it up.
        self._told: deque[tuple[int | None, str]] = deque(maxlen=_TOLD_MAX)

    def fail(self, gpu: int | None, reason: str) -> None:
        """Trust a GPU, or none, no longer, from a frame on that is out. May be called in any thread."""
        self._told.append((gpu, reason))

    def use(self, digest: str, ensemble: Ensemble) -> None:
        """The CPU predicts with it at once; workers when they have agreed with it often enough. Those of the
        same bundle go on: their margins are the same under every calibration."""
        self._ensemble = ensemble
        self.fleets.change(digest)

    def begin(self, closed: ClosedFrames, checkpoint: Callable[[], Mapping[str, np.ndarray]]) -> None:
        self._fleet = self.fleets.look()
        if self._fleet is not None:
            self._fail_told(self._fleet)
            self._fleet.begin(closed, checkpoint)

    def predict(self, x: F32, digests: U64, *, wanted: bool) -> Prediction:
        fleet = self._fleet
        if fleet is None:
            self.leads = False
            return Prediction(self.signals(x) if wanted else None, False)
        self._fail_told(fleet)
        found = fleet.finish(digests, wait=wanted)
        if wanted:
            self.leads = sum(map(len, found.missing)) < len(x)
        if not wanted or found.lost:
            fleet.settle(None)
            return Prediction(None, found.lost)
        margins = found.margins
        own = np.zeros(len(x), bool)
        for rows in found.missing:
            at = slice(rows.start, rows.stop)
            own[at] = True
            margins[:, at] = self._margins(x[at])
        signals = self._ensemble.combine(margins)
        self._turn = (self._turn + 1) % len(x)
        checked = self._may_act(signals) & ~own
        checked[self._turn] = not own[self._turn]
        wrong = self._first_wrong(x, signals, checked)
        if wrong is None:
            fleet.settle(margins)
            unproved = ~(own | checked)
            return Prediction(signals, False, unproved if unproved.any() else None)
        fleet.reject(wrong)
        fleet.settle(None)
        return Prediction(None, True)

    def signals(self, x: F32) -> Signals:
        return self._ensemble.predict(x, scratch=self._scratch)

    def _first_wrong(self, x: F32, signals: Signals, checked: Rows) -> int | None:
        """Return the first of the rows to be checked whose margins the CPU finds to be others."""
        rows = np.flatnonzero(checked)
        if not len(rows):
            return None
        ours = self._margins(np.ascontiguousarray(x[rows]))
        differ = ours.view(np.uint32) != np.ascontiguousarray(signals.margins[:, rows]).view(np.uint32)
        wrong = rows[differ.any(axis=(0, 2))]
        return int(wrong[0]) if len(wrong) else None

    def _fail_told(self, fleet: Fleet) -> None:
        while self._told:
            fleet.fail(*self._told.popleft())

    def _margins(self, x: F32) -> F32:
        forest = self._ensemble.forest
        out = np.empty((forest.member_count, len(x), forest.class_count), np.float32)
        predict_margins(forest, x, out=out, scratch=self._scratch)
        return out
