"""Whether LiteRT does with sparse files what `check_xnnpack` says, AVX being hidden.

Slow, and skipped where gdb is missing. When one of these fails after an update of
LiteRT, its rules have changed, or a fault of it is mended.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import ai_edge_litert
import keras
import pytest
from keras import layers

from kprune.targets import check_xnnpack, rewrite_padding
from tests.targets import models
from tests.targets.files import to_tflite

HERE = pathlib.Path(__file__).parent
LIBRARY = pathlib.Path(ai_edge_litert.__file__).parent / "libpywrap_litert_common.so"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("gdb") and shutil.which("objdump") and LIBRARY.exists()),
        reason="needs gdb, objdump and LiteRT for Linux",
    ),
]


def wide(**changes):
    return models.mobile(width=128, sparsity=0.9, **{"size": 64, **changes})


def mobilenet(build, rewrite):
    model = build(input_shape=(64, 64, 3), weights=None, classes=20)
    model = rewrite_padding(model, print_fn=None) if rewrite else model
    return models.set_zeros(model, 0.9)


WHOLE = {
    "plain": wide,
    "squeeze": lambda: wide(middle=models.squeeze),
    "reshaped": lambda: wide(middle=models.squeeze_and_reshape),
    "gelu": lambda: wide(activation="gelu"),
    "hard_silu": lambda: wide(activation="hard_silu"),
    "clipped": lambda: wide(middle=layers.ReLU(max_value=4)),
    "bilinear": lambda: wide(middle=layers.UpSampling2D(2, interpolation="bilinear")),
    "mobilenet_v2": lambda: mobilenet(keras.applications.MobileNetV2, True),
}
OFF = {
    "stock_mobilenet_v2": lambda: mobilenet(keras.applications.MobileNetV2, False),
    "too_few_zeros": lambda: models.set_zeros(wide(), 0.66),
    "grey": lambda: wide(channels=1),
    "odd_stem": lambda: wide(size=65),
    "mish": lambda: wide(activation="mish"),
    "flattened": lambda: wide(head=models.flat),
}
WRONG = {
    "pooled": lambda: wide(middle=layers.MaxPooling2D(2)),
    "constant": lambda: wide(middle=lambda x: x * 0.5),
    "odd_inside": lambda: wide(size=66),
    "returned": lambda: wide(extra_output=lambda x: x),
    "softmax_4d": lambda: wide(
        head=lambda x: models.flat(layers.Softmax()(models.kept(x)))
    ),
}
FAILING = {"convolution_behind": lambda: wide(head=models.convolutional_head)}


@pytest.fixture(scope="module")
def checks_and_report(tmp_path_factory):
    folder, checks = tmp_path_factory.mktemp("files"), {}
    for name, build in {**WHOLE, **OFF, **WRONG, **FAILING}.items():
        model = build()
        checks[name] = check_xnnpack(model)
        for suffix in ("sparse", "dense"):
            content = to_tflite(model, sparse=suffix == "sparse", as_bytes=True)
            (folder / f"{name}.{suffix}").write_bytes(content)
    command = ["gdb", "-q", "-batch", "-x", HERE / "hide_avx.py", "--args"]
    run = subprocess.run(
        [*command, sys.executable, HERE / "run_files.py", folder],
        env={**os.environ, "KPRUNE_LIBRARY": str(LIBRARY)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    (line,) = re.findall(r"^REPORT (.*)$", run.stdout, re.MULTILINE) or [run.stderr]
    return checks, json.loads(line)


@pytest.mark.parametrize("name", WHOLE)
def test_what_passes_the_check_is_faster_and_right(checks_and_report, name):
    checks, report = checks_and_report

    assert checks[name], str(checks[name])
    assert report[name]["speedup"] > 1.4
    assert report[name]["difference"] < 1e-5


@pytest.mark.parametrize("name", OFF)
def test_what_fails_at_the_stem_or_for_good_is_no_faster_and_right(
    checks_and_report, name
):
    checks, report = checks_and_report

    assert not checks[name]
    assert report[name]["speedup"] < 1.3
    assert report[name]["difference"] < 1e-5


@pytest.mark.parametrize("name", WRONG)
def test_a_cut_cluster_gives_wrong_numbers(checks_and_report, name):
    checks, report = checks_and_report

    assert checks[name].is_cut
    assert report[name]["difference"] > 1e-4


@pytest.mark.parametrize("name", FAILING)
def test_a_convolution_behind_the_last_pool_keeps_the_file_from_loading(
    checks_and_report, name
):
    checks, report = checks_and_report

    assert checks[name].is_cut
    assert "failed to" in report[name]["failure"]
