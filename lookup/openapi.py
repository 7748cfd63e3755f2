"""The OpenAPI document of the read API, built from the models that it answers with."""

from typing import Any

import msgspec

from schemas.answer import Answer, ErrorBody, Health, LookupRequest, LookupResponse, Readiness, UnknownAnswer

_MODELS = (Answer, UnknownAnswer, LookupRequest, LookupResponse, ErrorBody, Health, Readiness)
_REFERENCE = "#/components/schemas/{name}"

_STORE_ERRORS = {
    500: "What is published cannot be read (`ROW_DECODE`, `STORE_POINTER_FORMAT`, ...), or a defect (`INTERNAL`).",
    503: "Redis does not answer (`STORE_DOWN`, `STORE_TIMEOUT`, ...) and a release was named, so that no other may "
    "answer for it. Retry after the seconds of the Retry-After header.",
}
_RELEASE_ERRORS = {410: "`RELEASE_GONE`: Redis keeps no version of that release any more."}
_KEY_ERRORS = {
    401: "`API_KEY`: keys are asked for, and the request has none, or one that is not valid.",
    403: "`API_KEY_TABLE`: the key may not read this table.",
    429: "`API_KEY_RATE`: more ids than the key may ask for. Retry after the seconds of the Retry-After header.",
}
_FLAGGED = " While Redis cannot be asked, or has nothing published, it is flagged, with a Retry-After header."
_METHOD = {405: "`METHOD`: the Allow header names the methods there are."}


def document() -> dict[str, Any]:
    """OpenAPI 3.1 of all routes."""
    _, schemas = msgspec.json.schema_components(_MODELS, ref_template=_REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Almanac",
            "version": "1",
            "description": "Predictions that were worked out ahead of time, looked up by entity id. "
            "Every answer of a request is of one release.",
        },
        "paths": {
            "/v1/{table}/{id}": {"get": _entity()},
            "/v1/{table}/lookup": {"post": _batch()},
            "/healthz": {"get": _plain("Whether the process is up.", Health)},
            "/readyz": {
                "get": _plain("Whether every table can be served.", Readiness)
                | {
                    "responses": _responses(
                        Readiness, {503: "The code of the first table that cannot be served, and why."}
                    )
                }
            },
            "/metrics": {"get": _text("Counts and times in Prometheus's text format.", "text/plain")},
            "/openapi.json": {"get": _text("This document.", "application/json")},
        },
        "components": {"schemas": schemas},
    }


def _entity() -> dict[str, Any]:
    identity = _parameter(
        "id", "Percent-encoded UTF-8, a `/` in it as `%2F`; at most 512 bytes, no control characters."
    )
    responses = _responses(
        Answer,
        {
            400: "`ENTITY_ID`: no entity can have this id. `QUERY`: a query that names no release, or an unencoded `?` "
            "in the path.",
            404: "`ENTITY_UNKNOWN`: the release has no such entity; the body is an answer as well. "
            "`TABLE_UNKNOWN`: no such table. `RELEASE_UNKNOWN`: no such release was published.",
            **_METHOD,
            **_KEY_ERRORS,
            **_RELEASE_ERRORS,
            **_STORE_ERRORS,
        },
    )
    responses["200"]["description"] += _FLAGGED
    responses["200"]["headers"] = {
        "ETag": {"description": "Of the version and the status; not of the age.", "schema": {"type": "string"}}
    }
    responses["304"] = {"description": "The answer that If-None-Match names is still the one."}
    responses["404"]["content"] = _content({"anyOf": [_reference(UnknownAnswer), _reference(ErrorBody)]})
    parameters = [_table(), identity, _release(), _if_none_match()]
    return {"summary": "One entity's prediction.", "parameters": parameters, "responses": responses}


def _batch() -> dict[str, Any]:
    responses = _responses(
        LookupResponse,
        {
            400: "`BODY_JSON`: the body is not JSON text in UTF-8. `ENTITY_ID`: no entity can have this id. "
            "`QUERY`: a query that names no release.",
            404: "`TABLE_UNKNOWN`: no such table. `RELEASE_UNKNOWN`: no such release was published.",
            **_METHOD,
            **_KEY_ERRORS,
            **_RELEASE_ERRORS,
            408: "`BODY_SLOW`: the body did not arrive in time.",
            413: "`BATCH_TOO_LARGE`: more ids than one request may ask for. `BODY_TOO_LARGE`: more than 1 MiB.",
            415: "`BODY_TYPE`: a Content-Type that is not JSON.",
            422: "`BODY_SHAPE`: JSON, but not a LookupRequest.",
            **_STORE_ERRORS,
        },
    )
    responses["200"]["description"] += _FLAGGED
    return {
        "summary": "Many entities' predictions, in the order asked; an unknown one has the status `unknown`.",
        "parameters": [_table(), _release()],
        "requestBody": {"required": True, "content": _content(_reference(LookupRequest))},
        "responses": responses,
    }


def _plain(summary: str, model: type[msgspec.Struct]) -> dict[str, Any]:
    return {"summary": summary, "responses": _responses(model, {})}


def _text(summary: str, media_type: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary, "content": {media_type: {}}}}}


def _responses(model: type[msgspec.Struct], errors: dict[int, str]) -> dict[str, Any]:
    found = {"200": {"description": _first_line(model), "content": _content(_reference(model))}}
    return found | {
        str(status): {"description": description, "content": _content(_reference(ErrorBody))}
        for status, description in errors.items()
    }


def _table() -> dict[str, Any]:
    return _parameter("table", "A pipeline that publishes.")


def _parameter(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


def _release() -> dict[str, Any]:
    return {
        "name": "release",
        "in": "query",
        "description": "To be answered from this release, while Redis keeps it; from the live one, when left out.",
        "schema": {"type": "integer", "minimum": 1},
    }


def _if_none_match() -> dict[str, Any]:
    return {
        "name": "If-None-Match",
        "in": "header",
        "description": "ETags of answers that the client has.",
        "schema": {"type": "string"},
    }


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _reference(model: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(name=model.__name__)}


def _first_line(model: type[msgspec.Struct]) -> str:
    return (model.__doc__ or model.__name__).partition("\n")[0]
