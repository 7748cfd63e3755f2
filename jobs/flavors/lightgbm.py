"""LightGBM's own model text: scored by the tree kernel where it answers as the library does, else by the library."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.flavors.scorer import Engine, Signature, UnloadableError
from jobs.kernel.engine import choose_engine, library_engine
from jobs.libraries import let_threads_sleep
from validation.parity import Floats

if TYPE_CHECKING:
    import lightgbm


def booster_of(raw: bytes) -> "lightgbm.Booster":
    """LightGBM's own model.

    Raises:
        UnloadableError: LightGBM cannot read it.
    """
    let_threads_sleep()
    import lightgbm  # heavy; only what scores or trains pays for it

    try:
        return lightgbm.Booster(model_str=raw.decode())
    except (lightgbm.basic.LightGBMError, UnicodeDecodeError) as err:
        raise UnloadableError(str(err)) from err


class LightGBM:
    """An opened LightGBM model.

    Attributes:
        booster: LightGBM's own.
    """

    def __init__(self, raw: bytes, signature: Signature) -> None:
        """Read the model.

        Raises:
            UnloadableError: LightGBM cannot read it, or it predicts other numbers than the bundle says.
        """
        self.booster = booster_of(raw)
        if (found := self.booster.num_model_per_iteration()) != signature.numbers:
            raise UnloadableError(f"it predicts {found} numbers for a row, its manifest {signature.numbers}")

    @property
    def feature_names(self) -> list[str]:
        return [str(name) for name in self.booster.feature_name()]

    def library(self, why: str = "") -> Engine:
        return library_engine(self.booster, why)

    def fastest(self, columns: Sequence[Floats]) -> Engine:
        return choose_engine(self.booster, columns)
