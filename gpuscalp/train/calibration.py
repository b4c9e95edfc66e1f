"""Vector scaling: the one correction between what the members say and how often it comes.

Owns: the fit. The application is ``ops.probability`` (the live path needs it, and must not import SciPy).
Never: is given a row that the members were trained on.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from gpuscalp.ensemble import Calibration
from gpuscalp.schema import F64

# Independent labels' worth of belief that the members are right as they are. Overlapping labels make a
# million rows worth a few hundred labels; without the prior six parameters would follow their noise, and the
# mood of one afternoon.
PRIOR_LABELS: Final = 100.0
_LOG_FLOOR: Final = -745.0


def fit_vector_scaling(raw: F64, direction: npt.NDArray[np.int8], weight: F64) -> Calibration:
    """Fit ``softmax(scale · log p + bias)`` to held-out predictions.

    Parameters
    ----------
    raw : float64[R, K]     mean probability of the members, held-out rows only
    direction : int8[R]     class that came
    weight : float64[R]     uniqueness of the labels: their sum is the number of independent labels

    Returns
    -------
    Calibration
        The identity where there are no rows. ``scale`` is not negative: a calibration may tell the model to
        be less sure, not to say the opposite.

    Notes
    -----
    Guo, Pleiss, Sun and Weinberger (2017), "On calibration of modern neural networks", §4.2 (vector scaling),
    with a ridge towards the identity.
    """
    from scipy.optimize import minimize

    class_count = raw.shape[1]
    identity = Calibration.identity(class_count)
    if len(raw) == 0:
        return identity
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(raw), _LOG_FLOOR)
    came = np.zeros_like(logs)
    came[np.arange(len(direction)), direction] = 1.0
    ridge = PRIOR_LABELS / max(float(weight.sum()), 1.0)
    start = np.concatenate([identity.scale, identity.bias])

    def loss(theta: F64) -> tuple[float, F64]:
        scale, bias = theta[:class_count], theta[class_count:]
        z = logs * scale + bias
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        given = np.maximum((p * came).sum(axis=1), np.finfo(np.float64).tiny)
        error = (p - came) / len(p)
        away = theta - start
        value = -np.log(given).mean() + 0.5 * ridge * float(away @ away)
        gradient = np.concatenate([(error * logs).sum(axis=0), error.sum(axis=0)]) + ridge * away
        return float(value), gradient

    bounds = [(0.0, 10.0)] * class_count + [(-10.0, 10.0)] * class_count
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    return Calibration(
        kind="vector",
        scale=np.asarray(found.x[:class_count], np.float64),
        bias=np.asarray(found.x[class_count:], np.float64),
    )
