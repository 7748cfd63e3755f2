"""Which library reads a model, beside which one made it."""

import os
import re
from importlib.metadata import PackageNotFoundError, version

from schemas.bundle import Flavor

_PACKAGES: dict[Flavor, str] = {
    "lightgbm": "lightgbm",
    "sklearn": "scikit-learn",
    "onnx": "onnxruntime",
    "ensemble": "lightgbm",
}


def let_threads_sleep() -> None:
    """Make LightGBM's threads sleep while they wait; to be called before it is imported.

    Spinning, which is their default, took 20 times as long where other processes had the cores too.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def library_here(flavor: Flavor) -> str:
    """The installed library of a flavor, as a bundle's manifest names the one that made it."""
    package = _PACKAGES.get(flavor)
    if package is None:
        return f"{flavor} 1"  # our own form, by the number of its format
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def can_read(here: str, wrote: str) -> bool:
    """Whether a library may read the model of another: it is the same or a later one of the same major version.

    A later one must still reproduce the holdout, bit for bit.

    >>> can_read("lightgbm 4.7.0", "lightgbm 4.6.0"), can_read("lightgbm 4.7.0", "lightgbm 5.0")
    (True, False)
    """
    ours, theirs = ([int(part) for part in re.findall(r"\d+", name)[:3]] for name in (here, wrote))
    return bool(theirs) and ours[:1] == theirs[:1] and ours >= theirs


def named(model: str, flavor: Flavor, wrote: str) -> str:
    """The model as an error of its holdout names it: with both libraries, where they differ."""
    here = library_here(flavor)
    return model if here == wrote else f"{model}, made by {wrote} and read by {here}"
