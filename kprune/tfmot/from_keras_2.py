"""`from_tf_keras`: a model of tf_keras, pruned by TFMOT or not, as a Keras 3 model."""

import collections
import json
import warnings

import keras

from kprune.clock import Clock
from kprune.tfmot import keras_2, keras_2_operations, schedules
from kprune.tfmot.keras_2_compilation import compile_like
from kprune.tfmot.keras_2_layers import LayerMaker
from kprune.tfmot.same_outputs import check_same
from kprune.tfmot.twins import Twins
from kprune.tfmot.wrapper import PruneLowMagnitude
from kprune.whole_model import set_clock


def from_tf_keras(model_or_path, custom_objects=None):
    """Makes a Keras 3 model of one of tf_keras (Keras 2), with its masks and its step.

    What TFMOT has wrapped (`prune_low_magnitude`) is wrapped by `PruneLowMagnitude`
    here, with schedule, block size and pattern, and training goes on with
    `UpdatePruningStep` from the masks and the step that were reached. A model that was
    stripped or never pruned becomes a plain one; zeros stay zeros.

    Before the model is returned, its outputs are compared with those of the original on
    random inputs: they are equal within 1e-6 of the largest of them (8 roundings of the
    type that it computes in). In a deep model, where roundings add up to more, that
    holds for each layer by itself.

    Layers keep their names, without TFMOT's prefix. Other than in TFMOT, where weights
    are dense from the optimizer's update to the next forward pass, they are masked. A
    layer that is used several times counts a step a call there; here that is one. A
    model that was compiled is compiled again, if its losses and metrics are Keras' own
    or in `custom_objects`, and its optimizer goes on with its moments; one from a file
    only if tf_keras finds all of that, too. TFMOT does not save `sparsity_m_by_n`, so
    that a wrapper that comes from a file has the masks and not the pattern.

    Args:
        model_or_path: A Sequential or Functional tf_keras model, or the path of a file
            that tf_keras or the `tf.keras` of old has written, `.h5` or `.keras`. The
            model is not changed.
        custom_objects: Dict of what Keras 3 can't know: from the name of a layer class
            or a schedule class to a class of Keras 3 or kprune, from that of a function
            such as an activation to a function, from that of a `Lambda` layer, or of
            one that calls TensorFlow, to the function to use. Defaults to none.

    Returns:
        A Keras 3 model.

    Raises:
        ImportError: If tf_keras or TFMOT is not installed.
        TypeError: If it is no tf_keras model.
        ValueError: If the file can't be read, if a layer has no counterpart in Keras 3,
            or if the outputs would not be the same; with the layer's name.

    Example:
    >>> model = from_tf_keras("pruned_by_tfmot.h5")  # doctest: +SKIP
    >>> model.fit(x, y, callbacks=[UpdatePruningStep()])  # doctest: +SKIP
    """
    old = keras_2.opened(model_or_path)
    if not type(old).__module__.startswith("tf_keras."):
        warnings.warn(
            f"The model {old.name!r} is of the class {type(old).__name__}, whose own "
            "methods, such as `train_step`, are not brought over: the new model is a "
            "plain one of the same layers.",
            stacklevel=2,
        )
    translation = _Translation(dict(custom_objects or {}))
    _check_modes(_all_calls(old), translation.custom_objects)
    twins = translation.twins
    new = twins.of(old)
    variables = twins.carry_state(ignore=translation.wrappers)
    with keras_2.unchanged(old):
        translation.carry_masks(old, variables)
        check_same(old, twins)
    compile_like(old, new, variables, translation.custom_objects)
    return new


class _Translation:
    """How the layers of one tf_keras model become layers of Keras 3.

    Attributes:
        twins: `Twins`.
        wrappers: List of TFMOT's wrappers.
    """

    def __init__(self, custom_objects):
        self.custom_objects = custom_objects
        tf_keras = keras_2.import_tf_keras()
        self.wrappers = []
        self._schedules = {}
        self.clock = Clock()
        self.twins = Twins(
            tf_keras,
            keras,
            keras_2.calls_of,
            self._convert,
            _adapted,
            keras_2_operations.name_apart,
        )
        self._make = LayerMaker(tf_keras, keras, custom_objects, self.twins.of)

    def _convert(self, layer):
        if keras_2_operations.is_function(layer):
            return keras_2_operations.function_for(layer, self.custom_objects)
        if type(layer).__name__ == "PruneLowMagnitude":
            return self._wrapped(layer)
        return self._make(layer)

    def _wrapped(self, wrapper):
        self.wrappers.append(wrapper)
        own = self.twins.of(wrapper.layer)
        if not wrapper.pruning_vars:
            return own  # there was nothing to prune in it
        if getattr(own, "mask_zero", False):
            _drop_mask(own)
        return PruneLowMagnitude(
            own,
            self._schedule(wrapper),
            wrapper.block_size,
            wrapper.block_pooling_type,
            wrapper.sparsity_m_by_n,
            clock=self.clock,
        )

    def _schedule(self, wrapper):
        """Returns one schedule for all wrappers with schedules that are alike.

        A pruner is made for each schedule of the user's, and asks it at each step.
        """
        old = wrapper.pruning_schedule
        name = type(old).__name__
        known = self.custom_objects.get(name, getattr(schedules, name, None))
        if known is None:
            raise ValueError(
                f"The layer {wrapper.layer.name!r} is pruned by a schedule of your "
                f"own, {name}. Write it anew, derived from "
                "`kprune.tfmot.PruningSchedule`, and pass it: "
                f"`custom_objects={{{name!r}: ...}}`."
            )
        config = old.get_config()
        key = json.dumps([name, config], sort_keys=True, default=id)
        if key not in self._schedules:
            # With the config, whose parts are to keep their ids.
            self._schedules[key] = known.from_config(config), config
        return self._schedules[key][0]

    def carry_masks(self, model, variables):
        """Sets masks and clock, and the weights behind the masks to zero.

        Args:
            model: The tf_keras model.
            variables: Dict from the id of its variables to ours.
        """
        wrappers = [wrapper for wrapper in self.wrappers if wrapper.pruning_vars]
        if not wrappers:
            return
        for wrapper in wrappers:
            store = self.twins.of(wrapper).store
            _carry_masks(wrapper, store, variables)
        new = self.twins.of(model)
        store.refuse_conversions(new)  # in layers that are left dense, too
        set_clock(new, max(_steps(model, wrappers).values()))


def _carry_masks(wrapper, store, variables):
    """Sets the masks of one layer; see `_Translation.carry_masks`."""
    entries = {id(entry.variable): entry for entry in store.entries}
    for weight, mask, _ in wrapper.pruning_vars:
        entry = entries.get(id(variables[id(weight)]))
        if entry is None:
            layer = wrapper.layer
            raise ValueError(
                f"TFMOT has pruned {weight.name!r} of the layer {layer.name!r} "
                f"({type(layer).__name__}), which kprune does not prune. List it in "
                "`get_prunable_weights` of its class."
            )
        entry.mask.assign(mask.numpy() != 0)
        entry.variable.assign(entry.held(entry.variable))


def _drop_mask(embedding):
    """Lets an embedding mark no padding, as under TFMOT's wrapper."""
    embedding.mask_zero = embedding.supports_masking = False
    warnings.warn(
        f"The layer {embedding.name!r} marks padding (mask_zero=True), which TFMOT's "
        "wrapper does not pass on: the model was trained without, and is brought over "
        "with mask_zero=False. Where padding shall count, bring over what "
        "`tfmot.sparsity.keras.strip_pruning` gives, and prune that.",
        stacklevel=6,
    )


def _adapted(layer, args, kwargs):
    """Returns the arguments of a call as Keras 3 takes them.

    A recurrent layer of tf_keras takes its first states in a list with the inputs.
    """
    kwargs = {name: part for name, part in kwargs.items() if name != "training"}
    is_recurrent = hasattr(layer, "_num_constants")
    if is_recurrent and args and isinstance(args[0], (list, tuple)):
        if layer._num_constants:
            raise ValueError(
                f"The layer {layer.name!r} is called with `constants`, which Keras 3 "
                "has not. Give the cell an input for them."
            )
        (inputs, *states), *args = args
        # Keras 3 passes on the mask of a layer's only tensor, not if there are states.
        kwargs = {"mask": getattr(inputs, "_keras_mask", None), **kwargs}
        return (inputs, *args), {**kwargs, "initial_state": states}
    return args, kwargs


def _check_modes(calls, custom_objects):
    """Looks for layers that are always, or never, in training.

    In Keras 3 the call of the whole model overrules what is said in its graph.
    """
    named = {True: set(), False: set()}
    for call in calls:
        if type(call.operation).__name__ not in custom_objects:
            named.get(call.kwargs.get("training"), set()).add(repr(call.operation.name))
    if named[True]:
        raise ValueError(
            f"The layers {', '.join(sorted(named[True]))} are called with "
            "training=True, for inference, too. In Keras 3 the call of the model "
            "decides: write a layer that is always in training, and pass it in "
            "`custom_objects`."
        )
    if named[False]:
        warnings.warn(
            f"The layers {', '.join(sorted(named[False]))} are called with "
            "training=False. In Keras 3 the call of the model decides, so that `fit` "
            "will train them: freeze them, `layer.trainable = False`, if it shall not.",
            stacklevel=3,
        )


def _steps(model, wrappers):
    """Returns how many steps each wrapper has seen, by its layer's name.

    One that is used several times has counted each call; -1 is before the first step.
    """
    calls = collections.Counter(id(call.operation) for call in _all_calls(model))
    steps = {
        wrapper.layer.name: max(int(wrapper.pruning_step.numpy()), 0)
        // max(calls[id(wrapper)], 1)
        for wrapper in wrappers
    }
    if len(set(steps.values())) > 1:
        warnings.warn(
            f"The layers of the model {model.name!r} have counted different steps: "
            f"{steps}. There is one clock here; it goes on from {max(steps.values())}.",
            stacklevel=4,
        )
    return steps


def _all_calls(model):
    """Yields the calls of a model, and of those in it each time these are called."""
    for call in keras_2.calls_of(model):
        yield call
        if hasattr(call.operation, "_nodes_by_depth"):
            yield from _all_calls(call.operation)
