"""Stage a run's predictions: `spark-submit jobs/score.py --pipeline P --date D`."""

from dataclasses import replace

from jobs.arguments import exit_with, given_parameters, job_arguments, parse_date
from jobs.session import spark_session
from jobs.stages import planned, score
from jobs.unexpected import check_store
from jobs.watching import watched
from schemas.settings import Settings


def main() -> None:
    parser = job_arguments(__doc__ or "")
    parser.add_argument("--full", action="store_true", help="score also rows that models.reuse would not")
    arguments = parser.parse_args()
    settings, name, date = check_store(Settings.from_environment()), arguments.pipeline, parse_date(arguments.date)
    with watched(settings, name, "score", date=date, run_id=arguments.run_id) as watch:
        plan = watch.of(planned(settings, name, date, arguments.run_id, given_parameters(arguments)))
        plan = replace(plan, full=arguments.full)
        watch.facts.manifest = score(plan, lambda: spark_session(f"almanac score {plan.run_id}"))


if __name__ == "__main__":
    exit_with(main)
