"""A wrong declaration gets one clear problem that says where, and nothing is written."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.declared import load_pipeline, pipeline_folders, read_folder
from schemas.errors import DeclarationError
from schemas.settings import Settings
from schemas.sql import check_sql

FLIGHTS = Path(__file__).parent.parent.parent / "dags" / "flight_delay"
PIPELINE, SUITES, SQL = "pipeline.yaml", "expectations.yaml", "features.sql"
KEY = "key: [carrier, flight, origin, date]"
SPLIT = "split: {by: date, at: 2013-07-01}"
RANGE = "{min_value: 500, max_value: 20000}"

Mutation = Callable[[Path], int | None]


def swap(old: str, new: str, file: str = PIPELINE) -> Mutation:
    """Replace the first `old` of a file, which must be there; the mutation returns its line."""

    def mutate(folder: Path) -> int:
        before, found, after = (folder / file).read_text().partition(old)
        assert found
        (folder / file).write_text(before + new + after)
        return before.count("\n") + 1

    return mutate


def whole(content: bytes, file: str = PIPELINE) -> Mutation:
    def mutate(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return mutate


def gone(file: str) -> Mutation:
    return lambda folder: (folder / file).unlink()


def is_folder(file: str) -> Mutation:
    def mutate(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return mutate


BAD: dict[str, tuple[Mutation, str, str]] = {
    # The files
    "no pipeline.yaml": (gone(PIPELINE), "CFG_NOT_FOUND", r"^flight_delay/pipeline\.yaml: no such file"),
    "no expectations.yaml": (gone(SUITES), "CFG_NOT_FOUND", r"^flight_delay/expectations\.yaml: no such file"),
    "no features.sql": (gone(SQL), "CFG_NOT_FOUND", r"^flight_delay/features\.sql: no such file"),
    "a folder as features.sql": (
        is_folder(SQL),
        "CFG_PERMISSION",
        r"^flight_delay/features\.sql: cannot be read: Is a",
    ),
    "empty": (whole(b""), "CFG_EMPTY", r"^flight_delay/pipeline\.yaml: the file is empty"),
    "only a comment": (whole(b"# later\n"), "CFG_EMPTY", r"^flight_delay/pipeline\.yaml: the file is empty"),
    "empty SQL": (whole(b" \n", SQL), "CFG_EMPTY", r"^flight_delay/features\.sql: the file is empty"),
    "not YAML": (whole(b"pipeline: [a"), "CFG_SYNTAX", r"^flight_delay/pipeline\.yaml:1:13: .*<stream end>"),
    "a tab": (
        whole(b"entity:\n\tkey: a\n"),
        "CFG_SYNTAX",
        r"^flight_delay/pipeline\.yaml:2:1: .*cannot start any token",
    ),
    "two documents": (swap("owner:", "---\nowner:"), "CFG_SYNTAX", r"^flight_delay/pipeline\.yaml:LINE:1: .*document"),
    "a control character": (whole(b"a: 1\nb: \x07"), "CFG_SYNTAX", r"^flight_delay/pipeline\.yaml:2: the character"),
    "a Python object": (whole(b"a: !!python/name:os.system x"), "CFG_SYNTAX", r"yaml:1:4: .*python/name:os\.system"),
    "text": (whole(b"pipeline"), "CFG_TYPE", r"^flight_delay/pipeline\.yaml:1: found str; expected a mapping"),
    "a list": (whole(b"- pipeline"), "CFG_TYPE", r"^flight_delay/pipeline\.yaml:1: found list; expected a mapping"),
    "not UTF-8": (whole(b"owner: M\xfcller"), "CFG_ENCODING", r"^flight_delay/pipeline\.yaml: byte 8 is not UTF-8"),
    "UTF-16": (
        whole("owner: a".encode("utf-16")),
        "CFG_ENCODING",
        r"^flight_delay/pipeline\.yaml: byte 0 is not UTF-8",
    ),
    "SQL not UTF-8": (whole(b"SELECT '\xff'", SQL), "CFG_ENCODING", r"^flight_delay/features\.sql: byte 8 is not"),
    "over 256 KiB": (whole(b"#" * 262_145), "CFG_TOO_LARGE", r"yaml: 262145 bytes; expected at most 262144"),
    "5,000 levels of [": (whole(b"a: " + b"[" * 5000), "CFG_TOO_DEEP", r"yaml: nested too deeply"),
    "5,000 levels of - ": (whole(b"- " * 5000 + b"a"), "CFG_TOO_DEEP", r"yaml: nested too deeply"),
    "33 levels": (
        whole(b"a: " + b"[" * 33 + b"]" * 33),
        "CFG_TOO_DEEP",
        r"yaml:1: nested too deeply; expected at most 32",
    ),
    # Keys
    "duplicate key": (
        swap("owner:", "owner: x\nowner:"),
        "CFG_DUPLICATE_KEY",
        r"yaml:\d+: owner: 'owner' a second time",
    ),
    "alias": (swap("[demo, flights]", "[&a demo, *a]"), "CFG_ALIAS", r"yaml:LINE: tags\.\d: an alias"),
    "merge key": (swap("owner:", "<<: {a: b}\nowner:"), "CFG_UNKNOWN_KEY", r"yaml:LINE: <<: unknown key"),
    "key that is a number": (swap("owner:", "1: 2\nowner:"), "CFG_TYPE", r"yaml:LINE: a key that is not text: 1"),
    "key that is a list": (swap("owner:", "[a]: 2\nowner:"), "CFG_TYPE", r"yaml:LINE: a key of several parts"),
    "misspelt key": (
        swap("bundle: latest", "bundel: latest"),
        "CFG_UNKNOWN_KEY",
        r"^flight_delay/pipeline\.yaml:LINE: models\.champion\.bundel: unknown key; did you mean 'bundle'\?",
    ),
    "key from nowhere": (
        swap("keep: 3", "xyzzy: 3"),
        "CFG_UNKNOWN_KEY",
        r"publish\.xyzzy: unknown key; expected one of layout",
    ),
    "misspelt key in a list": (swap("check: dep", "chek: dep"), "CFG_UNKNOWN_KEY", r":LINE: rules\.0\.chek: .*'check'"),
    "misspelt key of a suite": (
        swap("severity", "severty", SUITES),
        "CFG_UNKNOWN_KEY",
        r"inputs\.3\.severty: .*'severity'",
    ),
    # Values
    "text for a number": (swap("rounds: 300", "rounds: many"), "CFG_TYPE", r":LINE: training\.rounds: found 'many'"),
    "0300 is text": (swap("rounds: 300", "rounds: 0300"), "CFG_TYPE", r":LINE: training\.rounds: found '0300'"),
    "1_000 is text": (swap("rounds: 300", "rounds: 1_000"), "CFG_TYPE", r":LINE: training\.rounds: found '1_000'"),
    "12:30 is text": (swap("rounds: 300", "rounds: 12:30"), "CFG_TYPE", r":LINE: training\.rounds: found '12:30'"),
    "a fraction for an integer": (
        swap("rounds: 300", "rounds: 3.5"),
        "CFG_TYPE",
        r":LINE: training\.rounds: found 3\.5",
    ),
    "5,000 digits": (
        swap("rounds: 300", "rounds: " + "9" * 5000),
        "CFG_SYNTAX",
        r"^flight_delay/pipeline\.yaml:LINE:11: ",
    ),
    "a number for text": (
        swap("owner: flight-operations", "owner: 12"),
        "CFG_TYPE",
        r":LINE: owner: found 12; .*string",
    ),
    "nothing for text": (swap("owner: flight-operations", "owner:"), "CFG_TYPE", r":LINE: owner: found None; .*string"),
    "NaN": (swap("max_quarantined: 0.01", "max_quarantined: NaN"), "CFG_TYPE", r"checks\.max_quarantined: found 'NaN'"),
    ".inf": (
        swap("max_quarantined: 0.01", "max_quarantined: .inf"),
        "CFG_TYPE",
        r"checks\.max_quarantined: found '\.inf'",
    ),
    "1e999": (
        swap("fail: 0.5", "fail: 1e999"),
        "CFG_NOT_FINITE",
        r":LINE: checks\.drift\.live\.scores\.fail: 1e999; expected a finite",
    ),
    "1e999 in a suite": (
        swap("500", "1e999", SUITES),
        "CFG_NOT_FINITE",
        r"\.yaml:LINE: inputs\.0\.kwargs\.min_value: 1e999",
    ),
    "out of range": (
        swap("max_quarantined: 0.01", "max_quarantined: 1.5"),
        "CFG_RANGE",
        r":LINE: checks\.max_q.* found 1\.5",
    ),
    "less than nothing": (
        swap("keep: 3", "keep: -3"),
        "CFG_RANGE",
        r"publish\.keep: found -3; .*greater than or equal to 2",
    ),
    "no such day": (
        swap("start: 2013-07-01", "start: 2013-02-30"),
        "CFG_SYNTAX",
        r":LINE:8: day is out of range for month",
    ),
    "a day in quotes": (
        swap("start: 2013-07-01", 'start: "2013-07-01"'),
        "CFG_TYPE",
        r":LINE: start: found '2013-07-01'",
    ),
    "a day with a time": (swap("start: 2013-07-01", "start: 2013-07-01T00:00:00"), "CFG_TYPE", r":LINE: start: found"),
    "a list as a parameter": (
        swap("num_leaves: 63", "num_leaves: [63]"),
        "CFG_INVALID",
        r":LINE: training\.params\.num_leaves: found \[63\]; expected text, a number, true or false",
    ),
    "a seed past 2^31": (
        swap("rounds: 300", "seed: 2147483648"),
        "CFG_RANGE",
        r":LINE: training\.seed: found 2147483648",
    ),
    # Suites
    "min above max": (
        swap(RANGE, "{min_value: 20000, max_value: 500}", SUITES),
        "CFG_INVALID",
        r"^flight_delay/expectations\.yaml:\d+: inputs\.0: min_value 20000 is above max_value 500",
    ),
    "an empty suite": (
        whole(b"inputs: []\npredictions: [{type: expect_x}]", SUITES),
        "CFG_RANGE",
        r"yaml:1: inputs: found \[\]",
    ),
    "no suite": (whole(b"inputs: [{type: expect_x}]", SUITES), "CFG_MISSING_KEY", r"yaml:1: predictions: is missing"),
    "not an expectation's name": (
        swap("expect_table", "Expect table", SUITES),
        "CFG_RANGE",
        r":LINE: inputs\.0\.type: found 'Exp",
    ),
    # What belongs together
    "unknown entity source": (
        swap("source: flights", "source: flight"),
        "CFG_INVALID",
        r":LINE: entity\.source: 'flight' is not",
    ),
    "no key": (swap(f"  {KEY}", "  # no key"), "CFG_MISSING_KEY", r":\d+: entity\.key: is missing"),
    "an empty key": (swap(KEY, "key: []"), "CFG_RANGE", r":LINE: entity\.key: found \[\]; .*at least 1"),
    "a key that is no column": (
        swap(KEY, "key: [carrier, flug]"),
        "CFG_INVALID",
        r":LINE: entity\.key: flug is not a column",
    ),
    "a key column twice": (
        swap(KEY, "key: [carrier, carrier]"),
        "CFG_INVALID",
        r":LINE: entity\.key: declared twice: carrier",
    ),
    "a forbidden key": (
        swap("forbidden: [", "forbidden: [Carrier, "),
        "CFG_INVALID",
        r":\d+: entity\.key: key .*: carrier",
    ),
    "a feature twice": (
        swap("categorical: [carrier,", "categorical: [TEMP,"),
        "CFG_INVALID",
        r"features: declared twice: temp",
    ),
    "warn above fail": (
        swap("fail: 0.5", "fail: 0.05"),
        "CFG_INVALID",
        r":LINE: checks\.drift\.live\.scores: warn 0\.1 is above fail 0\.05",
    ),
    "a split of two kinds": (
        swap("at: 2013-07-01}", "at: 2013-07-01, holdout_share: 0.2}"),
        "CFG_INVALID",
        r":LINE: training\.split",
    ),
    "half a split": (swap(SPLIT, "split: {by: date}"), "CFG_INVALID", r":LINE: training\.split: declare either"),
    "start after end": (
        swap("end: 2013-07-31", "end: 2012-07-31"),
        "CFG_INVALID",
        r"training: start 2013-01-01 is after",
    ),
    "a window that no source has": (
        swap("  start: 2013-01-01\n  end: 2013-07-31\n", ""),
        "CFG_INVALID",
        r"training\.start: start and end go with a partitioned entity source",
    ),
    "another name": (
        swap("pipeline: flight_delay", "pipeline: delays"),
        "CFG_NAME",
        r":LINE: pipeline: 'delays'; .*'flight_delay'",
    ),
    "CSV with partitions": (
        swap("days: 7", "format: csv\n    days: 7"),
        "CFG_INVALID",
        r"sources\.flights: a CSV source is one",
    ),
    "more days needed than read": (
        swap("required_days: 1", "required_days: 8"),
        "CFG_INVALID",
        r"required_days 8 is more than",
    ),
    "an unknown slice": (
        swap("[origin, carrier]", "[origin, carier]"),
        "CFG_INVALID",
        r":LINE: checks\.slices\.columns: carier is",
    ),
    "floors of the other objective": (
        swap("{auc: 0.74}", "{r2: 0.74}"),
        "CFG_INVALID",
        r"training: a binary .* no metric r2",
    ),
    "an unknown floor": (swap("{auc: 0.74}", "{auk: 0.74}"), "CFG_RANGE", r":LINE: training\.floors\.auk: found 'auk'"),
    "a rule twice": (
        swap("rules:\n", "rules:\n  - {name: leaves_at_a_real_time, check: a}\n"),
        "CFG_INVALID",
        r": rules: declared twice",
    ),
    "SQL outside the folder": (
        swap("sql: features.sql", "sql: ../features.sql"),
        "CFG_INVALID",
        r":LINE: features\.sql: '\.\./feat",
    ),
    "SQL with a line break": (
        swap("sql: features.sql", 'sql: "features.sql\\n"'),
        "CFG_INVALID",
        r":LINE: features\.sql: ",
    ),
    "suites outside the folder": (
        swap("checks:\n", "checks:\n  expectations: /etc/x.yaml\n"),
        "CFG_INVALID",
        r":\d+: checks\.expectations: '/etc/x\.yaml' must be the name",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FLIGHTS, tmp_path / "dags" / "flight_delay"))


def everything_under(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("fault", BAD)
def test_one_fault_is_one_problem_that_says_where(fault: str, folder: Path, tmp_path: Path) -> None:
    mutate, code, message = BAD[fault]
    line = mutate(folder)
    before = everything_under(tmp_path)
    with pytest.raises(DeclarationError) as caught:
        check_sql(read_folder(folder))
    (problem,) = caught.value.problems
    assert problem.code == code
    assert re.search(message.replace("LINE", str(line)), str(problem)), str(problem)
    assert "\n" not in str(problem)
    assert everything_under(tmp_path) == before


def test_the_declared_folder_itself_is_sound(folder: Path) -> None:
    declared = read_folder(folder)
    check_sql(declared)
    assert declared.name == "flight_delay"


def test_several_faults_are_told_at_once(folder: Path) -> None:
    swap("rounds: 300", "rounds: many")(folder)
    swap("keep: 3", "kep: 3")(folder)
    swap("owner: flight-operations", "owner: 12")(folder)
    with pytest.raises(DeclarationError) as caught:
        read_folder(folder)
    assert {problem.where.split(": ")[1] for problem in caught.value.problems} == {
        "owner",
        "training.rounds",
        "publish.kep",
    }


@pytest.mark.parametrize("text", ["no", "12:30", "0012", "1_000", "yes", "=", "0x1F", "1e3x"])
def test_what_looks_like_text_stays_text(text: str, folder: Path) -> None:
    swap("owner: flight-operations", f"owner: {text}")(folder)
    assert read_folder(folder).pipeline.owner == text


def test_what_says_the_default_does_not_change_the_digest(folder: Path) -> None:
    digest = read_folder(folder).digest
    swap("    days: 7 #", "    format: parquet\n    days: 7 #")(folder)
    swap("  grace_seconds: 300", "  grace_seconds: 300\n  smoke_entities: 20")(folder)
    assert read_folder(folder).digest == digest


def test_a_byte_order_mark_and_comments_do_not_change_the_digest(folder: Path) -> None:
    digest = read_folder(folder).digest
    for file in (PIPELINE, SUITES):
        (folder / file).write_bytes(b"\xef\xbb\xbf# a comment\n" + (folder / file).read_bytes())
    assert read_folder(folder).digest == digest


@pytest.mark.parametrize(
    "mutate",
    [
        swap("max_quarantined: 0.01", "max_quarantined: 0.02"),
        swap("SELECT", "SELECT ", SQL),
        swap("mostly: 0.7", "mostly: 0.8", SUITES),
    ],
)
def test_whatever_is_declared_changes_the_digest(mutate: Mutation, folder: Path) -> None:
    digest = read_folder(folder).digest
    mutate(folder)
    assert read_folder(folder).digest != digest


def test_an_unknown_pipeline_is_answered_with_the_nearest(folder: Path, tmp_path: Path) -> None:
    settings = Settings(pipelines=folder.parent, store=tmp_path / "store")
    with pytest.raises(DeclarationError, match=r"pipeline 'flight_dely': not declared; did you mean 'flight_delay'\?"):
        load_pipeline(settings, "flight_dely")


def test_no_pipelines_at_all_say_where_one_would_be(tmp_path: Path) -> None:
    settings = Settings(pipelines=tmp_path / "dags", store=tmp_path / "store")
    assert pipeline_folders(settings) == []
    with pytest.raises(DeclarationError, match=r"expected a pipeline in .*/dags/<name>/pipeline\.yaml; there is none"):
        load_pipeline(settings, "churn")
