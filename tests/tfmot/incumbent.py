"""What TFMOT itself does: run as a script, since importing it changes `tf.keras`.

python -m tests.tfmot.incumbent results.pickle
"""

import enum
import inspect
import pickle
import sys

from tests.tfmot.comparison import RUNS, SCHEDULES, parameters, schedule, train

STEPS = range(25)


def masks_of(model):
    """Returns the masks and the kernels that the wrappers hold."""
    layers = [layer for layer in model.layers if hasattr(layer, "pruning_vars")]
    found = [variables for layer in layers for variables in layer.pruning_vars]
    masks = [mask.numpy().astype(bool) for _, mask, _ in found]
    return masks, [
        kernel.numpy() * m for (kernel, _, _), m in zip(found, masks, strict=True)
    ]


def names_of(module):
    """Maps the functions and classes of a module to their parameters."""
    return {
        name: sorted(value.__members__) if _is_enum(value) else parameters(value)
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_")
    }


def _is_enum(value):
    return inspect.isclass(value) and issubclass(value, enum.Enum)


def main(path):
    import keras
    import tensorflow as tf

    # TFMOT turns tf.keras into tf_keras unless that name was looked up before.
    assert tf.keras.__version__ == keras.__version__
    import tensorflow_model_optimization as tfmot
    import tf_keras

    results = {
        "names": {
            "sparsity": names_of(tfmot.sparsity.keras),
            "clustering": names_of(tfmot.clustering.keras),
        },
        "schedules": {name: said_by(schedule(tfmot, name)) for name in SCHEDULES},
        "runs": {
            name: train(tf_keras, tfmot, run, masks_of) for name, run in RUNS.items()
        },
    }
    with open(path, "wb") as file:
        pickle.dump(results, file)


def said_by(rule):
    """Returns at which steps a schedule prunes, and to what sparsity."""
    answers = [rule(step) for step in STEPS]
    return [bool(due) for due, _ in answers], [float(s) for _, s in answers]


if __name__ == "__main__":
    main(sys.argv[1])
