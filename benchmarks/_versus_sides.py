"""Both libraries under the same words, so that each case is written once."""

import contextlib

import numpy as np
from _harness import settle_frameworks

import kprune

keras, tf_keras, tfmot = settle_frameworks()


class Kprune:
    """kprune on Keras 3."""

    name = "kprune"
    keras = keras
    scope = contextlib.nullcontext  # What loading a pruned model needs.
    strip = staticmethod(kprune.strip)

    def constant(self, sparsity, begin_step=0, frequency=1):
        """Returns a schedule that prunes once, or again after `frequency` steps.

        Where every step would prune to the same sparsity, there is nothing to repeat.
        """
        if frequency == 1:
            return kprune.ConstantSchedule(sparsity, begin_step)
        return kprune.PolynomialSchedule(
            sparsity,
            begin_step,
            begin_step + frequency,
            initial_sparsity=sparsity,
            frequency=frequency,
        )

    def polynomial(self, sparsity, begin_step, end_step, frequency=1):
        """Returns a schedule that rises from 0."""
        return kprune.PolynomialSchedule(
            sparsity, begin_step, end_step, frequency=frequency
        )

    def prune(self, model, schedule=None, *, block=None, two_of_four=False, only=None):
        """Returns the model with masks."""
        granularity = kprune.Block(*block) if block else "element"
        if two_of_four:
            granularity = kprune.NofM(2, 4)
        return kprune.prune(model, granularity=granularity, only=only)

    def callback(self, schedule):
        """Returns what prunes during `fit`."""
        return kprune.PruningCallback(schedule)

    def masks(self, model):
        """Returns how many masks a model has."""
        wrappers = kprune.PruningWrapper
        layers = model._flatten_layers()
        return sum(len(x.masks) for x in layers if isinstance(x, wrappers))


class Tfmot:
    """TFMOT on tf_keras."""

    name = "TFMOT"
    keras = tf_keras
    scope = staticmethod(tfmot.sparsity.keras.prune_scope)
    strip = staticmethod(tfmot.sparsity.keras.strip_pruning)

    def constant(self, sparsity, begin_step=0, frequency=1):
        """Returns a schedule that prunes again and again to one sparsity."""
        return tfmot.sparsity.keras.ConstantSparsity(
            sparsity, begin_step, frequency=frequency
        )

    def polynomial(self, sparsity, begin_step, end_step, frequency=1):
        """Returns a schedule that rises from 0."""
        return tfmot.sparsity.keras.PolynomialDecay(
            0.0, sparsity, begin_step, end_step, frequency=frequency
        )

    def prune(self, model, schedule=None, *, block=None, two_of_four=False, only=None):
        """Returns the model with wrappers; layers are not chosen by class here."""
        return tfmot.sparsity.keras.prune_low_magnitude(
            model,
            schedule or self.constant(0.5),
            block_size=block or (1, 1),
            sparsity_m_by_n=(2, 4) if two_of_four else None,
        )

    def callback(self, schedule):
        """Returns what training needs; the schedule is in the wrappers."""
        return tfmot.sparsity.keras.UpdatePruningStep()

    def masks(self, model):
        """Returns how many masks a model has."""
        return sum("mask" in variable.name for variable in model.variables)


def dense(side, kernel=None, **options):
    """Returns a model of one Dense layer with 8 inputs and 8 units, named `"only"`.

    Args:
        side: `Kprune` or `Tfmot`.
        kernel: Array of shape `(8, 8)`. Defaults to random numbers.
        **options: Of the layer.
    """
    layer = side.keras.layers.Dense(8, use_bias=False, name="only", **options)
    model = side.keras.Sequential([side.keras.Input((8,)), layer])
    random = np.random.default_rng(0).normal(size=(8, 8))
    model.set_weights([random if kernel is None else kernel])
    return model


def fitted(side, model, schedule, steps=20, **options):
    """Prunes a model and trains it; returns it with its wrappers.

    Args:
        side: `Kprune` or `Tfmot`.
        model: Model of that side's Keras.
        schedule: From `constant` or `polynomial`.
        steps: Int, of batches of one example.
        **options: Of `prune`, and of `fit`.
    """
    pruning = {"block", "two_of_four", "only"} & options.keys()
    pruning = {name: options.pop(name) for name in pruning}
    pruned = side.prune(model, schedule, **pruning)
    fit(side, pruned, schedule, steps, **options)
    return pruned


def fit(side, pruned, schedule, steps, *, before=(), optimizer=None, **compiling):
    """Trains a pruned model for some steps of one epoch, by SGD unless told otherwise.

    Args:
        side: `Kprune` or `Tfmot`.
        pruned: Model with wrappers.
        schedule: That of the wrappers.
        steps: Int.
        before: Callbacks that are listed before the one that prunes.
        optimizer: Optimizer. Defaults to SGD with a learning rate of 0.01.
        **compiling: Arguments of `compile`.
    """
    optimizer = optimizer or side.keras.optimizers.SGD(0.01)
    pruned.compile(optimizer, "mse", **compiling)
    random = np.random.default_rng(1)
    x, y = (
        random.normal(size=(steps, *shape[1:])).astype("float32")
        for shape in (pruned.input_shape, pruned.output_shape)
    )
    callbacks = [*before, side.callback(schedule)]
    pruned.fit(x, y, batch_size=1, verbose=0, callbacks=callbacks, shuffle=False)


def zeros(weights):
    """Says which part of some kernels is zero; biases are left out.

    Args:
        weights: List of arrays or variables.
    """
    kernels = [np.asarray(w) for w in weights if len(w.shape) > 1]
    values = np.concatenate([kernel.astype("float64").ravel() for kernel in kernels])
    if not np.isfinite(values).all():
        return "NaN"
    return f"{np.mean(values == 0):.0%} zeros"


def stripped_zeros(side, pruned):
    """Says which part of the kernels is zero in the model that is delivered."""
    return zeros(side.strip(pruned).get_weights())


def after_batch(side, number, look):
    """Returns a callback that looks at the model after one batch.

    Args:
        side: `Kprune` or `Tfmot`.
        number: Int, of the batch, from 1.
        look: Function of the model.
    """

    def on_train_batch_end(batch, logs=None):
        if batch + 1 == number:
            look(callback.model)

    callback = side.keras.callbacks.LambdaCallback(
        on_train_batch_end=on_train_batch_end
    )
    return callback
