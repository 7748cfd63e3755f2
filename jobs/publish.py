"""Publish a verified run: `spark-submit jobs/publish.py --pipeline P --date D`, or plain python."""

from jobs.arguments import exit_with, job_arguments, parse_date
from jobs.stages import gate, planned, publisher
from schemas.settings import Settings


def main() -> None:
    parser = job_arguments(__doc__ or "")
    parser.add_argument("--force", action="store_true", help="also what was rolled back, or is older than what is live")
    arguments = parser.parse_args()
    settings = Settings.from_environment()
    plan = planned(settings, arguments.pipeline, parse_date(arguments.date), arguments.run_id)
    gate(plan.store.report(plan.run_id))
    publisher(settings, plan.declared).publish(plan.run_id, force=arguments.force)


if __name__ == "__main__":
    exit_with(main)
