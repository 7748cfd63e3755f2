"""Train the declared model and make its bundle: `spark-submit jobs/train.py --pipeline P`."""

from jobs.arguments import exit_with, job_arguments
from jobs.session import spark_session
from jobs.training import train
from jobs.unexpected import check_store
from schemas.declared import load_pipeline
from schemas.settings import Settings
from schemas.sql import check_sql


def main() -> None:
    arguments = job_arguments(__doc__ or "", date=False).parse_args()
    settings = check_store(Settings.from_environment())
    declared = load_pipeline(settings, arguments.pipeline)
    check_sql(declared)
    train(spark_session(f"almanac train {declared.name}"), settings, declared)


if __name__ == "__main__":
    exit_with(main)
