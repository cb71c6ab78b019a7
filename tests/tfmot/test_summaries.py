"""What `PruningSummaries` writes for TensorBoard."""

import numpy as np
import pytest
import tensorflow as tf

from kprune import tfmot
from tests.checks import entries
from tests.tfmot.models import simple_dense_model, train


def written(folder):
    """Reads the events in a folder: a dict from tag to values by step."""
    found = {}
    for path in sorted(folder.glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                number = tf.make_ndarray(value.tensor).item()
                found.setdefault(value.tag, {})[event.step] = number
    return found


def test_summaries_tell_sparsity_and_threshold_as_each_epoch_begins(tmp_path):
    decay = tfmot.PolynomialDecay(0.25, 0.5, 0, 2, power=1, frequency=2)
    model = tfmot.prune_low_magnitude(simple_dense_model(), decay)

    train(model, tfmot.PruningSummaries(log_dir=str(tmp_path)), epochs=4)

    found = written(tmp_path / "metrics")
    for name in ("hidden", "classes"):
        assert found[f"{name}/kernel/sparsity"] == {0: 0.0, 1: 0.25, 2: 0.25, 3: 0.5}
        thresholds = found[f"{name}/kernel/threshold"]
        assert thresholds[0] < thresholds[1] <= thresholds[3]
    kernel = np.abs(model.layers[0].kernel.numpy())
    assert found["hidden/kernel/threshold"][3] == pytest.approx(
        kernel[kernel > 0].min(), abs=0.01
    )


@pytest.mark.parametrize("log_dir", ["", None, 3])
def test_summaries_need_a_folder(log_dir):
    with pytest.raises(ValueError, match="must be a string that is not empty"):
        tfmot.PruningSummaries(log_dir=log_dir)


def test_summaries_of_a_kernel_without_weights_tell_no_threshold(tmp_path):
    model = tfmot.prune_low_magnitude(simple_dense_model())
    entries(model)[0].mask.assign(np.zeros((10, 8), bool))

    train(model, tfmot.PruningSummaries(str(tmp_path)))

    found = written(tmp_path / "metrics")
    assert found["hidden/kernel/sparsity"] == {0: 1.0}
    assert "hidden/kernel/threshold" not in found
