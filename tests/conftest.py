"""What every test shares: quiet logs, a share of the cores, seeds and data."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # scikit-learn's threads wait by spinning

import keras
import pytest
import tensorflow as tf

from kprune import datasets

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2

# TensorFlow takes every core it sees; the workers share them instead.
tf.config.threading.set_intra_op_parallelism_threads(max(1, CORES // WORKERS))
tf.config.threading.set_inter_op_parallelism_threads(2)


def pytest_collection_finish():
    """Looks for garbage less often, and not among what imports have made.

    With the defaults Python spends a twentieth of the time on that.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


@pytest.fixture(autouse=True)
def fixed_seed():
    """Starts every test from one seed, whatever ran before it."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def digits():
    """Handwritten digits, float32 of 8 x 8 x 1 in [0, 1], as Keras returns data."""
    data = datasets.load("digits")
    return (data.x_train, data.y_train), (data.x_test, data.y_test)
