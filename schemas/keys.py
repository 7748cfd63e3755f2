"""Names in the lookup table: entity ids, buckets and Redis keys (docs/lookup.md)."""

import binascii
from collections.abc import Iterable, Sequence

MAX_ID_BYTES = 512
ENTITIES_PER_BUCKET = 64
PREFIX = "almanac"


def entity_id(values: Iterable[object]) -> str:
    r"""The key values joined with `:`; a `:` or `\` inside a value is escaped with `\`.

    >>> entity_id(["UA", 1545, "EWR", "2013-07-01"])
    'UA:1545:EWR:2013-07-01'
    >>> print(entity_id(["a:b", "c"]))
    a\:b:c
    """
    return ":".join(str(value).replace("\\", "\\\\").replace(":", "\\:") for value in values)


def id_problem(entity: str) -> str | None:
    """Why `entity` cannot be an entity id, or None where it can."""
    if entity.isascii() and entity.isprintable() and len(entity) <= MAX_ID_BYTES and entity and not entity.isspace():
        return None  # nearly all of them, at once
    if not entity.strip():
        return "is blank"
    try:
        size_bytes = len(entity.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode (a lone surrogate)"
    if size_bytes > MAX_ID_BYTES:
        return f"is {size_bytes} bytes long, the limit is {MAX_ID_BYTES}"
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in entity):
        return "has a control character"
    return None


def first_id_problem(ids: Sequence[str]) -> tuple[int, str] | None:
    """The position of the first of these that cannot be an entity id, and why; None where all can."""
    together = "".join(ids)
    # What is true of all characters is so of each id's; and without a blank, only an id without any is blank.
    are_plain = together.isascii() and together.isprintable() and " " not in together and all(ids)
    if are_plain and max(map(len, ids), default=0) <= MAX_ID_BYTES:
        return None  # nearly always
    return next(((at, why) for at, entity in enumerate(ids) if (why := id_problem(entity))), None)


def key_values(entity: str) -> list[str]:
    r"""The key values that were joined to this id: the inverse of `entity_id`.

    >>> key_values("a\\:b:c")
    ['a:b', 'c']
    """
    values, value, characters = [], "", iter(entity)
    for character in characters:
        if character == ":":
            values.append(value)
            value = ""
        else:
            value += next(characters, "") if character == "\\" else character
    return [*values, value]


def bucket_count(entities: int, entities_per_bucket: int = ENTITIES_PER_BUCKET) -> int:
    """How many buckets a version of that many entities has, with that many to a bucket on average."""
    return max(1, -(-entities // entities_per_bucket))


def bucket_of(entity: str, buckets: int) -> int:
    """CRC-32 (IEEE) of the UTF-8 entity id, modulo the bucket count.

    >>> bucket_of("UA:1545:EWR:2013-07-01", 102)
    11
    """
    return binascii.crc32(entity.encode()) % buckets


def head_key(table: str) -> str:
    """The one pointer readers follow. The braces keep a table's control keys in one cluster slot."""
    return f"{PREFIX}:{{{table}}}:head"


def versions_key(table: str) -> str:
    """The hash of every version that may be read: version -> its head, as JSON. Each has passed every check."""
    return f"{PREFIX}:{{{table}}}:versions"


def loading_key(table: str) -> str:
    """The same of every version that is being loaded, or whose loading was not brought to its end."""
    return f"{PREFIX}:{{{table}}}:versions:loading"


def bucket_key(table: str, version: int, bucket: int) -> str:
    """The hash that holds the rows of one bucket, entity id -> value."""
    return f"{PREFIX}:{table}:{version}:{bucket}"


def row_key(table: str, version: int, entity: str) -> str:
    """The string that holds one row, in the layout `string`."""
    return f"{PREFIX}:{table}:{version}:id:{entity}"


def priors_key(table: str, version: int) -> str:
    """The hash of a version's priors: prior field -> row."""
    return f"{PREFIX}:{table}:{version}:priors"


def prior_field(segment: int, values: Iterable[object]) -> str:
    """The field of one prior: the position of its segment in the head, and its key values joined as an id's are.

    >>> prior_field(0, ["UA", "EWR"])
    '0:UA:EWR'
    """
    return f"{segment}:{entity_id(values)}"
