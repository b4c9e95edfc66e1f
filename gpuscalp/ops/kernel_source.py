"""Finds the CUDA C++ source of a kernel; the one reader of ``kernels/``.

Owns the two places a source may lie in: the installed package (``gpuscalp/_kernels``, put there when the
wheel is built) and the checkout (``kernels/`` beside the package). Never compiles and never edits a source:
every ``.cu`` file is complete in itself, so what is read here is what NVRTC, the host shim and a reader see.
"""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from gpuscalp.errors import KernelNotFoundError


def load_kernel_source(stem: str) -> str:
    """Return the text of ``<stem>.cu``.

    Parameters
    ----------
    stem : str
        Name of the kernel file without its suffix, for instance ``"forest"``.

    Returns
    -------
    str
        The source, unchanged.

    Raises
    ------
    KernelNotFoundError
        If the file is in neither place; the message names both.
    """
    places = kernel_places(stem)
    for place in places:
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise KernelNotFoundError(
        f"no CUDA source for kernel {stem!r}",
        where=" and ".join(str(place) for place in places),
        fix="reinstall gpuscalp, or run from a complete checkout",
    )


def kernel_stems() -> tuple[str, ...]:
    """Return the stems of all sources, in alphabetical order.

    Raises
    ------
    KernelNotFoundError
        If there are none in either place.
    """
    folders = _folders()
    for folder in folders:
        if folder.is_dir():
            names = (entry.name for entry in folder.iterdir())
            return tuple(sorted(name.removesuffix(".cu") for name in names if name.endswith(".cu")))
    raise KernelNotFoundError(
        "no CUDA sources",
        where=" and ".join(str(folder) for folder in folders),
        fix="reinstall gpuscalp, or run from a complete checkout",
    )


def kernel_places(stem: str) -> tuple[Traversable, Traversable]:
    """Return where ``<stem>.cu`` may lie, in the order in which the places are tried.

    The package comes first: an installed wheel must not pick up a ``kernels/`` folder that happens to lie
    beside ``site-packages``.
    """
    packaged, checked_out = _folders()
    return packaged / f"{stem}.cu", checked_out / f"{stem}.cu"


def _folders() -> tuple[Traversable, Traversable]:
    return _package_root() / "_kernels", _checkout_root() / "kernels"


def _package_root() -> Traversable:
    return resources.files("gpuscalp")


def _checkout_root() -> Path:
    return Path(__file__).resolve().parents[2]
