"""Train the declared model and make its bundle: `spark-submit jobs/train.py --pipeline P`."""

from jobs.arguments import add_parameters, exit_with, given_parameters, job_arguments
from jobs.session import spark_session
from jobs.training import train
from jobs.unexpected import check_store
from schemas.binding import bound
from schemas.declared import load_pipeline
from schemas.settings import Settings
from schemas.sql import check_sql


def main() -> None:
    parser = job_arguments(__doc__ or "", date=False)
    add_parameters(parser)
    arguments = parser.parse_args()
    settings = check_store(Settings.from_environment())
    declared = load_pipeline(settings, arguments.pipeline)
    check_sql(declared)
    given = bound(declared, given_parameters(arguments))
    train(spark_session(f"almanac train {declared.name}"), settings, given)


if __name__ == "__main__":
    exit_with(main)
