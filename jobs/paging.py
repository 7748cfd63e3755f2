"""The report of a run as a page, made of what is kept of it: when it was verified, and when somebody overrode it."""

from contextlib import suppress

from jobs.measuring import stored_measures
from lookup.store import Store
from schemas.content import write_atomically
from schemas.errors import InputError
from schemas.report import Report
from schemas.run import REPORT_PAGE
from validation.measures import Measures
from validation.report import render_page


def write_page(store: Store, report: Report) -> None:
    """Write `report.html` of the run that the report is of."""
    run_id = report.run_id
    now = _measures(store, run_id)
    before = _measures(store, report.compared_with) if report.compared_with else None
    page = render_page(
        report,
        store.manifest(run_id),
        profile=now.predictions if now else None,
        live=before.predictions if before else None,
        override=store.override(run_id),
    )
    write_atomically(store.run_folder(run_id) / REPORT_PAGE, page)


def _measures(store: Store, run_id: str) -> Measures | None:
    with suppress(InputError):  # it could not be measured, which the report says
        return stored_measures(store.run_folder(run_id))
    return None
