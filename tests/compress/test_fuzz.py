"""Damaged and crafted archives: an `ArchiveError`, or a model, and nothing else."""

import json
import zlib

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from kprune import registry
from kprune.compress import ArchiveError, load_archive, save_archive
from kprune.compress.architecture import _DICTIONARY, full_config
from kprune.compress.container import frame
from kprune.compress.packing import Reader, Writer, deflate
from kprune.compress.streams import read_arrays, write_arrays
from tests.compress.streams_of import shared_weights, skewed

FAST = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
SLOW = settings(FAST, max_examples=40)
MANY = settings(FAST, max_examples=1500, derandomize=False)
ARRAYS = {
    "shared": shared_weights((40, 30)),
    "sparse": np.where(shared_weights((30, 30)) != 0, np.linspace(1, 2, 30), 0),
    "bias": np.linspace(0, 1, 30, dtype="float32"),
}
SPECS = [(array.shape, array.dtype) for array in ARRAYS.values()]
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "delete", "cut", "fill"]),
        st.integers(0, 1 << 16),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def damaged(data, damage):
    data = bytearray(data)
    for kind, place, byte in damage:
        place %= len(data) + 1
        if kind == "flip" and place < len(data):
            data[place] ^= byte or 1
        elif kind == "insert":
            data.insert(place, byte)
        elif kind == "delete":
            del data[place : place + 1 + byte % 4]
        elif kind == "cut":
            del data[place:]
        elif kind == "fill":
            data[place : place + 8] = bytes([byte]) * 8
    return bytes(data)


def sealed(data):
    """Gives damaged bytes a checksum that is right."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")


def archive_of(config):
    """Returns an archive of a crafted architecture, without weights."""
    packed = deflate(json.dumps(config).encode(), _DICTIONARY)
    return bytes(frame(packed, Writer()).data)


def tiny():
    dense = layers.Dense(5, activation="relu", name="first")
    model = keras.Sequential([keras.Input((20,)), dense, layers.Dense(3)], name="tiny")
    model.layers[0].kernel.assign(shared_weights((20, 5), density=0.5))
    return model


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "model.kpz"
    save_archive(tiny(), path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "damaged.kpz"


def test_every_flipped_byte_is_noticed(archive, path):
    for place in range(len(archive)):
        for change in (0x01, 0xFF):
            data = bytearray(archive)
            data[place] ^= change
            path.write_bytes(data)
            with pytest.raises(ArchiveError, match="no archive|version|checksum"):
                load_archive(path)


def test_every_truncation_and_extension_is_noticed(archive, path):
    for length in range(len(archive)):
        path.write_bytes(archive[:length])
        with pytest.raises(ArchiveError):
            load_archive(path)
    for more in (b"\0", b"\0" * 4, archive):
        path.write_bytes(archive + more)
        with pytest.raises(ArchiveError, match="checksum"):
            load_archive(path)


def test_a_newer_version_is_named(archive, path):
    path.write_bytes(sealed(b"KPZ\x02" + archive[4:]))

    with pytest.raises(ArchiveError, match="has version 2 .* reads up to version 1"):
        load_archive(path)


@FAST
@given(data=st.binary(max_size=200))
def test_random_bytes_are_no_archive(data, path):
    for content in (data, b"KPZ\x01" + data, sealed(b"KPZ\x01" + data + b"crc!")):
        path.write_bytes(content)
        with pytest.raises(ArchiveError):
            load_archive(path)


def load_or_refuse(data, path):
    """Loads a file that may be anything: a model or an `ArchiveError`."""
    path.write_bytes(data)
    try:
        model = load_archive(path)
    except ArchiveError:
        return
    assert isinstance(model, keras.Model)


@SLOW
@given(damage=DAMAGE)
def test_damage_behind_a_right_checksum_does_no_harm(damage, archive, path):
    load_or_refuse(sealed(damaged(archive, damage)), path)


@pytest.mark.slow
@MANY
@given(damage=DAMAGE)
def test_much_damage_behind_a_right_checksum_does_no_harm(damage, archive, path):
    load_or_refuse(sealed(damaged(archive, damage)), path)


@pytest.mark.parametrize("coder", registry.keys("coders"))
@FAST
@given(damage=DAMAGE)
def test_damaged_streams_give_arrays_of_the_shapes_asked_for(coder, damage):
    data = damaged(encoded_arrays(coder), damage)
    reader = Reader(data)
    try:
        arrays = read_arrays(reader, SPECS)
        reader.finish()
    except ArchiveError:
        return
    assert [(array.shape, array.dtype) for array in arrays] == SPECS


def encoded_arrays(coder, cache={}):  # noqa: B006
    if coder not in cache:
        writer = Writer()
        write_arrays(writer, ARRAYS, [registry.get("coders", coder)])
        cache[coder] = bytes(writer.data)
    return cache[coder]


@pytest.mark.parametrize("coder", registry.keys("coders"))
@FAST
@given(
    data=st.binary(max_size=300),
    count=st.integers(0, 2000),
    alphabet=st.sampled_from([1, 2, 3, 16, 256, 4096, 60_000]),
)
def test_random_bytes_decode_to_symbols_or_fail(coder, data, count, alphabet):
    coder = registry.get("coders", coder)
    if not coder.fits(alphabet):
        return
    try:
        symbols = coder.decode(data, count, alphabet)
    except ArchiveError:
        return
    assert len(symbols) == count
    assert not count or 0 <= symbols.min() <= symbols.max() < alphabet


@pytest.mark.parametrize("coder", registry.keys("coders"))
@FAST
@given(damage=DAMAGE)
def test_damaged_codes_decode_to_symbols_or_fail(coder, damage):
    coder = registry.get("coders", coder)
    data = damaged(coder.encode(skewed(300), 16), damage)
    try:
        symbols = coder.decode(data, 300, 16)
    except ArchiveError:
        return
    assert len(symbols) == 300
    assert 0 <= symbols.min() <= symbols.max() < 16


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False)
    | st.sampled_from(["Dense", "keras", "keras.layers", "os", "__numpy__", "x", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["class_name", "config", "module", "registered_name", "@", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


def replaced(part, place, value):
    """Puts a value in place of the `place`-th part of a nested config."""
    steps = list(places(part))
    container, key = steps[place % len(steps)]
    container[key] = value
    return part


def places(part):
    keys = list(part) if isinstance(part, dict) else range(len(part))
    for key in keys:
        yield part, key
        if isinstance(part[key], (dict, list)):
            yield from places(part[key])


@SLOW
@given(place=st.integers(0, 1000), value=JSON)
def test_any_change_of_the_architecture_does_no_harm(place, value, path):
    config = replaced(json.loads(json.dumps(CONFIG)), place, value)
    load_or_refuse(archive_of(config), path)


def many_kinds():
    """Returns the config of a model with many kinds of arguments."""
    images, words = keras.Input((8, 8, 2)), keras.Input((6,), dtype="int32")
    x = layers.Conv2D(4, 3, groups=2, dilation_rate=2)(images)
    x = layers.BatchNormalization()(layers.ZeroPadding2D(1)(x))
    x = layers.UpSampling2D(2)(layers.MaxPooling2D(2)(x))
    x = layers.Reshape((-1, 4))(layers.SeparableConv2D(4, 2)(x))
    y = layers.LSTM(4, return_sequences=True)(layers.Embedding(9, 4)(words))
    y = layers.MultiHeadAttention(2, 3)(y, y) + 1.0
    y = layers.Bidirectional(layers.GRU(3))(layers.Concatenate(axis=1)([x, y]))
    y = layers.RepeatVector(3)(layers.GaussianNoise(0.1)(y))
    y = layers.CategoryEncoding(5)(layers.Discretization(bin_boundaries=[0.0])(y))
    return full_config(keras.Model([images, words], layers.Dense(2)(y)))


NUMBERS = st.tuples(
    st.integers(0, 1000),
    st.sampled_from([0, -1, 10**4, 10**6, 10**9, 10**30, 0.5, 1e9, None, True]),
)


def with_numbers(numbers):
    """Returns a config with other numbers in some of its places."""
    config = json.loads(json.dumps(MANY_KINDS))
    steps = [(c, k) for c, k in places(config) if isinstance(c[k], (int, float))]
    for place, value in numbers:
        container, key = steps[place % len(steps)]
        container[key] = value
    return config


@SLOW
@given(numbers=st.lists(NUMBERS, min_size=1, max_size=2))
def test_any_number_in_the_layers_does_no_harm(numbers, path):
    load_or_refuse(archive_of(with_numbers(numbers)), path)


@pytest.mark.slow
@MANY
@given(numbers=st.lists(NUMBERS, min_size=1, max_size=3))
def test_many_numbers_in_the_layers_do_no_harm(numbers, path):
    load_or_refuse(archive_of(with_numbers(numbers)), path)


@SLOW
@given(config=JSON)
def test_any_json_does_no_harm(config, path):
    path.write_bytes(
        frame(deflate(json.dumps(config).encode(), _DICTIONARY), Writer()).data
    )
    with pytest.raises(ArchiveError):
        load_archive(path)


CONFIG = full_config(tiny())
MANY_KINDS = many_kinds()
