"""Verify a staged run and write its report: `spark-submit jobs/verify.py --pipeline P --date D`.

Exits 0 whatever the verdict, so that the report outlives the stage: the gate reads it. `--gate` exits 3 on FAIL.
"""

from functools import cache

from jobs.arguments import exit_with, given_parameters, job_arguments, parse_date
from jobs.session import spark_session
from jobs.stages import gate, planned
from jobs.unexpected import check_store
from jobs.verification import verify
from jobs.watching import watched
from schemas.settings import Settings


def main() -> None:
    parser = job_arguments(__doc__ or "")
    parser.add_argument("--gate", action="store_true", help="exit 3 where the verdict is FAIL")
    arguments = parser.parse_args()
    settings, name, date = check_store(Settings.from_environment()), arguments.pipeline, parse_date(arguments.date)
    with watched(settings, name, "verify", date=date, run_id=arguments.run_id) as watch:
        plan = watch.of(planned(settings, name, date, arguments.run_id, given_parameters(arguments)))
        spark = cache(lambda: spark_session(f"almanac verify {plan.run_id}"))
        watch.facts.report = report = verify(plan, plan.store.manifest(plan.run_id), spark)
    if arguments.gate:
        with watched(settings, name, "gate", date=date, plan=plan):
            gate(report, plan.store.override(plan.run_id))


if __name__ == "__main__":
    exit_with(main)
