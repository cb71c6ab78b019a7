"""tf_keras and TFMOT for the tests that compare with them, imported when needed."""

import warnings

import pytest

from kprune.tfmot import keras_2


@pytest.fixture(scope="session")
def tf_keras():
    """The module tf_keras."""
    return _imported(keras_2.import_tf_keras)


@pytest.fixture(scope="session")
def incumbent():
    """The module tensorflow_model_optimization."""
    return _imported(keras_2.import_tfmot)


def _imported(load):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TFMOT imports what is deprecated
            return load()
    except ImportError as error:
        pytest.skip(str(error))
