"""CRC-32 of many strings at once, held to zlib's."""

import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lookup.crc import crc32


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40)))
@example([])
@example([b""])
@example([b"", b"\x00", b"\x00" * 9, b"UA:1", b"x" * 600])
def test_each_string_has_the_check_that_zlib_gives_it(strings: list[bytes]) -> None:
    data = np.frombuffer(b"".join(strings), np.uint8)
    offsets = np.cumsum([0, *map(len, strings)])

    assert crc32(data, offsets).tolist() == [zlib.crc32(string) for string in strings]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20), min_size=1), st.binary(max_size=20))
def test_bytes_before_and_behind_the_strings_are_no_part_of_them(strings: list[bytes], around: bytes) -> None:
    data = np.frombuffer(around + b"".join(strings) + around, np.uint8)
    offsets = len(around) + np.cumsum([0, *map(len, strings)])

    assert crc32(data, offsets).tolist() == [zlib.crc32(string) for string in strings]


@pytest.mark.parametrize("length", range(26))
def test_every_length_around_a_word_is_right(length: int) -> None:
    strings = [bytes([fill]) * length for fill in (0, 1, 255)]
    offsets = np.arange(4) * length

    found = crc32(np.frombuffer(b"".join(strings), np.uint8), offsets)

    assert found.tolist() == [zlib.crc32(string) for string in strings]
