"""Let a blocked run through: `python jobs/override.py --pipeline P --run-id R --check NAME ... --reason WHY`."""

from jobs.arguments import exit_with, job_arguments
from jobs.overriding import override_run
from jobs.paging import write_page
from jobs.unexpected import check_store
from lookup.store import Store
from schemas.declared import load_pipeline
from schemas.settings import Settings


def main() -> None:
    parser = job_arguments(__doc__ or "", date=False)
    parser.add_argument("--run-id", required=True, help="the blocked run")
    parser.add_argument("--check", action="append", required=True, help="a check that failed; each of them")
    parser.add_argument("--reason", required=True, help="why its predictions are right all the same; kept")
    arguments = parser.parse_args()
    settings = check_store(Settings.from_environment())
    store = Store(settings.store, load_pipeline(settings, arguments.pipeline).name)
    override_run(store, arguments.run_id, checks=tuple(arguments.check), reason=arguments.reason)
    write_page(store, store.report(arguments.run_id))


if __name__ == "__main__":
    exit_with(main)
