"""Maintain a pipeline: `python jobs/maintain.py --pipeline P [--dry-run]`.

Prints what it did, or would do, as one line of JSON.
"""

import json
import logging
import sys

from jobs.arguments import exit_with, job_arguments
from jobs.console import Console
from jobs.maintaining import document, upkeep, worst
from jobs.watching import watched
from schemas.settings import Settings


def main() -> None:
    parser = job_arguments(__doc__ or "", date=False)
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and change nothing")
    arguments = parser.parse_args()
    settings = Settings.from_environment()
    with watched(settings, arguments.pipeline, "maintain"):
        done = upkeep(settings, arguments.pipeline, Console(as_json=True), dry_run=arguments.dry_run)
        for note in done.notes:
            logging.getLogger(__name__).warning("%s: %s", done.pipeline, note)
        if done.errors:
            raise worst(done.errors)
    sys.stdout.write(json.dumps(document(done)) + "\n")


if __name__ == "__main__":
    exit_with(main)
