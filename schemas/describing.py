"""A pipeline as a page for people, from its declaration: what Airflow shows beside its DAG."""

from schemas.pipeline import Pipeline

_PARAMS = """
**A run by hand** takes `date` (another logical date), `dry_run` (score and verify, publish nothing), and, to let a
blocked run pass, `override_checks` (the name of every check that failed) with `override_reason`.
"""


def described(pipeline: Pipeline) -> str:
    """Markdown of what a pipeline is, who answers for it, and when it runs."""
    airflow, freshness = pipeline.airflow, pipeline.freshness
    begins = [f"on the schedule `{pipeline.schedule}`"] if pipeline.schedule else []
    begins += [f"when the asset `{asset}` of {source} is updated" for source, asset in airflow.assets.items()]
    begins += [f"when `{name}` has published" for name in airflow.after]
    given = ", ".join(f"`{name}` ({one.expected})" for name, one in pipeline.parameters.items())
    facts = {
        "owner": pipeline.owner,
        "runs": ", ".join(begins) or "by hand only",
        "entity": f"{':'.join(pipeline.entity.key)} of {pipeline.entity.source}",
        "reads": ", ".join(f"{name} (`{source.path}`)" for name, source in pipeline.sources.items()),
        "model": pipeline.models.champion.bundle,
        "deadline": f"{airflow.deadline_minutes:g} minutes" if airflow.deadline_minutes else "none",
        "stale after": f"{freshness.stale_after_hours:g} hours" if freshness.stale_after_hours else "never",
    }
    if given:
        facts["parameters"] = given
    rows = [f"| {name} | {value.replace('|', '&#124;')} |" for name, value in facts.items()]
    return "\n".join([f"## {pipeline.pipeline}", "", pipeline.description, "", "| | |", "|---|---|", *rows, _PARAMS])
