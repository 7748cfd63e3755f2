"""Check a run's inputs and print its run id: `python jobs/check.py --pipeline P --date D`."""

import sys

from jobs.arguments import exit_with, given_parameters, job_arguments, parse_date
from jobs.stages import check_inputs
from jobs.unexpected import check_store
from jobs.watching import watched
from schemas.settings import Settings


def main() -> None:
    arguments = job_arguments(__doc__ or "").parse_args()
    settings, date = check_store(Settings.from_environment()), parse_date(arguments.date)
    with watched(settings, arguments.pipeline, "check_inputs", date=date) as watch:
        plan = watch.of(check_inputs(settings, arguments.pipeline, date, given_parameters(arguments)))
    sys.stdout.write(plan.run_id + "\n")


if __name__ == "__main__":
    exit_with(main)
