"""The hashes that Redis restores, held to those that it makes itself of HSETs: byte for byte, on real servers."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lookup.connect import connect
from lookup.payload import Form, is_compact, payloads, runs
from lookup.rows import Chunk
from schemas.keys import id_problem
from tests.redis_servers import programs, running

PROGRAMS = programs()
_NUMBERS = st.integers(-(2**64), 2**64)
_IDS = (
    st.sampled_from(["0", "-0", "00", "007", "+1", "1e3", "-1", "-", " 1", "1 ", "0x1", "\uff11"])
    | _NUMBERS.map(str)
    | _NUMBERS.map(lambda number: f"0{number}")
    | st.integers(-5000, 5000).map(str)
    | st.text(min_size=1, max_size=21)
).filter(lambda text: id_problem(text) is None and len(text.encode()) <= 63)
_VALUES = st.binary(max_size=63) | _NUMBERS.map(lambda number: str(number).encode())
_BUCKET = st.dictionaries(_IDS, _VALUES, min_size=1, max_size=40)
_EDGES = [
    str(sign * 2**power + step)
    for power in (7, 12, 13, 15, 16, 23, 24, 31, 32, 63, 64)
    for sign in (1, -1)
    for step in (-1, 0, 1)
]


@pytest.fixture(scope="module", params=sorted(PROGRAMS))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with ExitStack() as stack:
        folder: Path = tmp_path_factory.mktemp("server") / "data"
        node = stack.enter_context(running(PROGRAMS[request.param], folder, "--rdbcompression", "no"))
        yield stack.enter_context(connect(node.url))  # type: ignore[arg-type]  # not a cluster


@pytest.fixture(scope="module")
def form(server: redis.Redis) -> Form:
    """What the server keeps compact hashes as."""
    server.flushall()
    server.hset("one", "field", "value")
    return server.object("ENCODING", "one").decode()  # type: ignore[no-any-return,union-attr]


def _chunk(buckets: list[dict[str, bytes]]) -> tuple[Chunk, Any]:
    ids = [entity.encode() for bucket in buckets for entity in bucket]
    values = [value for bucket in buckets for value in bucket.values()]
    chunk = Chunk(pa.array(ids, pa.binary()), pa.array(values, pa.binary()))
    return chunk, np.repeat(np.arange(len(buckets)), [len(bucket) for bucket in buckets])


@settings(max_examples=60, deadline=None)
@given(buckets=st.lists(_BUCKET, min_size=1, max_size=4))
@example(buckets=[dict.fromkeys(_EDGES, b"")])
@example(buckets=[{str(number): b"12"} for number in (0, 127, 128, -1, 4095, -4096, 4096)])
@example(buckets=[{"x" * 63: b"v" * 63, "y": b""}])
@example(buckets=[{f"UA:{number}": bytes(12) for number in range(512)}])
def test_a_restored_bucket_is_the_one_that_hset_makes(
    server: redis.Redis, form: Form, buckets: list[dict[str, bytes]]
) -> None:
    server.flushall()
    made = payloads(*_chunk(buckets), form)
    for number, payload in zip(made.buckets.tolist(), made.bytes.to_pylist(), strict=True):
        server.restore(f"ours:{number}", 0, payload)
        server.hset(f"theirs:{number}", mapping={id_.encode(): value for id_, value in buckets[number].items()})

    assert made.buckets.tolist() == list(range(len(buckets)))
    for number, bucket in enumerate(buckets):
        ours, theirs = f"ours:{number}", f"theirs:{number}"
        assert server.hgetall(ours) == {entity.encode(): value for entity, value in bucket.items()}
        assert [server.hget(ours, entity) for entity in bucket] == list(bucket.values())
        assert server.object("ENCODING", ours) == server.object("ENCODING", theirs) == form.encode()
        # Integers are text in our ziplists, and so are values in our listpacks: the server finds them all the same.
        if form == "listpack" and not any(_is_number(value) for value in bucket.values()):
            assert server.dump(ours) == server.dump(theirs)


def _is_number(value: bytes) -> bool:
    return value.strip(b"-0123456789") == b"" and value != b""


@settings(max_examples=25, deadline=None)
@given(bucket=_BUCKET, more=st.text(alphabet="xyz", min_size=1, max_size=5))
def test_a_restored_bucket_can_be_changed_and_grow_out_of_its_form(
    server: redis.Redis, form: Form, bucket: dict[str, bytes], more: str
) -> None:
    server.flushall()
    (payload,) = payloads(*_chunk([bucket]), form).bytes.to_pylist()
    server.restore("ours", 0, payload)
    first = next(iter(bucket))

    server.hset("ours", first, b"changed")
    server.hset("ours", f"new:{more}", b"v" * 65)

    assert server.object("ENCODING", "ours") == b"hashtable"
    wanted = {entity.encode(): value for entity, value in bucket.items()}
    assert server.hgetall("ours") == {**wanted, first.encode(): b"changed", f"new:{more}".encode(): b"v" * 65}


def test_a_payload_that_was_changed_on_its_way_is_refused_by_the_server(server: redis.Redis, form: Form) -> None:
    (payload,) = payloads(*_chunk([{"UA:1": b"\x91\x01"}]), form).bytes.to_pylist()

    for position in range(len(payload)):
        changed = bytearray(payload)
        changed[position] ^= 1
        with pytest.raises(redis.ResponseError, match=r"(?i)bad data format|payload version or checksum"):
            server.restore("changed", 0, bytes(changed))


def test_which_buckets_are_compact() -> None:
    sizes = [
        ({"UA:1": b"1"}, True),
        ({"x" * 63: b"v" * 63}, True),
        ({"x" * 64: b"1"}, False),
        ({"UA:1": b"v" * 64}, False),
        ({f"UA:{number}": b"1" for number in range(512)}, True),
        ({f"UA:{number}": b"1" for number in range(513)}, False),
    ]
    chunk, buckets = _chunk([bucket for bucket, _ in sizes])

    assert is_compact(chunk, runs(buckets)).tolist() == [wanted for _, wanted in sizes]


def test_no_rows_are_no_buckets() -> None:
    chunk, _ = _chunk([])

    assert runs(np.array([], np.int64)).tolist() == [0]
    assert is_compact(chunk, np.zeros(1, np.int64)).tolist() == []


@given(st.lists(st.integers(0, 9)).map(sorted))
def test_runs_are_cut_where_the_bucket_changes(buckets: list[int]) -> None:
    found = runs(np.array(buckets, np.int64)).tolist()

    pieces = [buckets[start:end] for start, end in pairwise(found)]
    assert [set(piece) for piece in pieces] == [{bucket} for bucket in sorted(set(buckets))]
    assert sum(map(len, pieces)) == len(buckets)
