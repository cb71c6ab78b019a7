"""Which weights go: by magnitude, by block, and m of every n."""

import keras
import numpy as np
import pytest
from keras import layers

from kprune import tfmot
from tests.checks import entries
from tests.tfmot.models import EVERY_STEP, around, one_kernel, train, update_masks

QUADRANTS = np.kron([[0.1, 0.2], [0.3, 0.4]], np.ones((2, 2)))
# The largest of each block stand in the lower half, the mean in the upper half.
PEAKS = np.array([[3, 3, 3, 3], [3, 3, 3, 3], [0, 5, -6, 0], [0, 0, 0, 0.1]])
UPPER = np.kron([[1, 1], [0, 0]], np.ones((2, 2)))
COLUMN = np.array([[1.0], [2.0], [3.0], [4.0]])

TABLE = {
    "half of a hundred": (
        np.linspace(1, 100, 100).reshape(1, 100),
        0.5,
        {},
        np.arange(100).reshape(1, 100) >= 50,
    ),
    "a sparsity that float32 can't hold": (
        np.arange(1.0, 11).reshape(2, 5),
        0.200000018,
        {},
        np.arange(10).reshape(2, 5) >= 2,
    ),
    "negative weights": ([[-3, 1], [2, -0.5]], 0.5, {}, [[1, 0], [1, 0]]),
    "all but one": (
        np.arange(1.0, 11).reshape(2, 5),
        0.99,
        {},
        [[0] * 5, [0] * 4 + [1]],
    ),
    "nothing": ([[1, 2], [3, 4]], 0.0, {}, np.ones((2, 2))),
    "blocks by their mean": (QUADRANTS, 0.5, {"block_size": (2, 2)}, 1 - UPPER),
    "blocks by their mean, with a peak": (
        PEAKS,
        0.5,
        {"block_size": (2, 2), "block_pooling_type": "AVG"},
        UPPER,
    ),
    "blocks by their largest": (
        PEAKS,
        0.5,
        {"block_size": [2, 2], "block_pooling_type": "MAX"},
        1 - UPPER,
    ),
    "blocks along the outputs": (
        [[1, 1, 9, 1], [4, 5, 1, 2]],
        0.5,
        {"block_size": (1, 2)},
        [[0, 0, 1, 1], [1, 1, 0, 0]],
    ),
    "blocks along the inputs": (
        [[1, 1, 9, 1], [4, 5, 1, 2]],
        0.5,
        {"block_size": (2, 1)},
        [[0, 1, 1, 0], [0, 1, 1, 0]],
    ),
    "two zeros of four": (COLUMN, 0.5, {"sparsity_m_by_n": (2, 4)}, COLUMN > 2),
    "one zero of four": (COLUMN, 0.5, {"sparsity_m_by_n": (1, 4)}, COLUMN > 1),
    "three zeros of six": (
        np.arange(1.0, 7).reshape(6, 1),
        0.5,
        {"sparsity_m_by_n": [3, 6]},
        np.arange(6).reshape(6, 1) > 2,
    ),
    "one zero of two, in each column": (
        [[1, 4], [3, 2]],
        0.5,
        {"sparsity_m_by_n": (1, 2)},
        [[0, 1], [1, 0]],
    ),
    # TFMOT keeps all that equal the threshold; here the count is exact.
    "ties": (np.full((2, 4), 3.0), 0.5, {}, [[1] * 4, [0] * 4]),
    # TFMOT fails on kernels that are narrower than the block.
    "blocks wider than the kernel": (
        [[1, 2], [3, 4], [5, 6], [7, 8]],
        0.5,
        {"block_size": (1, 4)},
        [[0, 0], [0, 0], [1, 1], [1, 1]],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_mask_after_the_first_update_is_the_one_written_out(name):
    kernel, sparsity, options, expected = TABLE[name]
    schedule = tfmot.ConstantSparsity(sparsity, 0, frequency=1)
    model = tfmot.prune_low_magnitude(one_kernel(kernel), schedule, **options)

    update_masks(model)

    (entry,) = entries(model)
    np.testing.assert_array_equal(entry.mask.numpy(), np.array(expected, bool))
    np.testing.assert_array_equal(
        entry.variable.numpy(), np.float32(kernel) * np.array(expected)
    )


@pytest.mark.parametrize(
    "layer, shape",
    [
        (layers.Dense(16), (8,)),
        (layers.Conv2D(16, (5, 7)), (8, 8, 4)),
        # TFMOT leaves these two dense, or prunes single weights instead.
        (layers.Conv1D(6, 3), (5, 8)),
        (layers.Conv3D(2, 2), (3, 3, 3, 4)),
    ],
)
def test_two_of_four_consecutive_inputs_are_zero(layer, shape):
    pruned = tfmot.prune_low_magnitude(
        around(layer, shape), EVERY_STEP, sparsity_m_by_n=(2, 4)
    )

    update_masks(pruned)

    (entry,) = entries(pruned)
    kernel = np.moveaxis(entry.variable.numpy(), -2, -1)
    assert ((kernel.reshape(-1, 4) == 0).sum(1) == 2).all()


@pytest.mark.parametrize("shape", [(8, 8, 4), (3, 3, 3, 2)])
def test_blocks_work_on_kernels_of_any_rank(shape):
    make = layers.Conv2D if len(shape) == 3 else layers.Conv3D
    pruned = tfmot.prune_low_magnitude(
        around(make(6, 2), shape), EVERY_STEP, block_size=(2, 3)
    )

    update_masks(pruned)

    (entry,) = entries(pruned)
    mask = entry.mask.numpy().reshape(-1, shape[-1] // 2, 2, 2, 3)
    assert (mask.all((2, 4)) | ~mask.any((2, 4))).all()
    assert mask.mean() == 0.5


class ByTheTable(tfmot.PruningSchedule):
    """A schedule of the user's, which prunes at every step by a table."""

    def __call__(self, step):
        return True, [0.0, 0.1, 0.1, 0.3, 0.3, 0.5, 0.5, 0.5, 0.5, 0.5][int(step)]

    def get_config(self):
        return {}


def test_mask_follows_a_schedule_of_the_user_step_by_step():
    kernel = np.linspace(1, 100, 100).reshape(10, 10)
    model = tfmot.prune_low_magnitude(one_kernel(kernel), ByTheTable())
    left = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: left.append(
            np.count_nonzero(model.layers[0].kernel)
        )
    )

    train(model, count, epochs=9, rate=0.0)

    assert left == [100, 90, 90, 70, 70, 50, 50, 50, 50]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"block_pooling_type": "MIN"}, "block_pooling_type='MIN' must be"),
        ({"block_size": (2,)}, r"block_size=\(2,\) must be a tuple or list of two"),
        ({"block_size": 4}, "block_size=4 must be a tuple or list of two ints"),
        ({"sparsity_m_by_n": 2}, "sparsity_m_by_n=2 must be a tuple or list of two"),
        ({"sparsity_m_by_n": (2, 4.0)}, r"sparsity_m_by_n=\(2, 4.0\) must be a tuple"),
        ({"sparsity_m_by_n": (4, 4)}, r"\(4, 4\) must be \(zeros, weights\)"),
        ({"sparsity_m_by_n": (5, 4)}, r"\(5, 4\) must be \(zeros, weights\)"),
    ],
)
def test_patterns_that_do_not_exist_are_refused(options, message):
    for what in (layers.Dense(3), [layers.Dense(3)], one_kernel([[1.0, 2.0]])):
        with pytest.raises(ValueError, match=message):
            tfmot.prune_low_magnitude(what, **options)
