"""The compiled library of the kernel, where it is there: loaded by ctypes, so that one file serves every Python."""

import ctypes
from functools import lru_cache
from pathlib import Path

_VERSION = 1  # ALMANAC_KERNEL_VERSION of model.h

_NUMBERS = ("columns", "slots", "trees", "outputs", "most_planes", "output")
_POINTERS = (
    "column", "view", "thresholds", "classes", "plane_at", "over_at", "under_at", "pick_at", "over", "under", "pick",
    "sets", "values",
)  # fmt: skip


class ModelStruct(ctypes.Structure):
    """`struct model` of model.h."""

    _fields_ = (
        *((name, ctypes.c_uint32) for name in _NUMBERS),
        *((name, ctypes.c_void_p) for name in _POINTERS),
        ("average", ctypes.c_double),
        ("sigmoid", ctypes.c_double),
    )


LIBRARY = Path(__file__).with_name("libtrees.so")


@lru_cache(maxsize=1)
def load_library(path: Path = LIBRARY) -> "ctypes.CDLL | str":
    """The library; or why there is none."""
    if not path.is_file():
        archived = not path.parent.is_dir()
        return "no library can be loaded from an archive" if archived else "the kernel was not compiled"
    try:
        library = ctypes.CDLL(str(path))
        found = library.almanac_kernel_version()
    except (OSError, AttributeError) as err:
        return f"the kernel cannot be loaded: {err}"
    if found != _VERSION:
        return f"the compiled kernel is of version {found}, not {_VERSION}"
    library.almanac_variant.restype = ctypes.c_char_p
    library.almanac_variant.argtypes = [ctypes.c_uint32]
    library.almanac_score.restype = ctypes.c_int32
    library.almanac_score.argtypes = [
        ctypes.POINTER(ModelStruct), ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_void_p,
    ]  # fmt: skip
    return library


def variants(library: ctypes.CDLL) -> dict[str, int]:
    """The widths of vectors that this machine has, widest first, each under its number."""
    found: dict[str, int] = {}
    index = 0
    while (name := library.almanac_variant(index)) is not None:
        if name:
            found[name.decode()] = index
        index += 1
    return found
