"""Vector scaling: the one correction between what the members say and how often it comes.

Owns: the fit. The application is ``ops.probability`` (the live path needs it, and must not import SciPy).
Never: is given a row that the members were trained on.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gpuscalp.ensemble import Calibration
from gpuscalp.schema import F64, I64

# How far from the identity a calibration is expected to lie, before any row is seen. Overlapping labels make
# a million rows worth a few hundred labels, and six free parameters cost 6 / (2 · labels) nats on the next
# fold: more than they bring. A bias mostly follows the class shares of one afternoon, hence the narrow one.
SCALE_SD: Final = 0.3
BIAS_SD: Final = 0.03
_LOG_FLOOR: Final = -745.0


def fit_vector_scaling(raw: F64, direction: npt.NDArray[np.int8], weight: F64, end_ns: I64) -> Calibration:
    """Fit ``softmax(scale · log p + bias)`` to held-out predictions.

    Parameters
    ----------
    raw : float64[R, K]     mean probability of the members, held-out rows only
    direction : int8[R]     class that came
    weight : float64[R]     uniqueness: their sum is the number of labels that do not overlap
    end_ns : int64[R]       entries: how much symbols move together is seen in the rows of one instant

    Returns
    -------
    Calibration
        The identity where there are no rows. ``scale`` is not negative: a calibration may tell the model to
        be less sure, not to say the opposite.

    Notes
    -----
    Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", §4.2 (vector scaling),
    with a normal prior around the identity. The scale turns about the mean of the logarithms, so that a
    change of it alone leaves the mean prediction where it was.
    """
    from scipy.optimize import minimize

    class_count = raw.shape[1]
    identity = Calibration.identity(class_count)
    if len(raw) == 0:
        return identity
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(raw), _LOG_FLOOR)
    centre = logs.mean(axis=0)
    logs -= centre
    came = np.zeros_like(logs)
    came[np.arange(len(direction)), direction] = 1.0
    start = np.concatenate([identity.scale, identity.bias])
    independent = float(weight.sum()) / _counted_for(came - raw, end_ns)
    precision = np.repeat([SCALE_SD**-2, BIAS_SD**-2], class_count) / max(independent, 1.0)

    def loss(theta: F64) -> tuple[float, F64]:
        scale, bias = theta[:class_count], theta[class_count:]
        z = logs * scale + (centre + bias)
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        given = np.maximum((p * came).sum(axis=1), np.finfo(np.float64).tiny)
        error = (p - came) / len(p)
        away = theta - start
        value = -np.log(given).mean() + 0.5 * float(precision @ (away * away))
        gradient = np.concatenate([(error * logs).sum(axis=0), error.sum(axis=0)]) + precision * away
        return float(value), gradient

    bounds = [(0.0, 10.0)] * class_count + [(-10.0, 10.0)] * class_count
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    scale = np.asarray(found.x[:class_count], np.float64)
    bias = np.asarray(found.x[class_count:] + (1.0 - scale) * centre, np.float64)
    return Calibration(kind="vector", scale=scale, bias=bias)


def _counted_for(error: F64, end_ns: I64) -> float:
    """Return how many labels of an instant tell as much as an independent one; of copies it takes all.

    The design effect of rows that come by instants (Kish 1965, "Survey Sampling"): how much more the
    sums over instants vary than sums of as many independent rows would.

    Parameters
    ----------
    error : float64[R, K]   class that came, less what was said
    end_ns : int64[R]       entries
    """
    error = error - error.mean(axis=0)
    own = float(np.square(error).sum())
    _, instant = np.unique(end_ns, return_inverse=True)
    together = sum(float(np.square(np.bincount(instant, weights=column)).sum()) for column in error.T)
    return max(together / own, 1.0) if own > 0.0 else 1.0
