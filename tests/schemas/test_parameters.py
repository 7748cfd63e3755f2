"""Parameters of a run: read strictly, bound as literals that mean their value whatever is in it."""

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.binding import bound, given_as_json, given_as_text, literal, with_literals
from schemas.declared import DeclaredPipeline, read_folder
from schemas.errors import DeclarationError
from schemas.models import Models, Route
from schemas.parameters import Parameter, Value
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

REGION = {"region": Parameter(allowed=["EU", "US"])}


def declared(parameters: dict[str, Parameter], where: str = "origin = :region") -> DeclaredPipeline:
    found = read_folder(ROOT / "dags" / "flight_delay")
    models = Models(routes=[Route(name="theirs", where=where)])
    return replace(found, pipeline=found.pipeline.model_copy(update={"parameters": parameters, "models": models}))


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("string", "EU", "EU"),
        ("string", "", ""),
        ("int", "-7", -7),
        ("int", 7, 7),
        ("float", "1.5", 1.5),
        ("float", 2, 2.0),
        ("bool", "true", True),
        ("date", "2013-07-01", dt.date(2013, 7, 1)),
    ],
)
def test_a_value_is_read_by_its_type(kind: str, given: object, value: object) -> None:
    assert Parameter(type=kind).read(given) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("string", 7), ("string", "a\nb"), ("string", "\ud800"), ("string", "x" * 257), ("int", "1.0"), ("int", "x"),
        ("int", True), ("int", str(2**63)), ("float", "nan"), ("float", "inf"), ("bool", "yes"), ("bool", 1),
        ("date", "20130701"), ("date", "2013-02-30"), ("date", 7),
    ],
)  # fmt: skip
def test_what_is_no_value_of_its_type_is_refused(kind: str, given: object) -> None:
    with pytest.raises(ValueError, match=f"a value of type {kind}"):
        Parameter(type=kind).read(given)  # type: ignore[arg-type]


def test_a_default_and_what_is_allowed_must_be_of_the_type_and_agree() -> None:
    with pytest.raises(ValidationError, match="'x' is no int"):
        Parameter(type="int", default="x")
    with pytest.raises(ValidationError, match="the default 'UK' is not among the allowed values"):
        Parameter(default="UK", allowed=["EU", "US"])


def test_another_value_is_another_run_and_none_leaves_the_digest_as_it_was() -> None:
    plain = read_folder(ROOT / "dags" / "flight_delay")
    found = {bound(declared(REGION), {"region": value}).digest for value in ("EU", "US")}

    assert len(found) == 2
    assert bound(plain, {}) is plain


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {},
            "parameter 'region': is not given, and has no default; expected --param region=VALUE, one of EU, US",
        ),
        ({"region": "UK"}, "parameter 'region': 'UK'; expected one of EU, US [PARAM_VALUE]"),
        (
            {"regoin": "EU", "region": "EU"},
            "parameter 'regoin': not declared; did you mean 'region'?; expected one",
        ),
    ],
)
def test_a_parameter_that_is_wrong_is_one_clear_error(given: dict[str, object], told: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        bound(declared(REGION), given)
    assert told in str(caught.value)


@pytest.mark.parametrize("words", [["region"], ["=EU"], ["region=EU", "region=US"]])
def test_an_option_that_gives_no_value_is_refused(words: list[str]) -> None:
    with pytest.raises(DeclarationError, match="NAME=VALUE, each name once"):
        given_as_text(words)


def test_json_gives_values_with_their_types_and_null_gives_none() -> None:
    assert given_as_json('{"a": 1, "b": null, "c": "x"}') == {"a": 1, "c": "x"}
    for text in ("[1]", "{", "7"):
        with pytest.raises(DeclarationError, match="a JSON object"):
            given_as_json(text)


def test_only_declared_names_outside_quotes_and_comments_are_bound() -> None:
    text = "a = :x AND b = ':x' AND `c:x` > 1 -- :x\n AND d = :xy AND m[':x'] = :x"

    assert with_literals(text, {"x": 1}) == text.replace("a = :x", "a = CAST(1 AS BIGINT)").replace(
        "= :x", "= CAST(1 AS BIGINT)"
    ).replace("CAST(1 AS BIGINT)y", ":xy")


@pytest.mark.spark
@settings(max_examples=25, deadline=None)
@given(
    value=st.one_of(
        st.text(max_size=20).filter(str.isprintable),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
        st.sampled_from(["' OR true --", "\\", "\\'", "${x}", ":x", "日本", "/*", '"`']),
    )
)
def test_a_literal_is_just_its_value_to_spark(spark: "SparkSession", value: Value) -> None:
    row = spark.sql(f"SELECT {literal(value)} AS found").first()

    assert row is not None
    assert row["found"] == value
    assert type(row["found"]) is type(value)
