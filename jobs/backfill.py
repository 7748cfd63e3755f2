"""Fill in past dates: `spark-submit jobs/backfill.py --pipeline P --from D --to D`.

What is live is left alone, unless --publish-latest is given. Killed and started again, it goes on where it was.
"""

import argparse
import logging
import sys

from jobs.arguments import add_parameters, exit_with, given_parameters
from jobs.backfilling import Wanted
from jobs.console import Console
from jobs.filling import MODEL_HELP, date_range, fill
from jobs.unexpected import check_store
from schemas.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--pipeline", required=True, help="name of the declared pipeline")
    parser.add_argument("--from", required=True, dest="start", metavar="DATE", help="the first logical date")
    parser.add_argument("--to", required=True, dest="end", metavar="DATE", help="the last one")
    parser.add_argument("--model", default="declared", help=MODEL_HELP)
    parser.add_argument(
        "--publish-latest", action="store_true", help="make the newest of these dates live; else none is"
    )
    parser.add_argument("--dry-run", action="store_true", help="tell what would be scored, and why")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, the last of standard output")
    add_parameters(parser)
    given = parser.parse_args()
    if sys.stderr.isatty():
        logging.getLogger().setLevel(logging.WARNING)  # the progress bar tells
    first, last = date_range(given.start, given.end)
    wanted = Wanted(
        pipeline=given.pipeline,
        start=first,
        end=last,
        model=given.model,
        publish_latest=given.publish_latest,
        dry_run=given.dry_run,
        parameters=given_parameters(given),
    )
    console = Console(as_json=given.json)
    ended = fill(check_store(Settings.from_environment()), wanted, console)
    console.line(ended.document)
    sys.exit(ended.exit_code)


if __name__ == "__main__":
    exit_with(main)
