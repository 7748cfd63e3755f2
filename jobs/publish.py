"""Publish a verified run: `spark-submit jobs/publish.py --pipeline P --date D`, or plain python.

Prints what it did as one line of JSON; `outcome` is `live`, `already live`, or `archived` where a newer date is served.
"""

import json
import sys

from jobs.arguments import exit_with, given_parameters, job_arguments, parse_date
from jobs.publishing import publisher
from jobs.session import spark_session
from jobs.spreading import in_tasks
from jobs.stages import check_inputs, gate
from jobs.unexpected import check_store
from jobs.watching import watched
from lookup.loader import in_threads
from lookup.store import Store
from schemas.declared import load_pipeline
from schemas.settings import Settings


def main() -> None:
    parser = job_arguments(__doc__ or "")
    parser.add_argument("--force", action="store_true", help="also what was rolled back, or is older than what is live")
    parser.add_argument("--spark", action="store_true", help="load the files in Spark tasks, not in this process")
    arguments = parser.parse_args()
    settings = check_store(Settings.from_environment())
    date = parse_date(arguments.date)
    with watched(settings, arguments.pipeline, "publish", date=date, run_id=arguments.run_id) as watch:
        declared = load_pipeline(settings, arguments.pipeline)
        given = given_parameters(arguments)
        run_id = arguments.run_id or watch.of(check_inputs(settings, declared.name, date, given)).run_id
        store = Store(settings.store, declared.name)
        gate(store.report(run_id), store.override(run_id))
        spread = in_tasks(lambda: spark_session(f"almanac publish {run_id}")) if arguments.spark else in_threads
        published = publisher(settings, declared, spread=spread).publish(run_id, force=arguments.force)
        watch.facts.published = published
    sys.stdout.write(json.dumps(published._asdict()) + "\n")


if __name__ == "__main__":
    exit_with(main)
