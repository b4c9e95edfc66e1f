"""Margins of all members by XGBoost itself, where the rows are: the alternative to the forest's kernel.

Owns: the loaded boosters, and the proof that they work on the device that was asked for. Never: falls back.
XGBoost does so by itself, with one warning per process: it runs on the CPU where it finds no GPU, and takes
rows of another device by a copy. Both are errors here.

On a CPU the margins have the bits of the forest. On CUDA those of a binary objective may differ in the last
place: XGBoost adds the base score last there.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Final, final

import numpy as np

from gpuscalp.booster_form import check_booster
from gpuscalp.device import DeviceName
from gpuscalp.errors import DeviceError, MemberError
from gpuscalp.ops.copies import library_calls, on_gpu, to_device
from gpuscalp.xgb import import_xgboost

_ABOUT_DEVICES: Final = re.compile(r"device|gpu|cuda|falling back", re.IGNORECASE)


@final
class Boosters:
    """M boosters on one device.

    Parameters
    ----------
    members : files of a bundle, UBJSON
    device : where rows and margins lie

    Raises
    ------
    DeviceError    XGBoost would work on another device
    MemberError    XGBoost cannot read a member
    """

    def __init__(self, members: Sequence[bytes], device: DeviceName) -> None:
        self._device = device
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self._boosters = [_load(member, device, index) for index, member in enumerate(members)]
            for booster in self._boosters:
                self._check_device(booster)
            for booster in self._boosters:
                # One row: a fallback at prediction says so here, not while trading.
                row = np.full((1, booster.num_features()), np.nan, np.float32)
                self._predict(booster, to_device(row) if device == "cuda" else row)
        _judge(said, device)

    def margins(self, x: Any, out: Any) -> None:
        """Write the margins of all members.

        On CUDA it waits for the device before and after (``copies.library_calls``).

        Parameters
        ----------
        x : float32[R, F]      NumPy on a CPU, CuPy on CUDA, C-contiguous; NaN is missing
        out : float32[M, R, K] there too

        Raises
        ------
        DeviceError    x or out lie elsewhere
        """
        for name, array in (("x", x), ("out", out)):
            if on_gpu(array) != (self._device == "cuda"):
                raise DeviceError(
                    "rows and boosters are on different devices",
                    where=name,
                    value=type(array).__module__,
                    fix=f"the boosters are on {self._device}",
                )
        with library_calls() if self._device == "cuda" else nullcontext():
            for index, booster in enumerate(self._boosters):
                out[index] = self._predict(booster, x)

    def _predict(self, booster: Any, x: Any) -> Any:
        return booster.inplace_predict(x, predict_type="margin", missing=np.nan, strict_shape=True)

    def _check_device(self, booster: Any) -> None:
        found = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
        if found.partition(":")[0] != self._device:
            raise DeviceError(
                "XGBoost has chosen another device",
                where="generic_param.device",
                value=f"{found} instead of {self._device}",
                fix='install XGBoost with CUDA, or use predictor = "forest"',
            )


def load_booster(member: bytes, where: str) -> Any:
    """Return the booster of a bundle's file, which may be of anybody.

    Parameters
    ----------
    member : UBJSON
    where : named in an error

    Raises
    ------
    MemberError    it has not the form of a booster (``check_booster``), or XGBoost cannot read it
    """
    check_booster(member, where)
    xgboost = import_xgboost()
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(member))
    except (xgboost.core.XGBoostError, ValueError) as error:
        raise MemberError(
            "XGBoost cannot read a member", where=where, value=str(error).splitlines()[0]
        ) from None
    return booster


def _load(member: bytes, device: DeviceName, index: int) -> Any:
    booster = load_booster(member, f"member {index}")
    # After loading, which would set it back. One thread: on few rows more of them only wait for each other.
    booster.set_param({"device": device, "nthread": 1})
    # The columns are checked by the bundle's contract; an array has no names to check.
    booster.feature_names = None
    booster.feature_types = None
    return booster


def _judge(said: Sequence[warnings.WarningMessage], device: DeviceName) -> None:
    """Make an error of a warning about devices, and give the others back."""
    for warning in said:
        if _ABOUT_DEVICES.search(str(warning.message)):
            raise DeviceError(
                "XGBoost does not do what it was asked to",
                where=device,
                value=str(warning.message),
                fix='use predictor = "forest", or a build of XGBoost that fits this machine',
            )
    for warning in said:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
