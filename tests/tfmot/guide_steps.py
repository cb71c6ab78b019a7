"""What the guides of TFMOT begin with, and how they look at files."""

import zipfile

import keras
import numpy as np

WIDTH = 20
X = np.random.default_rng(0).normal(size=(1, WIDTH)).astype("float32")
Y = keras.utils.to_categorical([3], num_classes=WIDTH)


def set_up_model():
    """Makes the model of the comprehensive guides."""
    return keras.Sequential(
        [keras.layers.Dense(WIDTH, input_shape=[WIDTH]), keras.layers.Flatten()]
    )


def compiled(model):
    """Compiles a model as the guides do, and returns it."""
    model.compile("adam", keras.losses.categorical_crossentropy, metrics=["accuracy"])
    return model


def zipped_size(path):
    """Returns the bytes of an archive of one file."""
    archive = path.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", compression=zipfile.ZIP_DEFLATED) as file:
        file.write(path)
    return archive.stat().st_size
