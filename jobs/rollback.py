"""Make an earlier release the live one again: `python jobs/rollback.py --pipeline P [--to N]`."""

import logging

from jobs.arguments import exit_with, job_arguments
from jobs.publishing import publisher, summary
from jobs.unexpected import check_store
from jobs.watching import watched
from schemas.declared import load_pipeline
from schemas.settings import Settings


def main() -> None:
    parser = job_arguments(__doc__ or "", date=False)
    parser.add_argument("--to", type=int, help="release number; the one before, when left out")
    parser.add_argument("--reason", default="", help="kept in the release log")
    parser.add_argument("--force", action="store_true", help="go also to a release that was rolled back")
    arguments = parser.parse_args()
    settings = check_store(Settings.from_environment())
    with watched(settings, arguments.pipeline, "rollback") as watch:
        watch.facts.published = moved = publisher(settings, load_pipeline(settings, arguments.pipeline)).roll_back(
            to=arguments.to, reason=arguments.reason, force=arguments.force
        )
    logging.getLogger(__name__).info("%s: %s", arguments.pipeline, summary(moved))


if __name__ == "__main__":
    exit_with(main)
