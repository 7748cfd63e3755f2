"""OpenLineage events of a stage: that it started, and how it ended, with what it read and wrote.

Told only where somebody is to be told, by the variables of OpenLineage's own client (the extra `watch`), which is
imported only then.
"""

import datetime as dt
import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from jobs.facts import Facts

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import Job, Run, RunEvent

_ASKS = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")
_TRANSPORT = "OPENLINEAGE__TRANSPORT__"
_ALIAS = f"{_TRANSPORT}TRANSPORTS__DEFAULT_HTTP__"  # what the client itself makes of OPENLINEAGE_URL
# The client's own would go on for many seconds; a run does not wait for them.
_TIMEOUT_SECONDS, _RETRY = 3.0, {"total": 1, "connect": 1, "read": 1, "backoff_factor": 0.2}


def is_asked_for(environ: Mapping[str, str]) -> bool:
    """Whether OpenLineage's client has somebody to tell."""
    return any(environ.get(name) for name in _ASKS) or _names_transport(environ)


def _names_transport(environ: Mapping[str, str]) -> bool:
    return any(name.startswith(_TRANSPORT) and not name.startswith(_ALIAS) for name in environ)


class Lineage:
    """The events of one stage. What could not be begun is not ended."""

    def __init__(self, facts: Facts, environ: Mapping[str, str] = os.environ) -> None:
        self._facts = facts
        self._environ = environ
        self._client: OpenLineageClient | None = None
        self._run = ""
        self.is_begun: bool | None = None  # False once it was tried, True once somebody was told

    def begin(self) -> None:
        """Tell that the stage started, and what it reads."""
        from openlineage.client.event_v2 import RunState
        from openlineage.client.uuid import generate_new_uuid

        self.is_begun = False
        self._client = _client(self._environ)
        self._run = str(generate_new_uuid(self._facts.started))
        self._tell(RunState.START, self._facts.started)
        self.is_begun = True

    def end(self) -> None:
        """Tell how it ended, and what it read and wrote."""
        from openlineage.client.event_v2 import RunState

        if self.is_begun is None:
            self.begin()
        if not self.is_begun or self._client is None:
            return
        error = self._facts.error
        state = RunState.COMPLETE if error is None else RunState.FAIL if isinstance(error, Exception) else None
        self._tell(state or RunState.ABORT, self._facts.started + dt.timedelta(seconds=self._facts.seconds))
        self._client.close()

    def _tell(self, state: Any, at: dt.datetime) -> None:
        from jobs.lineage_datasets import read_by, written_by

        if self._client is None:
            return
        event = _event(self._facts, state, at, self._run, self._environ.get("OPENLINEAGE_NAMESPACE") or "almanac")
        event.inputs, event.outputs = read_by(self._facts), written_by(self._facts)
        self._client.emit(event)


def _client(environ: Mapping[str, str]) -> "OpenLineageClient":
    """The client that the environment describes.

    Raises:
        ValueError: it describes none.
    """
    from openlineage.client import OpenLineageClient

    url = environ.get("OPENLINEAGE_URL")
    if not url or environ.get("OPENLINEAGE_CONFIG") or _names_transport(environ):
        client = OpenLineageClient()
        # Else it would print each event, for want of a better place.
        if not (url or (client.config.transport or {}).get("type")):
            raise ValueError(f"no transport is declared in {environ.get('OPENLINEAGE_CONFIG') or 'OPENLINEAGE__*'}")
        return client
    from openlineage.client.transport.http import ApiKeyTokenProvider, HttpConfig, HttpTransport

    config = HttpConfig(url=url, timeout=_TIMEOUT_SECONDS, retry=_RETRY)
    config.endpoint = environ.get("OPENLINEAGE_ENDPOINT") or config.endpoint
    if key := environ.get("OPENLINEAGE_API_KEY"):
        config.auth = ApiKeyTokenProvider({"api_key": key})
    return OpenLineageClient(transport=HttpTransport(config))


def _event(facts: Facts, state: Any, at: dt.datetime, run: str, namespace: str) -> "RunEvent":
    from openlineage.client.event_v2 import RunEvent

    return RunEvent(
        eventType=state,
        eventTime=at.isoformat(),
        run=_run(facts, run, namespace),
        job=_job(facts, namespace),
        producer=f"urn:almanac:{_version()}",
    )


def _run(facts: Facts, run: str, namespace: str) -> "Run":
    from openlineage.client import facet_v2
    from openlineage.client.event_v2 import Run

    facets: dict[str, Any] = {}
    if facts.date:
        facets["nominalTime"] = facet_v2.nominal_time_run.NominalTimeRunFacet(f"{facts.date}T00:00:00Z")
    if facts.run_id:
        # The same for all stages, whatever process they are in.
        parent = str(uuid5(NAMESPACE_URL, f"almanac:{facts.settings.store}/{facts.pipeline}/{facts.run_id}"))
        facets["parent"] = facet_v2.parent_run.ParentRunFacet(
            run=facet_v2.parent_run.Run(runId=parent),
            job=facet_v2.parent_run.Job(namespace=namespace, name=facts.pipeline),
        )
        tag = facet_v2.tags_run.TagsRunFacetFields(key="almanac_run_id", value=facts.run_id, source="almanac")
        facets["tags"] = facet_v2.tags_run.TagsRunFacet(tags=[tag])
    if facts.error is not None:
        message = str(facts.error) or type(facts.error).__name__
        facets["errorMessage"] = facet_v2.error_message_run.ErrorMessageRunFacet(message, "python")
    return Run(runId=run, facets=facets)


def _job(facts: Facts, namespace: str) -> "Job":
    from openlineage.client import facet_v2
    from openlineage.client.event_v2 import Job

    kind = facet_v2.job_type_job.JobTypeJobFacet(processingType="BATCH", integration="ALMANAC", jobType="STAGE")
    facets: dict[str, Any] = {"jobType": kind}
    if facts.plan:
        declared = facts.plan.declared
        owner = facet_v2.ownership_job.Owner(name=declared.pipeline.owner)
        facets["ownership"] = facet_v2.ownership_job.OwnershipJobFacet(owners=[owner])
        if facts.stage == "score":
            facets["sql"] = facet_v2.sql_job.SQLJobFacet(query=declared.features_sql, dialect="spark")
    return Job(namespace=namespace, name=f"{facts.pipeline}.{facts.stage}", facets=facets)


def _version() -> str:
    try:
        return version("almanac")
    except PackageNotFoundError:  # sent along as a zip
        return "unknown"
