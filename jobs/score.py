"""Stage a run's predictions: `spark-submit jobs/score.py --pipeline P --date D`."""

from jobs.arguments import exit_with, given_parameters, job_arguments, parse_date
from jobs.session import spark_session
from jobs.stages import planned, score
from jobs.unexpected import check_store
from jobs.watching import watched
from schemas.settings import Settings


def main() -> None:
    arguments = job_arguments(__doc__ or "").parse_args()
    settings, name, date = check_store(Settings.from_environment()), arguments.pipeline, parse_date(arguments.date)
    with watched(settings, name, "score", date=date, run_id=arguments.run_id) as watch:
        plan = watch.of(planned(settings, name, date, arguments.run_id, given_parameters(arguments)))
        watch.facts.manifest = score(plan, lambda: spark_session(f"almanac score {plan.run_id}"))


if __name__ == "__main__":
    exit_with(main)
