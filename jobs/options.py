"""Arguments and options that several commands take."""

from typing import Annotated

import typer

PipelineName = Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of a declared pipeline.")]
Param = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A declared parameter; once for each.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
