import os
import stat

import numpy as np
import pytest

from kprune.compress import ArchiveError
from kprune.compress.container import check_size, frame, unframe, write_beside
from kprune.compress.packing import Reader, Writer, deflate, inflate


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")],
)
def test_numbers_have_seven_bits_a_byte(value, encoded):
    writer = Writer()
    writer.number(value, "header")

    assert bytes(writer.data) == encoded
    assert Reader(encoded).number(value) == value
    assert writer.sizes == {"header": len(encoded)}


def test_a_number_above_what_makes_sense_is_refused():
    with pytest.raises(ArchiveError, match="300 or more where at most 299 is possible"):
        Reader(b"\xac\x02").number(299)
    with pytest.raises(ArchiveError, match="or more where at most"):
        Reader(b"\x80" * 1000).number(1 << 62)
    with pytest.raises(ArchiveError, match="ends too early"):
        Reader(b"\x80\x80").number(1 << 62)


def test_strings_end_where_their_length_says():
    writer = Writer()
    writer.string(b"abc", "body")
    writer.bytes(b"de", "rest")

    reader = Reader(writer.data)

    assert bytes(reader.string()) == b"abc"
    assert reader.left == 2
    with pytest.raises(ArchiveError, match="2 bytes after its end"):
        reader.finish()
    with pytest.raises(ArchiveError, match="3 bytes are announced, 2 are left"):
        reader.bytes(3)
    assert writer.sizes == {"header": 1, "body": 3, "rest": 2}


def test_sizes_of_writers_add_up():
    first, second = Writer(), Writer()
    first.bytes(b"ab", "x")
    second.bytes(b"c", "x")
    second.bytes(b"d", "y")

    first.append(second)

    assert bytes(first.data) == b"abcd"
    assert first.sizes == {"x": 3, "y": 1}


def test_inflating_stops_at_the_limit():
    data = deflate(b"\0" * 10_000_000)

    assert len(inflate(data, 10_000_000)) == 10_000_000
    with pytest.raises(ArchiveError, match="unpacks to more than 9999999 bytes"):
        inflate(data, 9_999_999)


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b""]
)
def test_compressed_parts_end_where_they_should(change):
    with pytest.raises(ArchiveError, match="ends too early or too late"):
        inflate(change(deflate(b"weights" * 10)), 1000)


def test_a_dictionary_makes_what_is_like_it_small():
    text = bytes(np.random.default_rng(0).integers(0, 256, 500, np.uint8))

    small = deflate(text, text)

    assert len(small) < 20 < len(deflate(text))
    assert inflate(small, 500, text) == text


def test_a_frame_is_eight_bytes_and_a_length():
    weights = Writer()
    weights.bytes(b"weights", "values")

    whole = frame(b"architecture", weights)
    architecture, reader = unframe(whole.data)

    assert bytes(architecture) == b"architecture"
    assert bytes(reader.bytes(reader.left)) == b"weights"
    assert whole.sizes == {"header": 9, "architecture": 12, "values": 7}


@pytest.mark.parametrize("data", [b"", b"K", b"PK\x03\x04", b"KP", b"kpz\x01"])
def test_other_files_are_no_archives(data):
    with pytest.raises(ArchiveError, match="no archive of kprune"):
        unframe(data)


@pytest.mark.parametrize("data", [b"KPZ", b"KPZ\x01", b"KPZ\x01\0\0\0"])
def test_short_files_are_damaged(data):
    with pytest.raises(ArchiveError, match="checksum does not fit"):
        unframe(data)


def test_sizes_are_checked_in_whole_numbers():
    shapes = [((1 << 40, 1 << 40), np.dtype("float32"))]

    with pytest.raises(ArchiveError, match=f"asks for {4 << 80:,} bytes"):
        check_size(shapes, 100)

    check_size([((1000,), np.dtype("float32"))] * 2, 100, max_bytes=8000)
    with pytest.raises(ArchiveError, match="more than 7,999"):
        check_size([((1000,), np.dtype("float32"))] * 2, 100, max_bytes=7999)


def test_narrow_weights_count_with_what_it_takes_to_decode_them():
    flags = [((30_000_000,), np.dtype("bool"))]

    with pytest.raises(ArchiveError, match="30,000,000 weights.*max_bytes=30000000"):
        check_size(flags, 100)
    check_size(flags, 100, max_bytes=30_000_000)


def test_files_are_made_beside_with_the_rights_of_any_new_file(tmp_path):
    ordinary = tmp_path / "ordinary"
    ordinary.write_bytes(b"x")

    beside = write_beside(str(tmp_path / "model.kpz"), b"data")

    assert os.path.dirname(beside) == str(tmp_path)
    assert stat.S_IMODE(os.stat(beside).st_mode) == stat.S_IMODE(
        ordinary.stat().st_mode
    )
    with open(beside, "rb") as file:
        assert file.read() == b"data"
