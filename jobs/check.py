"""Check a run's inputs and print its run id: `python jobs/check.py --pipeline P --date D`."""

import sys

from jobs.arguments import exit_with, job_arguments, parse_date
from jobs.stages import check_inputs
from schemas.settings import Settings


def main() -> None:
    arguments = job_arguments(__doc__ or "").parse_args()
    plan = check_inputs(Settings.from_environment(), arguments.pipeline, parse_date(arguments.date))
    sys.stdout.write(plan.run_id + "\n")


if __name__ == "__main__":
    exit_with(main)
