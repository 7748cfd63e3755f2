"""Read a published run back as a service does: `python jobs/smoke.py --pipeline P --date D`."""

import logging

from jobs.arguments import exit_with, given_parameters, job_arguments, parse_date
from jobs.publishing import smoke
from jobs.stages import check_inputs
from jobs.unexpected import check_store
from jobs.watching import watched
from schemas.declared import load_pipeline
from schemas.settings import Settings


def main() -> None:
    arguments = job_arguments(__doc__ or "").parse_args()
    settings = check_store(Settings.from_environment())
    date = parse_date(arguments.date)
    with watched(settings, arguments.pipeline, "smoke", date=date, run_id=arguments.run_id) as watch:
        declared = load_pipeline(settings, arguments.pipeline)
        given = given_parameters(arguments)
        run_id = arguments.run_id or watch.of(check_inputs(settings, declared.name, date, given)).run_id
        read = smoke(settings, declared.name, run_id, entities=declared.pipeline.publish.smoke_entities)
        logging.getLogger(__name__).info("run %s: %d entities read back", run_id, read)


if __name__ == "__main__":
    exit_with(main)
