"""YAML without surprises: no duplicate keys, no aliases, no `no` that turns into False."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from schemas.errors import DeclarationError, Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32

Location = tuple[str | int, ...]

_TEXT = "tag:yaml.org,2002:str"
_FLOAT = "tag:yaml.org,2002:float"


class _Loader(yaml.SafeLoader):
    """The core schema of YAML 1.2: what looks like text is text (`no`, `12:30`, `0012`)."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as err:  # 2013-02-30, or an integer of 5,000 digits
            raise yaml.constructor.ConstructorError(None, None, str(err), node.start_mark) from err


_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1's


for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("bool", r"^(?:true|false)$", list("tf")),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    ("float", r"^[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", list("-+0123456789")),
    ("timestamp", r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", list("0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


class Document:
    """A parsed YAML mapping that remembers on which line each key stands."""

    def __init__(self, data: dict[str, Any], name: str, lines: dict[Location, int]) -> None:
        self.data = data
        self.name = name
        self._lines = lines

    def where(self, location: Location) -> str:
        """`file:line: dotted.path` of a location, or of its nearest parent that is in the file."""
        line = next(self._lines[location[:n]] for n in range(len(location), -1, -1) if location[:n] in self._lines)
        dotted = ".".join(str(part) for part in location)
        return f"{self.name}:{line}: {dotted}" if dotted else f"{self.name}:{line}"


def read_document(path: Path, *, name: str) -> Document:
    """The mapping in a YAML file.

    Args:
        path: The file.
        name: How errors name it, for example `flight_delay/pipeline.yaml`.

    Raises:
        DeclarationError: the file is missing, too large, not UTF-8, empty, not YAML or not a
            mapping, or it has a duplicate key, an alias, a number that is not finite, or more than
            `MAX_DEPTH` levels.
    """
    text = read_text(path, name=name)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise _error("CFG_EMPTY", name, "the file is empty", "a mapping")
            problems = list(_problems(node, name))
            if problems:
                raise DeclarationError(*problems)
            data = loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise _error("CFG_TOO_DEEP", name, "nested too deeply", f"at most {MAX_DEPTH} levels") from None
    except yaml.YAMLError as err:
        raise _syntax_error(err, name, text) from err
    if not isinstance(data, dict):
        raise _error("CFG_TYPE", f"{name}:1", f"found {type(data).__name__}", "a mapping of keys to values")
    return Document(data, name, dict(_lines(node, ())))


def read_text(path: Path, *, name: str) -> str:
    """The text of a declared file.

    Args:
        path: The file.
        name: How errors name it.

    Raises:
        DeclarationError: the file is missing, unreadable, too large or not UTF-8.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise _error("CFG_NOT_FOUND", name, f"no such file: {path}", "the file") from None
    except OSError as err:
        raise _error("CFG_PERMISSION", name, f"cannot be read: {err.strerror}", "a readable file") from err
    if len(raw) > MAX_BYTES:
        raise _error("CFG_TOO_LARGE", name, f"{len(raw)} bytes", f"at most {MAX_BYTES}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise _error("CFG_ENCODING", name, f"byte {err.start} is not UTF-8", "UTF-8 text") from err


def _problems(root: yaml.Node, name: str) -> Iterator[Problem]:
    """What YAML allows and a declaration does not. Nodes are not followed by recursion: any depth may come in."""
    seen_nodes: set[int] = set()
    stack: list[tuple[yaml.Node, Location]] = [(root, ())]
    while stack:
        node, location = stack.pop()
        where = _where(name, node, location)
        if id(node) in seen_nodes:
            yield Problem("CFG_ALIAS", where, "an alias (*name)", "the value written out")
            return
        seen_nodes.add(id(node))
        if len(location) > MAX_DEPTH:
            yield Problem(
                "CFG_TOO_DEEP", f"{name}:{node.start_mark.line + 1}", "nested too deeply", f"at most {MAX_DEPTH} levels"
            )
            return
        if isinstance(node, yaml.SequenceNode):
            stack.extend((item, (*location, index)) for index, item in enumerate(node.value))
        elif isinstance(node, yaml.MappingNode):
            yield from _key_problems(node, location, name)
            stack.extend((value, (*location, str(key.value))) for key, value in node.value)
        elif node.tag == _FLOAT and not math.isfinite(float(node.value)):
            yield Problem("CFG_NOT_FINITE", where, node.value, "a finite number")


def _key_problems(mapping: yaml.MappingNode, location: Location, name: str) -> Iterator[Problem]:
    keys: set[str] = set()
    for key, _ in mapping.value:
        if key.tag != _TEXT:
            found = (
                f"a key that is not text: {key.value}" if isinstance(key, yaml.ScalarNode) else "a key of several parts"
            )
            yield Problem("CFG_TYPE", _where(name, key, location), found, "a name")
        elif key.value in keys:
            where = _where(name, key, (*location, key.value))
            yield Problem("CFG_DUPLICATE_KEY", where, f"'{key.value}' a second time", "each key once")
        else:
            keys.add(key.value)


def _where(name: str, node: yaml.Node, location: Location) -> str:
    dotted = ".".join(map(str, location))
    return f"{name}:{node.start_mark.line + 1}" + (f": {dotted}" if dotted else "")


def _lines(node: yaml.Node, location: Location) -> Iterator[tuple[Location, int]]:
    yield location, node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*location, index))
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _lines(value, (*location, key.value))
            yield (*location, key.value), key.start_mark.line + 1


def _syntax_error(err: yaml.YAMLError, name: str, text: str) -> DeclarationError:
    if isinstance(err, yaml.reader.ReaderError):  # it knows its place by the character, not by the line
        where, found = f"{name}:{text.count(chr(10), 0, err.position) + 1}", f"the character {err.character!r}"
        return _error("CFG_SYNTAX", where, found, "text without control characters")
    mark = getattr(err, "problem_mark", None)
    where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
    expected = "a value that exists" if isinstance(err, yaml.constructor.ConstructorError) else "YAML"
    return _error("CFG_SYNTAX", where, getattr(err, "problem", None) or str(err), expected)


def _error(code: str, where: str, found: str, expected: str) -> DeclarationError:
    return DeclarationError(Problem(code, where, found, expected))
