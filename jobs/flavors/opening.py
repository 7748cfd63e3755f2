"""Which flavor reads which bytes, and by which library."""

from collections.abc import Callable

from jobs.flavors.ensemble import Ensemble
from jobs.flavors.lightgbm import LightGBM
from jobs.flavors.linear import Linear
from jobs.flavors.onnx import OnnxModel
from jobs.flavors.scorer import Scorer, Signature, UnloadableError
from jobs.flavors.sklearn import SklearnModel
from schemas.bundle import Flavor

_FLAVORS: dict[Flavor, Callable[[bytes, Signature], Scorer]] = {
    "lightgbm": LightGBM,
    "sklearn": SklearnModel,
    "onnx": OnnxModel,
    "linear": Linear,
    "ensemble": Ensemble,
}


def open_model(flavor: Flavor, raw: bytes, signature: Signature) -> Scorer:
    """The model in these bytes, whose digest was proven. None of the flavors can be made to run what is in them.

    Raises:
        UnloadableError: they are none of that flavor, or do not fit the signature; or its library is not installed.
    """
    try:
        return _FLAVORS[flavor](raw, signature)
    except ModuleNotFoundError as err:
        raise UnloadableError(f"{err}: install almanac[{flavor}]") from err
