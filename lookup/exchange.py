"""What the read API is asked and how it answers: routes, ids, batches, errors."""

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from lookup.message import Response
from schemas.answer import MAX_BATCH, ErrorBody, LookupRequest
from schemas.keys import first_id_problem, id_problem

_RELEASE_DIGITS = 10
_MAX_RELEASE = 2**31

JSON_TYPE = "application/json"
READ = ("GET", "HEAD")
_FIXED_ROUTES = {"/healthz": "health", "/readyz": "ready", "/metrics": "metrics", "/openapi.json": "openapi"}

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(LookupRequest).decode


@lru_cache(maxsize=256)
def lines(*headers: tuple[str, str]) -> bytes:
    """Headers as they go over the wire."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode()


JSON = lines(("content-type", JSON_TYPE))


class RequestError(Exception):
    """A request that gets an error body instead of an answer."""

    def __init__(self, status: int, code: str, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(status, code, message, *headers)
        self.response = error(status, code, message, *headers)


class Route(NamedTuple):
    """What a path asks for: a route's name, and the table and id that stand in the path."""

    name: str
    table: str = ""
    entity: str = ""
    methods: tuple[str, ...] = READ


def route_of(method: str, path: str) -> Route:
    """The route of a percent-decoded path: all that follows the table is the id, slashes too.

    >>> route_of("GET", "/v1/flights/UA:1:a/b").entity
    'UA:1:a/b'
    """
    if path.startswith("/v1/"):
        table, slash, entity = path[4:].partition("/")
        if table and slash:
            if entity != "lookup":
                return Route("entity", table, entity, READ)
            return Route("batch" if method == "POST" else "entity", table, entity, (*READ, "POST"))
    return Route(_FIXED_ROUTES.get(path, "none"))


def error(status: int, code: str, message: str, *headers: tuple[str, str]) -> Response:
    return Response(status, encode(ErrorBody(code, message)), JSON + lines(*headers))


def batch_of(body: bytes) -> LookupRequest:
    """The request in a body.

    Raises:
        RequestError: it is not one, or asks for what no entity can be called.
    """
    try:
        request = _decode(body)
    except msgspec.ValidationError as err:
        if "length <=" in str(err):
            raise RequestError(413, "BATCH_TOO_LARGE", f"more than {MAX_BATCH} ids; ask in several requests") from None
        raise RequestError(422, "BODY_SHAPE", f'{str(err)[:160]}; expected {{"ids": ["...", ...]}}') from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as err:
        raise RequestError(400, "BODY_JSON", f"the body is not JSON: {str(err)[:160]}") from None
    if found := first_id_problem(request.ids):
        position, why = found
        raise RequestError(400, "ENTITY_ID", f"ids[{position}] {why}")
    return request


def release_of(query: str) -> int | None:
    """The release that a query asks to be answered from; None where it asks for none.

    Raises:
        RequestError: the query is anything else.
    """
    if not query:
        return None
    match parse_qsl(query, keep_blank_values=True):
        # Python refuses to read a number of thousands of digits.
        case [("release", text)] if text.isascii() and text.isdigit() and len(text) <= _RELEASE_DIGITS:
            if 0 < (release := int(text)) < _MAX_RELEASE:
                return release
    raise RequestError(400, "QUERY", "the query may be release=NUMBER and nothing else; a ? in an id is written %3F")


def is_held(if_none_match: str | None, etag: str) -> bool:
    """Whether the client has this answer already: one of its tags is the answer's, or it takes any.

    >>> is_held('W/"1.1.exact", W/"2.7.exact"', 'W/"2.7.exact"')
    True
    """
    if if_none_match is None:
        return False
    # Tags are compared weakly (RFC 9110, 13.1.2), and ours have no comma in them.
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags


def check_id(where: str, entity: str) -> None:
    """Refuse what no entity can be called.

    Raises:
        RequestError: it is that.
    """
    if why := id_problem(entity):
        raise RequestError(400, "ENTITY_ID", f"{where} {why}")
