"""Small tables for readers in any language: the commands that make them, what to ask, and what must be answered."""

import json
from typing import Any

from schemas.head import ColumnSpec, Head, Serving
from schemas.keys import bucket_key, bucket_of, entity_id, head_key, prior_field, priors_key, row_key
from schemas.row import encode_rows

TABLE = "flights"
_OUTPUTS = (
    ColumnSpec(name="score", type="float64"),
    ColumnSpec(name="weight", type="float32"),
    ColumnSpec(name="rank", type="int64"),
    ColumnSpec(name="reason", type="string"),
)
_ROUTE = (
    ColumnSpec(name="model", type="enum", values=("delay-1", "delay-2")),
    ColumnSpec(name="variant", type="enum", values=("champion",)),
    ColumnSpec(name="status", type="enum", values=("scored",)),
)
_SERVING = Serving(
    key=("carrier", "origin"),
    segments=(("carrier",), ("origin",)),
    default={"score": 0.5, "weight": 0.5, "rank": 0.0},
)
_Rows = dict[str, tuple[Any, ...]]
_ROWS: _Rows = {
    "UA:EWR": (0.25, 0.5, 7, "late", "delay-1"),
    "AA:JFK": (-1.5, None, -(2**53) - 1, "", "delay-2"),
    entity_id(["a:b", "c"]): (0.1, 1.5, 2**63 - 1, "é 東京 🛫", "delay-1"),
    entity_id(["Zürich", "🛫"]): (None, None, None, "x" * 300, "delay-1"),
    entity_id(["a\\", " b "]): (5e-324, 0.0, 0, "x" * 32, "delay-2"),
}
_PRIORS = {(0, "UA"): (0.375, 0.5, 3, "often"), (1, "EWR"): (0.75, 0.25, 4, "seldom")}


def head(**changes: Any) -> Head:
    """The head of a version of these tables."""
    fields: dict[str, Any] = {
        "table": TABLE, "release": 2, "date": "2013-07-01", "version": 3, "token": 5, "buckets": 3,
        "entities": len(_ROWS), "columns": (*_OUTPUTS, *_ROUTE), "run_id": "2013-07-01-0123456789ab",
        "scored_at": "2013-07-01T04:00:00Z",
    }  # fmt: skip
    return Head(**{**fields, **changes})


def tables() -> list[dict[str, Any]]:
    """Every table: a name, and steps that follow each other, each with commands, ids and what they are answered."""
    strings = head(format=2, layout="string", version=4)
    priors = head(priors=len(_PRIORS), serving=_SERVING)
    escaping = head(serving=Serving(key=('a"b\\c/d\b\f\n\r\t\x01é🛫', "c")))
    moved = head(release=3, version=6, token=6, buckets=1, columns=(*_OUTPUTS[:1], *_ROUTE))
    fewer = {"UA:EWR": (0.125, "delay-2")}
    damaged = "AA:JFK"
    key = bucket_key(TABLE, 3, bucket_of(damaged, 3))
    newer = head().model_dump_json().replace('"format":1', '"format":3')
    asked = [*_ROWS, "UA:LAX", "b:c", "UA:EWR"]
    first = _step(head(), _ROWS, asked)
    return [
        {"name": "layout bucket", "steps": [first]},
        {"name": "a head with every escape that JSON has", "steps": [_escaped(_step(escaping, _ROWS, asked))]},
        {"name": "layout string", "steps": [_step(strings, _ROWS, asked)]},
        {
            "name": "priors and default",
            "steps": [_step(priors, _ROWS, ["UA:EWR", "UA:SFO", "DL:EWR", "DL:SFO", "UA:EWR:1"], _PRIORS)],
        },
        {"name": "a head that moves", "steps": [first, _step(moved, fewer, asked)]},
        {"name": "the layout changes", "steps": [first, _step(strings, _ROWS, asked)]},
        {"name": "a newer format", "steps": [_refused("FORMAT_TOO_NEW", [["SET", head_key(TABLE), newer]])]},
        {"name": "a newer format after one that is known",
         "steps": [first, _refused("FORMAT_TOO_NEW", [["SET", head_key(TABLE), newer]])]},
        {"name": "bytes that are no head",
         "steps": [_refused("STORE_POINTER_FORMAT", [["SET", head_key(TABLE), "not JSON"]])]},
        {"name": "no head", "steps": [_refused("NO_VERSION", [])]},
        {"name": "a head that is lost", "steps": [first, _refused("NO_VERSION", [["DEL", head_key(TABLE)]])]},
        *(
            {"name": f"a damaged row: {what}",
             "steps": [first, _refused("ROW_DECODE", [["HSET", key, damaged, {"hex": raw}]])]}
            for what, raw in _damaged().items()
        ),
    ]  # fmt: skip


def _escaped(step: dict[str, Any]) -> dict[str, Any]:
    """The same, its head in ASCII: what may be escaped is."""
    *rows, (command, key, raw) = step["commands"]
    text = json.dumps(json.loads(raw)).replace("/", "\\/").replace('"delay-1"', '"d\\u0065lay\\u002D1"')
    return {**step, "commands": [*rows, [command, key, text]]}


def _damaged() -> dict[str, str]:
    good = _row(head(), _ROWS["UA:EWR"]).hex()
    return {
        "cut short": good[:-2],
        "bytes behind it": good + "00",
        "empty": "",
        "another length": "96" + good[2:-2],
        "another type": "97d3" + good[4:],
        "an enum index that is none": good[:-6] + "020000",
        "a negative enum index": good[:-6] + "ff0000",
        "a nil enum": good[:-6] + "c00000",
        "no array": "a7" + good[2:],
    }


def _row(of: Head, values: tuple[Any, ...]) -> bytes:
    return encode_rows(of.columns, [[value] for value in (*values, "champion", "scored")])[0]


def _step(of: Head, rows: _Rows, ids: list[str], priors: dict[tuple[int, str], Any] | None = None) -> dict[str, Any]:
    commands: list[list[Any]] = []
    for entity, values in rows.items():
        raw = {"hex": _row(of, values).hex()}
        if of.layout == "string":
            commands.append(["SET", row_key(TABLE, of.version, entity), raw])
        else:
            commands.append(["HSET", bucket_key(TABLE, of.version, bucket_of(entity, of.buckets)), entity, raw])
    for (position, value), outputs in (priors or {}).items():
        raw = {"hex": encode_rows(_OUTPUTS, [[output] for output in outputs])[0].hex()}
        commands.append(["HSET", priors_key(TABLE, of.version), prior_field(position, [value]), raw])
    commands.append(["SET", head_key(TABLE), of.model_dump_json()])
    answers = [_answer(of, entity, rows.get(entity), priors or {}) for entity in ids]
    return {"commands": commands, "ids": ids, "answers": answers}


def _answer(of: Head, entity: str, row: tuple[Any, ...] | None, priors: dict[tuple[int, str], Any]) -> dict[str, Any]:
    """What is expected, worked out apart from the code that answers: `row` is for readers of rows alone."""
    names = [column.name for column in of.columns if column.name not in ("model", "variant", "status")]
    common: dict[str, Any] = {"id": entity, "release": of.release, "segment": None, "row": None}
    if row is not None:
        values = dict(zip([*names, "model"], row, strict=True))
        outputs = {name: values[name] for name in names}
        return {**common, "status": "exact", "outputs": outputs,
                "row": {**values, "variant": "champion", "status": "scored"}}  # fmt: skip
    parts = entity.split(":")
    if priors and len(parts) == len(_SERVING.key):
        for position, segment in enumerate(("carrier", "origin")):
            if found := priors.get((position, parts[position])):
                outputs = dict(zip(names, found, strict=True))
                return {**common, "status": "prior", "outputs": outputs, "segment": segment}
    if of.serving.default is not None:
        return {**common, "status": "default", "outputs": of.serving.default}
    return {**common, "status": "unknown", "outputs": {}}


def _refused(code: str, commands: list[list[Any]]) -> dict[str, Any]:
    return {"commands": commands, "ids": ["UA:EWR", "AA:JFK"], "refused": code}
