"""HTTP as `lookup.client` speaks it: one request to an API worker, and what its response means."""

import asyncio
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from lookup.balance import Ask
from schemas.answer import Answer, ErrorBody, LookupRequest, LookupResponse
from schemas.errors import AlmanacError, InputError, Problem, RefusedError, UnavailableError

_encode = msgspec.json.Encoder().encode
_answers = msgspec.json.Decoder(LookupResponse).decode
_error_body = msgspec.json.Decoder(ErrorBody).decode


class HttpWorkers:
    """API workers, asked from any number of threads."""

    def __init__(self, api_key: str | None, timeout_seconds: float, tls: ssl.SSLContext | None) -> None:
        self._client = httpx.Client(**_options(api_key, timeout_seconds, tls))

    def ask(self, ask: Ask) -> list[Answer]:
        try:
            response = self._client.post(**_request(ask))
        except httpx.HTTPError as err:
            raise _not_answered(ask, err) from err
        return _answered(ask, response)

    def close(self) -> None:
        self._client.close()


class AsyncHttpWorkers:
    """API workers, asked from one event loop."""

    def __init__(self, api_key: str | None, timeout_seconds: float, tls: ssl.SSLContext | None) -> None:
        self._client = httpx.AsyncClient(**_options(api_key, timeout_seconds, tls))
        self._timeout_seconds = timeout_seconds

    async def ask(self, ask: Ask) -> list[Answer]:
        try:
            async with asyncio.timeout(self._timeout_seconds):  # httpx bounds each read, not the whole
                response = await self._client.post(**_request(ask))
        except (httpx.HTTPError, TimeoutError) as err:
            raise _not_answered(ask, err) from err
        return _answered(ask, response)

    async def close(self) -> None:
        await self._client.aclose()


def _options(api_key: str | None, timeout_seconds: float, tls: ssl.SSLContext | None) -> dict[str, Any]:
    headers = {"content-type": "application/json"}
    if api_key is not None:
        headers["authorization"] = f"Bearer {api_key}"
    # Workers are asked themselves: a proxy of the environment would see the key, and hide which worker failed.
    return {"headers": headers, "timeout": timeout_seconds, "trust_env": False, "verify": True if tls is None else tls}


def _request(ask: Ask) -> dict[str, Any]:
    query: Mapping[str, int] | None = None if ask.release is None else {"release": ask.release}
    url = f"{ask.worker.rstrip('/')}/v1/{quote(ask.table, safe='')}/lookup"
    return {"url": url, "content": _encode(LookupRequest(list(ask.ids))), "params": query}


def _not_answered(ask: Ask, err: Exception) -> UnavailableError:
    code = "API_TIMEOUT" if isinstance(err, TimeoutError | httpx.TimeoutException) else "API_DOWN"
    found = str(err) or type(err).__name__
    return UnavailableError(Problem(code, _named(ask.worker), found, "a worker that answers in time"))


def _answered(ask: Ask, response: httpx.Response) -> list[Answer]:
    """The answers in a response, or its error: of the class that says what to do, with the code of its body."""
    where, status = _named(ask.worker), response.status_code
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        if status == 200:
            answers = _answers(response.content).answers
            if len(answers) == len(ask.ids):
                return answers
        else:
            body = _error_body(response.content)
            raise _kind(status, body.code)(Problem(body.code, where, body.message))
    raise UnavailableError(Problem("API_REPLY", where, f"status {status} with a body of another kind", "the read API"))


def _kind(status: int, code: str) -> type[AlmanacError]:
    if status in (401, 403, 429):
        return RefusedError
    if status in (408, 502, 503, 504) or code == "INTERNAL":
        return UnavailableError
    return InputError


def _named(worker: str) -> str:
    """The worker without a user and password that its URL may have."""
    return f"worker {urlsplit(worker).netloc.rpartition('@')[2]}"
