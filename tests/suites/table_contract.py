"""What every table does, whatever keeps it: one suite, run on each server, on a cluster, and on the one in memory."""

import datetime as dt
from collections.abc import Sequence
from typing import Any, Protocol

import pytest

from lookup.publisher import Outcome, Publisher
from lookup.rows import Row, checksum, rows_in
from lookup.table import Remains
from lookup.versions import Flip
from schemas.answer import Answer
from schemas.errors import InputError, RefusedError, UnavailableError
from schemas.head import ColumnSpec, Head, Layout, Serving
from schemas.keys import bucket_of
from schemas.row import encode_rows
from schemas.run import MANIFEST_FILE
from tests.lookup.given import GivenRows, in_order

OUTPUTS = (ColumnSpec(name="score", type="float64"),)
COLUMNS = (
    *OUTPUTS,
    ColumnSpec(name="model", type="enum", values=("delay-1",)),
    ColumnSpec(name="variant", type="enum", values=("champion",)),
    ColumnSpec(name="status", type="enum", values=("scored", "carried")),
)
SERVING = Serving(key=("carrier", "flight"), segments=(("carrier",),), default={"score": 0.5})
MONDAY, TUESDAY = dt.date(2013, 7, 1), dt.date(2013, 7, 2)
ROWS = 300


class Backend(Protocol):
    """What keeps a table, with nothing in it."""

    def table(self) -> Any:
        """The table `flights`; it finds the rows of a version with `rows_of`."""

    def keep(self, head: Head, rows: GivenRows) -> None:
        """Remember the rows of a version, as the store of the pipeline does."""

    def rows_from(self, rows_of: Any) -> None:
        """Find the rows of versions there instead."""

    def lookup(self, ids: Sequence[str], release: int | None = None) -> tuple[Head, list[Answer]]:
        """What the reader for threads answers; always the same one."""

    def lookup_async(self, ids: Sequence[str], release: int | None = None) -> tuple[Head, list[Answer]]:
        """What the reader for event loops answers; a new one each time."""


def make_head(version: int, layout: Layout, **changed: Any) -> Head:
    given = {
        "format": 2 if layout == "string" else 1, "table": "flights", "release": version, "date": "2013-07-01",
        "version": version, "token": version, "layout": layout, "buckets": 7, "entities": ROWS, "columns": COLUMNS,
        "run_id": f"2013-07-01-{version:012x}", "scored_at": "2013-07-01T04:00:00Z",
    }  # fmt: skip
    return Head(**{**given, **changed})


def row(entity: str, score: float | None, status: str = "scored") -> Row:
    return Row(entity, encode_rows(COLUMNS, [[score], ["delay-1"], ["champion"], [status]])[0])


def make_rows(head: Head, **options: Any) -> GivenRows:
    """Rows whose score is the version."""
    return in_order(head, [row(f"UA:{number}", float(head.version)) for number in range(head.entities)], **options)


def stored(rows: GivenRows) -> str:
    return checksum((each.entity.encode(), each.value) for each in rows)


class TableContract:
    """Runs on the fixtures `backend` and `layout`."""

    @pytest.fixture
    def table(self, backend: Backend) -> Any:
        return backend.table()

    @pytest.fixture
    def make(self, layout: Layout) -> Any:
        return lambda version, **changed: make_head(version, layout, **changed)

    @pytest.fixture
    def load(self, backend: Backend, table: Any) -> Any:
        def load(head: Head, rows: GivenRows | None = None) -> GivenRows:
            given = make_rows(head) if rows is None else rows
            backend.keep(head, given)
            table.load(head, given)
            return given

        return load

    @pytest.fixture
    def publish(self, table: Any, load: Any) -> Any:
        def publish(head: Head, rows: GivenRows | None = None) -> None:
            load(head, rows)
            assert table.flip(head) is Flip.FLIPPED

        return publish

    @pytest.fixture(params=["lookup", "lookup_async"])
    def lookup(self, request: pytest.FixtureRequest, backend: Backend) -> Any:
        return getattr(backend, request.param)

    def test_what_was_never_published_has_no_head_no_version_and_nothing_to_retire(self, table: Any) -> None:
        assert (table.head(), table.versions(), table.retire(keep=1, grace_seconds=0)) == (None, {}, [])

    def test_a_server_that_evicts_nothing_is_taken(self, table: Any) -> None:
        table.preflight()

    def test_loaded_rows_are_there_byte_for_byte_and_nobody_follows_them(
        self, table: Any, load: Any, make: Any
    ) -> None:
        head = make(1)

        rows = load(head)

        assert (table.count(head), table.checksum(head)) == (ROWS, stored(rows))
        assert table.differing(head, rows) == []
        assert (table.versions(), table.head()) == ({1: head}, None)

    def test_rows_in_several_parts_are_the_same_rows(self, table: Any, load: Any, make: Any) -> None:
        head = make(1)
        whole = make_rows(head)
        cuts = [i for i in range(1, ROWS) if len({bucket_of(each.entity, 7) for each in whole[i - 1 : i + 1]}) == 2]

        load(head, make_rows(head, cuts=cuts))

        assert table.checksum(head) == stored(whole)

    def test_to_load_again_changes_nothing(self, table: Any, load: Any, make: Any) -> None:
        head = make(1)
        load(head)

        rows = load(head)

        assert (table.count(head), table.checksum(head), table.versions()) == (ROWS, stored(rows), {1: head})

    def test_a_version_of_no_rows_is_one(self, table: Any, publish: Any, make: Any, lookup: Any) -> None:
        head = make(1, entities=0, buckets=1)

        publish(head, GivenRows([]))

        assert (table.count(head), table.checksum(head)) == (0, checksum([]))
        assert lookup(["UA:1"])[1][0].status == "unknown"

    def test_rows_that_are_others_or_missing_are_told(self, table: Any, load: Any, make: Any) -> None:
        load(make(1))

        assert table.differing(make(1), [row("UA:1", 1.0), row("UA:2", 9.0), row("nope", 1.0)]) == ["UA:2", "nope"]

    def test_ids_that_look_like_numbers_and_values_of_any_length_are_kept_as_they_are(
        self, table: Any, load: Any, make: Any
    ) -> None:
        ids = ["0", "7", "-1", "007", "127", "128", "-4096", "4096", "32768", "-8388609", "2147483648", "1e3", "ä:☃"]
        ids += [str(2**63 - 1), str(-(2**63)), str(2**63), "x" * 63, "x" * 64, "x" * 512]
        values = [b"", b"12", b"\xc0", b"v" * 63, b"v" * 64, b"v" * 5000]
        given = [Row(f"{entity}{'' if i == 0 else i}"[:512], value) for entity in ids for i, value in enumerate(values)]
        once = {each.entity: each for each in given}
        head = make(1, entities=len(once), buckets=3)
        rows = in_order(head, once.values())

        load(head, rows)

        assert (table.count(head), table.checksum(head)) == (len(rows), stored(rows))
        assert table.differing(head, rows) == []

    def test_buckets_over_the_servers_limit_for_compact_hashes_read_the_same(
        self, table: Any, publish: Any, make: Any, lookup: Any
    ) -> None:
        head = make(1, entities=1100, buckets=2)

        publish(head)

        assert table.checksum(head) == stored(make_rows(head))
        assert {answer.outputs["score"] for answer in lookup([f"UA:{n}" for n in range(1000)])[1]} == {1.0}

    @pytest.mark.parametrize("wrong", ["an id twice", "rows out of order"])
    def test_what_could_not_be_served_is_refused_before_a_row_is_sent(self, table: Any, make: Any, wrong: str) -> None:
        rows = list(make_rows(make(1)))
        rows = [*rows[:5], *rows[4:]] if wrong == "an id twice" else [*rows[1:], rows[0]]

        with pytest.raises(InputError, match=rf"flights run 2013-07-01-000000000001: {wrong}.*ROW_ORDER"):
            table.load(make(1), GivenRows(rows))

        assert (table.versions(), table.count(make(1)) if make(1).layout == "bucket" else 0) == ({}, 0)

    def test_a_bucket_in_two_parts_is_refused_before_a_row_is_sent(self, table: Any, make: Any) -> None:
        rows = make_rows(make(1))

        with pytest.raises(InputError, match=r"a bucket in two files.*ROW_ORDER"):
            table.load(make(1), GivenRows(rows, cuts=[1]))

        assert (table.head(), table.versions(), table.unfinished()) == (None, {}, {})

    def test_another_stores_version_is_left_as_it_is(self, table: Any, publish: Any, make: Any) -> None:
        publish(make(1))
        foreign = make(1, token=2, run_id="2013-07-01-ffffffffffff")

        with pytest.raises(RefusedError, match=r"run 2013-07-01-000000000001 of another store.*STORE_FOREIGN"):
            table.load(foreign, GivenRows([row("UA:1", 9.0)]))

        assert table.differing(make(1), make_rows(make(1))) == []

    def test_a_flip_is_made_once(self, table: Any, publish: Any, make: Any) -> None:
        publish(make(1))

        assert (table.flip(make(1)), table.head()) == (Flip.SAME, make(1))

    def test_a_flip_to_a_version_that_is_gone_moves_nothing(self, table: Any, publish: Any, make: Any) -> None:
        assert (table.flip(make(1)), table.head()) == (Flip.GONE, None)
        publish(make(2))

        assert (table.flip(make(3)), table.head()) == (Flip.GONE, make(2))

    def test_an_older_date_is_served_only_where_it_is_allowed(
        self, table: Any, load: Any, publish: Any, make: Any
    ) -> None:
        publish(make(1, date="2013-07-10"))
        older = make(2, date="2013-07-09")
        load(older)

        assert (table.flip(older), table.head()) == (Flip.OLDER, make(1, date="2013-07-10"))
        assert (table.flip(older, allow_older=True), table.head()) == (Flip.FLIPPED, older)

    def test_a_smaller_token_is_fenced_out_of_loading_and_of_flipping(
        self, table: Any, load: Any, publish: Any, make: Any
    ) -> None:
        load(make(1))
        publish(make(2, token=5))

        with pytest.raises(RefusedError, match=r"a head with token 5; expected one below 1.*PUBLISH_FENCED"):
            table.flip(make(1), allow_older=True)
        with pytest.raises(RefusedError, match=r"a head with token 5; expected one below 4.*PUBLISH_FENCED"):
            table.load(make(4), make_rows(make(4)))

        assert table.head() == make(2, token=5)
        assert sorted(table.versions()) == [1, 2]

    def test_the_same_token_is_the_same_publication(self, table: Any, load: Any, publish: Any, make: Any) -> None:
        publish(make(1, token=5))
        load(make(2, token=5))

        assert table.flip(make(2, token=5)) is Flip.FLIPPED

    def test_as_many_versions_are_kept_as_were_asked_for(self, table: Any, publish: Any, make: Any) -> None:
        for version in (1, 2, 3, 4):
            publish(make(version))

        assert table.retire(keep=3, grace_seconds=0) == [1]
        assert sorted(table.versions()) == [2, 3, 4]
        assert (table.count(make(1)), table.count(make(2))) == (0, ROWS)

    def test_a_version_is_kept_for_its_grace_period(self, table: Any, publish: Any, make: Any) -> None:
        publish(make(1))
        publish(make(2))

        assert table.retire(keep=1, grace_seconds=300) == []
        assert table.count(make(1)) == ROWS
        assert table.retire(keep=1, grace_seconds=0) == [1]

    def test_a_version_that_is_live_again_has_not_left(self, table: Any, publish: Any, make: Any) -> None:
        publish(make(1))
        publish(make(2))
        assert table.was_live(1)
        table.flip(make(1, token=3))

        assert not table.was_live(1)
        assert table.retire(keep=1, grace_seconds=0) == [2]
        assert table.count(make(1)) == ROWS

    def test_what_never_was_live_goes_once_its_publisher_is_fenced_out(
        self, table: Any, load: Any, publish: Any, make: Any
    ) -> None:
        load(make(1))
        publish(make(2))
        load(make(3))

        assert table.retire(keep=3, grace_seconds=300) == [1]
        assert sorted(table.versions()) == [2, 3]

    def test_a_version_is_dropped_once_and_never_the_live_one_or_anothers(
        self, table: Any, load: Any, publish: Any, make: Any
    ) -> None:
        publish(make(1))
        load(make(2))

        assert table.drop(make(1)) is False
        assert table.drop(make(2, run_id="2013-07-01-ffffffffffff")) is False
        assert table.drop(make(2)) is True
        assert table.drop(make(2)) is False
        assert (table.count(make(1)), sorted(table.versions())) == (ROWS, [1])

    def test_an_erased_entity_is_in_no_version_and_their_heads_say_so(
        self, backend: Backend, table: Any, publish: Any, make: Any, lookup: Any
    ) -> None:
        publish(make(1))
        publish(make(2))

        assert table.erase("UA:1", lambda head: Remains(head.entities - 1)) == 2

        assert {head.entities for head in (*table.versions().values(), table.head())} == {ROWS - 1}
        assert [lookup(["UA:1"], release)[1][0].status for release in (None, 1, 2)] == ["unknown"] * 3
        assert (table.count(make(1)), table.count(make(2))) == (ROWS - 1, ROWS - 1)

    def test_a_prior_that_the_store_has_no_more_goes_with_the_entity_that_was_its_last(
        self, table: Any, publish: Any, make: Any, lookup: Any
    ) -> None:
        head = make(1, entities=1, serving=SERVING, priors=2)
        priors = {field: encode_rows(OUTPUTS, [[0.125]])[0] for field in ("0:AA", "0:UA")}
        publish(head, in_order(head, [row("UA:1", 0.25)], priors=priors))

        table.erase("UA:1", lambda _: Remains(0, frozenset({"0:AA"})))

        assert [answer.status for answer in lookup(["UA:1", "AA:9"])[1]] == ["default", "prior"]
        assert (table.head().priors, table.is_whole(table.head())) == (1, True)

    def test_before_the_first_publication_a_reader_is_told_so(self, lookup: Any) -> None:
        with pytest.raises(UnavailableError, match=r"no version is published.*NO_VERSION"):
            lookup(["UA:1"])

    def test_a_reader_is_answered_exactly_carried_by_prior_or_by_default_in_its_order(
        self, publish: Any, make: Any, lookup: Any
    ) -> None:
        head = make(1, entities=2, serving=SERVING, priors=1)
        priors = {"0:AA": encode_rows(OUTPUTS, [[0.125]])[0]}
        publish(head, in_order(head, [row("UA:1", 0.25), row("UA:2", None, "carried")], priors=priors))

        served, answers = lookup(["UA:2", "AA:9", "UA:1", "B6:1", "UA:1"])

        assert served == head
        assert [(a.id, a.status, a.outputs, a.segment) for a in answers] == [
            ("UA:2", "carried", {"score": None}, None),
            ("AA:9", "prior", {"score": 0.125}, "carrier"),
            ("UA:1", "exact", {"score": 0.25}, None),
            ("B6:1", "default", {"score": 0.5}, None),
            ("UA:1", "exact", {"score": 0.25}, None),
        ]

    def test_a_reader_follows_each_flip_and_is_answered_from_one_release(
        self, publish: Any, make: Any, lookup: Any
    ) -> None:
        for version in (1, 2, 3):
            publish(make(version))

            head, answers = lookup([f"UA:{number}" for number in range(ROWS)])

            assert head.version == version
            assert {(a.release, a.outputs["score"]) for a in answers} == {(version, float(version))}

    def test_a_release_is_answered_while_it_is_kept(self, table: Any, publish: Any, make: Any, lookup: Any) -> None:
        publish(make(1))
        publish(make(2))
        assert lookup(["UA:1"], 1)[1][0].outputs == {"score": 1.0}
        table.retire(keep=1, grace_seconds=0)

        with pytest.raises(InputError, match=r"flights: release 1: not kept any more; expected one of 2.*RELEASE_GONE"):
            lookup(["UA:1"], 1)
        with pytest.raises(InputError, match=r"flights: release 9: no such release.*RELEASE_UNKNOWN"):
            lookup(["UA:1"], 9)
        assert lookup(["UA:1"], 2)[1][0].release == 2

    def test_releases_are_published_rolled_back_retired_and_restored(
        self, backend: Backend, layout: Layout, staging: Any, lookup: Any
    ) -> None:
        def staged(day: dt.date, score: float) -> str:
            run: str = staging.run(day, {f"UA:{number}": score for number in range(ROWS)})
            file = staging.store.run_folder(run) / MANIFEST_FILE
            file.write_text(staging.store.manifest(run).model_copy(update={"layout": layout}).model_dump_json())
            return run

        def answered() -> tuple[int, set[float]]:
            head, answers = lookup([f"UA:{number}" for number in range(ROWS)])
            return head.release, {answer.outputs["score"] for answer in answers}

        backend.rows_from(rows_in(staging.store))
        table = backend.table()
        publisher = Publisher(staging.store, table, keep=2, grace_seconds=0)
        assert publisher.publish(staged(MONDAY, 1.0)).outcome is Outcome.LIVE
        assert publisher.publish(staged(TUESDAY, 2.0)).outcome is Outcome.LIVE
        assert answered() == (2, {2.0})

        assert publisher.roll_back().release == 1
        assert answered() == (1, {1.0})
        assert len(publisher.publish(staged(TUESDAY, 3.0)).retired) == 1
        assert answered() == (3, {3.0})
        assert publisher.restore().was_whole
        assert table.erase("UA:1", lambda head: Remains(head.entities)) == 2
        assert not publisher.restore().was_whole
        assert answered() == (3, {3.0})
