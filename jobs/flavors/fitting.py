"""Growing models of scikit-learn, and exporting linear ones: from a matrix of encoded features to the model's file."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.flavors.linear import LinearModel, Link, Term
from schemas.bundle import Feature
from schemas.errors import DeclarationError, Problem
from schemas.pipeline import Training
from validation.parity import Floats


def fit_sklearn(pipeline: str, asked: Training, features: Sequence[Feature], matrix: Floats, labels: Floats) -> bytes:
    """The file of a model of flavor sklearn or linear.

    Args:
        pipeline: Named by errors.
        asked: What is declared.
        features: Of the matrix.
        matrix: Shape (rows, features), as `jobs.matrix` encodes them.
        labels: Shape (rows,).

    Raises:
        DeclarationError: the estimator does not take the declared parameters.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it did not converge is for the metrics to judge
            if asked.flavor == "linear":
                estimator = _estimator("linear", asked, features)
                estimator.fit(matrix, labels)
                return _exported(estimator, features, asked).model_dump_json(indent=1).encode()
            from jobs.flavors.skopsfile import dumps

            # HistGradientBoosting cannot bin a column without any number. Of one value, no split looks at it.
            known = np.where(np.isnan(matrix).all(axis=0), 0.0, matrix)
            return dumps(_estimator(str(asked.estimator), asked, features).fit(known, labels))
    except (TypeError, ValueError) as err:
        where = f"{pipeline}/pipeline.yaml: training.params"
        first = str(err).splitlines()[0]
        raise DeclarationError(Problem("TRAIN_PARAMS", where, first, "parameters that the estimator takes")) from err


def _estimator(name: str, asked: Training, features: Sequence[Feature]) -> Any:
    from sklearn import ensemble, linear_model
    from sklearn.pipeline import make_pipeline

    is_class = asked.objective != "regression"
    if name == "hist_gradient_boosting":
        kind = ensemble.HistGradientBoostingClassifier if is_class else ensemble.HistGradientBoostingRegressor
        categorical = [place for place, feature in enumerate(features) if feature.kind == "categorical"]
        own = {"max_iter": asked.rounds, "random_state": asked.seed, "early_stopping": False}
        return kind(**{**own, **asked.params}, categorical_features=categorical or None)
    if name == "random_forest":
        kind = ensemble.RandomForestClassifier if is_class else ensemble.RandomForestRegressor
        return kind(**{"n_estimators": asked.rounds, "random_state": asked.seed, **asked.params})
    solver = linear_model.LogisticRegression if is_class else linear_model.Ridge
    return make_pipeline(_prepared(features), solver(**asked.params))


def _prepared(features: Sequence[Feature]) -> Any:
    """Numbers with their median for what is missing, scaled; categories as a column each, none for what is missing."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric = [place for place, feature in enumerate(features) if feature.kind == "numeric"]
    categorical = [place for place, feature in enumerate(features) if feature.categories]
    known = [np.arange(len(features[place].categories), dtype=np.float64) for place in categorical]
    filled = SimpleImputer(strategy="median", keep_empty_features=True)
    parts = [
        ("numeric", make_pipeline(filled, StandardScaler()), numeric),
        ("categorical", OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False), categorical),
    ]
    return ColumnTransformer([part for part in parts if part[2]])


def _exported(estimator: Any, features: Sequence[Feature], asked: Training) -> LinearModel:
    """The pipeline's scaling and weights folded into one weight a number, and one a category."""
    prepared, solver = estimator[0], estimator[-1]
    weights = np.atleast_2d(solver.coef_)  # shape (numbers, columns)
    intercepts = np.atleast_1d(solver.intercept_).astype(np.float64)
    terms: dict[str, Term] = {}
    at = 0
    numeric = [feature for feature in features if feature.kind == "numeric"]
    if numeric:
        filler, scaler = prepared.named_transformers_["numeric"]
        own = weights[:, : len(numeric)] / scaler.scale_
        intercepts = intercepts - (own * scaler.mean_).sum(axis=1)
        for place, feature in enumerate(numeric):
            missing = float(filler.statistics_[place])
            terms[feature.name] = Term(feature=feature.name, weights=tuple(own[:, place]), missing=missing)
        at = len(numeric)
    for feature in features:
        if feature.kind == "numeric":
            continue
        own = weights[:, at : at + len(feature.categories)]
        at += len(feature.categories)
        none = Term(feature=feature.name, weights=(0.0,) * len(intercepts), missing=0.0)  # no category was ever seen
        terms[feature.name] = (
            Term(feature=feature.name, categories=tuple(map(tuple, own.T))) if feature.categories else none
        )
    links: dict[str, Link] = {"binary": "logistic", "multiclass": "softmax"}
    link = links.get(asked.objective, "identity")
    return LinearModel(link=link, intercepts=tuple(intercepts), terms=tuple(terms[each.name] for each in features))
