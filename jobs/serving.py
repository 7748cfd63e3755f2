"""The command that serves the read API."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from jobs.console import Console
from jobs.options import Json
from jobs.unexpected import check_store
from schemas.declared import declared_names, load_pipeline
from schemas.errors import AlmanacError
from schemas.head import Serving
from schemas.serving import serving_of
from schemas.settings import Settings

logger = logging.getLogger(__name__)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8321,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    keys: Annotated[Path | None, typer.Option(help="File of API keys (almanac key); all may read without.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate to serve HTTPS with, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, PEM.")] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="Tell each request on stderr, as JSON.")] = False,
    as_json: Json = False,
) -> None:
    """Serve every declared pipeline's table over HTTP, until Ctrl-C."""
    from lookup.embedded import redis_url
    from lookup.serve import Extras, Listening
    from lookup.serve import serve as serve_tables

    console, settings = Console(as_json=as_json), check_store(Settings.from_environment())
    tables = {name: _serving(settings, name) for name in declared_names(settings)}
    url = redis_url(settings.store, settings.redis_url)

    def announce(address: str) -> None:
        console.line({"url": address, "tables": list(tables)})
        console.say(f"serving {', '.join(tables)} on {address} (Ctrl-C stops it)")

    listening = Listening(host=host, port=port, workers=workers, tls_cert=tls_cert, tls_key=tls_key)
    extras = Extras(keys=keys, misses=settings.store, access_log=access_log)
    serve_tables(url, tables, listening, extras, announce=announce)


def _serving(settings: Settings, name: str) -> Serving:
    try:
        return serving_of(load_pipeline(settings, name).pipeline)
    except AlmanacError as err:  # what is published is served all the same
        logger.error("table '%s' is served without its declared fallback: %s", name, err)
        return Serving()


def down(as_json: Json = False) -> None:
    """Stop the Redis that was started for this store; its data stays."""
    from lookup.embedded import stop

    console = Console(as_json=as_json)
    stopped = stop(check_store(Settings.from_environment()).store)
    console.say("stopped" if stopped else "nothing was running")
    console.result({"stopped": stopped})
