"""What bringing models over does to a process, and what it needs there."""

import importlib.util

import pytest

from tests.processes import run_script
from tests.tfmot import keras_2_models as models
from tests.training_helpers import with_slow

SCRIPT = """
import os, sys
import tensorflow as tf
from kprune.tfmot import keras_2
from kprune.tfmot.from_keras_2 import from_tf_keras
from kprune.tfmot.to_keras_2 import to_tf_keras

path = sys.argv[1]
"""

THERE_AND_BACK = """
new = from_tf_keras(path)
print(type(new).__module__)
for one in (tf.keras.layers.Dense, tf.optimizers.Adam):
    print(one.__module__.split(".")[0])
print(os.environ.get("TF_USE_LEGACY_KERAS"))

old = to_tf_keras(new)
quantized = keras_2.import_tfmot().quantization.keras.quantize_model(old)
quantized.compile("sgd", "mse")
before = [v.numpy() for v in quantized.trainable_variables]
loss = quantized.train_on_batch(tf.ones((4, 6)), tf.ones((4, 3)))
print(loss > 0)
pairs = zip(before, quantized.trainable_variables)
print(all((value != variable.numpy()).any() for value, variable in pairs))
"""


@pytest.fixture(scope="module")
def there_and_back(tf_keras, incumbent, tmp_path_factory):
    """What a new process says that reads a pruned model and trains it in int8."""
    path = tmp_path_factory.mktemp("models") / "model.keras"
    wrap = incumbent.sparsity.keras.prune_low_magnitude
    wrap(models.sequential(tf_keras)).save(path)
    done = run_script(SCRIPT + THERE_AND_BACK, path)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_tf_keras_of_the_process_stays_keras_3(there_and_back):
    expected = "keras.src.models.sequential keras keras None"
    assert there_and_back[:4] == expected.split()


def test_tfmot_trains_for_int8_what_was_pruned_here(there_and_back):
    assert there_and_back[4:] == ["True", "True"]


IMPORTS = {
    "the variable is set": 'os.environ["TF_USE_LEGACY_KERAS"] = "1"',
    "TFMOT is first": "import tensorflow_model_optimization",
    "TFMOT is second": "import kprune; import tensorflow_model_optimization",
}


# The slow ones set before kprune is imported what TFMOT sets afterwards.
@pytest.mark.parametrize(
    "imports", with_slow({"the variable is set", "TFMOT is first"}, IMPORTS)
)
def test_models_come_over_where_tf_keras_is_that_of_keras_2(
    tf_keras, incumbent, tmp_path, imports
):
    path = tmp_path / "model.keras"
    models.sequential(tf_keras).save(path)
    script = f"import os\n{IMPORTS[imports]}\n{SCRIPT}{THERE_AND_BACK}"

    done = run_script(script, path)

    assert done.returncode == 0, done.stderr
    expected = "keras.src.models.sequential tf_keras tf_keras 1 True True"
    assert done.stdout.split() == expected.split()


@pytest.mark.parametrize("package", ["tf_keras", "tensorflow_model_optimization"])
def test_a_package_that_is_not_installed_is_named(tmp_path, package):
    if package != "tf_keras" and importlib.util.find_spec("tf_keras") is None:
        pytest.skip("tf_keras is not installed, and is asked for first")
    (tmp_path / "model.keras").touch()
    block = f"sys.modules[{package!r}] = None; from_tf_keras(path)"

    done = run_script(SCRIPT + block, tmp_path / "model.keras")

    assert done.returncode == 1
    assert f"ImportError: Models of Keras 2 need the package {package}" in done.stderr
    assert "pip install 'kprune[tfmot]'" in done.stderr


def test_without_tf_keras_no_model_goes_there(tmp_path):
    call = """
sys.modules["tf_keras"] = None
import keras
to_tf_keras(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
"""

    done = run_script(SCRIPT + call, "")

    assert done.returncode == 1
    assert "need the package tf_keras" in done.stderr
