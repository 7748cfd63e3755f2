"""Where things are: the declared folders, the store and Redis, from the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import DeclarationError, Problem

# The folder is beside this package in a checkout, and inside it in a wheel.
_SPARK_CONF = (Path(__file__).parent.parent / "spark-conf", Path(__file__).parent / "_spark_conf")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The surroundings of every command.

    Attributes:
        pipelines: The folder whose sub-folders are pipelines (`ALMANAC_PIPELINES`, else `dags`).
        store: The root of the Parquet store (`ALMANAC_STORE`, else `.almanac`).
        redis_url: A Redis to publish to (`ALMANAC_REDIS_URL`); None starts one for this store.
        metrics_folder: Where runs leave their metrics for node_exporter (`ALMANAC_METRICS_FOLDER`); None leaves none.
        pushgateway: The URL that runs push their metrics to (`ALMANAC_PUSHGATEWAY`); None pushes none.
    """

    pipelines: Path
    store: Path
    redis_url: str | None = None
    metrics_folder: Path | None = None
    pushgateway: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        return cls(
            pipelines=Path(environ.get("ALMANAC_PIPELINES") or "dags").absolute(),
            store=Path(environ.get("ALMANAC_STORE") or ".almanac").absolute(),
            redis_url=environ.get("ALMANAC_REDIS_URL") or None,
            metrics_folder=Path(folder).absolute() if (folder := environ.get("ALMANAC_METRICS_FOLDER")) else None,
            pushgateway=environ.get("ALMANAC_PUSHGATEWAY") or None,
        )

    @property
    def root(self) -> Path:
        """The folder that holds the declared folders; relative source paths start here."""
        return self.pipelines.parent


def expand(text: str, *, where: str, environ: Mapping[str, str] = os.environ) -> str:
    """`text` with each `${NAME}` or `${NAME:-default}` replaced from the environment.

    Raises:
        DeclarationError: a variable without a default is not set.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = environ.get(name) or default
        if found is None:
            raise DeclarationError(
                Problem("CFG_ENV_UNSET", where, f"${{{name}}} is not set", "the variable, or ${NAME:-default}")
            )
        return found

    return _VARIABLE.sub(value, text)


def spark_conf_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The settings of Spark: `spark-conf/<place>.properties`, or a file of one's own.

    `ALMANAC_SPARK_CONF` holds the place (local, standalone, yarn, kubernetes) or a path with a `/`; else `local`.

    Raises:
        DeclarationError: there is no such file.
    """
    place = environ.get("ALMANAC_SPARK_CONF") or "local"
    candidates = [Path(place)] if "/" in place else [folder / f"{place}.properties" for folder in _SPARK_CONF]
    for path in candidates:
        if path.is_file():
            return path
    expected = "local, standalone, yarn, kubernetes or a path"
    raise DeclarationError(Problem("CFG_SPARK_CONF", "ALMANAC_SPARK_CONF", f"no such settings: {place}", expected))
