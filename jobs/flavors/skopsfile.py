"""Files of skops: written so that equal models have equal bytes, read only where every type in them is on our list."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from jobs.flavors.scorer import UnloadableError

_SCHEMA = "schema.json"
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a ZIP file knows

# How skops makes a thing of its description. What is not here (methods, operators, unknown reducers) is refused.
_LOADERS = frozenset(
    f"{name}Node"
    for name in (
        "Object", "Dict", "DefaultDict", "OrderedDict", "List", "Tuple", "Set", "Json", "NdArray", "MaskedArray",
        "Type", "DType", "Slice", "RandomState", "RandomGenerator", "Tree", "Loss", "Partial", "Function", "Bytes",
        "Cached",
    )
)  # fmt: skip
_BUILTIN = (
    "bool", "bytes", "complex", "dict", "float", "int", "list", "NoneType", "object", "set", "slice", "str", "tuple",
)  # fmt: skip
_SKLEARN = {
    "_loss._loss": "CyHalfBinomialLoss CyHalfMultinomialLoss CyHalfPoissonLoss CyHalfGammaLoss CyHalfSquaredError "
    "CyAbsoluteError CyPinballLoss CyHalfTweedieLoss CyHuberLoss CyExponentialLoss",
    "_loss.link": "Interval IdentityLink LogLink LogitLink HalfLogitLink MultinomialLogit",
    "_loss.loss": "HalfBinomialLoss HalfMultinomialLoss HalfPoissonLoss HalfGammaLoss HalfSquaredError AbsoluteError "
    "PinballLoss HuberLoss ExponentialLoss",
    "compose._column_transformer": "ColumnTransformer",
    "compose._target": "TransformedTargetRegressor",
    "dummy": "DummyClassifier DummyRegressor",
    "ensemble._forest": "RandomForestClassifier RandomForestRegressor ExtraTreesClassifier ExtraTreesRegressor",
    "ensemble._gb": "GradientBoostingClassifier GradientBoostingRegressor",
    "ensemble._hist_gradient_boosting.binning": "_BinMapper",
    "ensemble._hist_gradient_boosting.gradient_boosting": "HistGradientBoostingClassifier "
    "HistGradientBoostingRegressor",
    "ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "impute._base": "SimpleImputer MissingIndicator",
    "linear_model._base": "LinearRegression",
    "linear_model._coordinate_descent": "ElasticNet Lasso",
    "linear_model._glm.glm": "PoissonRegressor GammaRegressor TweedieRegressor",
    "linear_model._logistic": "LogisticRegression",
    "linear_model._ridge": "Ridge",
    "pipeline": "Pipeline FeatureUnion",
    "preprocessing._data": "StandardScaler MinMaxScaler MaxAbsScaler RobustScaler PowerTransformer "
    "QuantileTransformer PolynomialFeatures",
    "preprocessing._discretization": "KBinsDiscretizer",
    "preprocessing._encoders": "OneHotEncoder OrdinalEncoder",
    "preprocessing._function_transformer": "FunctionTransformer",
    "preprocessing._label": "LabelEncoder",
    "tree._classes": "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor",
    "tree._tree": "Tree",
    "utils._bunch": "Bunch",
    "utils.validation": "check_array",  # what HistGradientBoosting looks at its numbers with
}
_NUMPY = (
    "numpy.dtype", "numpy.ndarray", "numpy.ma.MaskedArray", "numpy.random._generator.Generator",
    "numpy.random.mtrand.RandomState", *(f"numpy.{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    "numpy.float32", "numpy.float64", "numpy.bool", "numpy.bool_", "numpy.str_",
)  # fmt: skip
ALLOWED = frozenset(
    [
        *(f"builtins.{name}" for name in _BUILTIN),
        *(f"sklearn.{module}.{name}" for module, names in _SKLEARN.items() for name in names.split()),
        *_NUMPY,
        "collections.OrderedDict",
        "collections.defaultdict",
        "functools.partial",
    ]
)


def dumps(estimator: Any) -> bytes:
    """The estimator as skops writes it, but that equal estimators have equal bytes.

    skops names parts by their place in memory and writes the time; both are replaced by what follows from the model.
    """
    from skops.io import dumps as skops_dumps

    with zipfile.ZipFile(io.BytesIO(skops_dumps(estimator))) as archive:
        schema = archive.read(_SCHEMA).decode()
        parts = {name: archive.read(name) for name in archive.namelist() if name != _SCHEMA}
    places = dict.fromkeys(re.findall(r'"(?:__id__|file)": "?(\d+)', schema))
    numbers = {place: str(number) for number, place in enumerate(places, 1)}
    schema = re.sub(r'("(?:__id__|file)": "?)(\d+)', lambda found: found[1] + numbers[found[2]], schema)
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr(zipfile.ZipInfo(_SCHEMA, _TIME), schema)
        for name, raw in sorted((_renamed(name, numbers), raw) for name, raw in parts.items()):
            archive.writestr(zipfile.ZipInfo(name, _TIME), _without_padding(raw) if name.endswith(".npy") else raw)
    return written.getvalue()


def _renamed(name: str, numbers: dict[str, str]) -> str:
    place, dot, rest = name.partition(".")
    return f"{numbers.get(place, place)}{dot}{rest}"


def _without_padding(raw: bytes) -> bytes:
    """The array without what memory held between the fields of its records."""
    array = np.lib.format.read_array(io.BytesIO(raw), allow_pickle=False)
    if array.dtype.names is None:
        return raw
    clean = np.zeros(array.shape, array.dtype)
    for name in array.dtype.names:
        clean[name] = array[name]
    written = io.BytesIO()
    np.lib.format.write_array(written, clean, allow_pickle=False)
    return written.getvalue()


def loads(raw: bytes) -> Any:
    """The estimator.

    Raises:
        UnloadableError: the file is none of skops, or a type in it is not on the list.
    """
    from skops import io as skops_io

    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            named = set(_named(json.loads(archive.read(_SCHEMA))))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as err:
        raise UnloadableError(f"not a file of skops: {err}") from err
    if strange := sorted(named - ALLOWED):
        raise UnloadableError(f"type {', '.join(strange[:3])} is not on the list of those that are opened")
    try:
        # What skops itself would not trust of these is what was found on our list.
        return skops_io.loads(raw, trusted=skops_io.get_untrusted_types(data=raw))
    except Exception as err:  # whatever a damaged description makes scikit-learn or numpy raise
        raise UnloadableError(f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else 'no word'}") from err


def _named(node: Any) -> Iterator[str]:
    """Every type and loader that a description names; of a loader only those that are not on the list."""
    if isinstance(node, list):
        for each in node:
            yield from _named(each)
    if not isinstance(node, dict):
        return
    if (loader := node.get("__loader__")) is not None:
        if loader not in _LOADERS:
            yield f"{loader} ({node.get('__module__')}.{node.get('__class__')})"
        yield f"{node.get('__module__')}.{node.get('__class__')}"
    for each in node.values():
        yield from _named(each)
