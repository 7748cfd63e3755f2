"""Read a published run back as a service does: `python jobs/smoke.py --pipeline P --date D`."""

import logging

from jobs.arguments import exit_with, job_arguments, parse_date
from jobs.stages import planned, smoke
from schemas.settings import Settings


def main() -> None:
    arguments = job_arguments(__doc__ or "").parse_args()
    settings = Settings.from_environment()
    plan = planned(settings, arguments.pipeline, parse_date(arguments.date), arguments.run_id)
    logging.getLogger(__name__).info("run %s: %d entities read back", plan.run_id, smoke(settings, plan.declared.name, plan.run_id))


if __name__ == "__main__":
    exit_with(main)
