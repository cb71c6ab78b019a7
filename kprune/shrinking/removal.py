"""Makes a smaller model from one of whose channels some shall go."""

import inspect

import keras
import numpy as np

from kprune import cloning
from kprune.channels.rules import rule_of
from kprune.channels.rules.common import is_narrowed
from kprune.channels.rules.recurrent import kernels_of_states
from kprune.rebuilding import copy_operation, rebuilt
from kprune.weight_access import as_array


class ShrinkError(ValueError):
    """Raised where no smaller model can be made, or the one made would be wrong."""


class Narrowed:
    """What is left of tensors and weights once channels are gone.

    Args:
        tracing: `Tracing` of the model.
        removed: Bool array, by channel: which of them go.
    """

    def __init__(self, tracing, removed):
        self._tracing = tracing
        self._removed = removed
        self._calls = tracing.graph.first_calls()

    def weight(self, variable):
        """Returns the shape that is left of a variable, a tuple of ints."""
        known = self._tracing.weights.get(id(variable))
        if known is None:
            return tuple(variable.shape)
        return known.value.narrowed(self._removed)

    def kept(self, variable):
        """Returns what is left of a variable.

        Returns:
            Dict from axis to a bool array of its length, for axes that change.
        """
        known = self._tracing.weights.get(id(variable))
        return {} if known is None else known.value.kept(self._removed)

    def array(self, variable, array):
        """Returns what is left of an array that lies beside a variable."""
        for axis, kept in self.kept(variable).items():
            array = np.compress(kept, array, axis)
        return array

    def output_of(self, operation, place=0):
        """Returns the shape that is left of what an operation puts out."""
        number = self._calls[id(operation)].outputs[place]
        return self._tracing.values[number].narrowed(self._removed)

    def inputs_of(self, operation):
        """Returns the values that go into an operation, and what is left of them.

        Returns:
            List of dicts from axis to a bool array, what is kept along it.
        """
        return self._kept(self._calls[id(operation)].inputs)

    def outputs_of(self, operation):
        """Returns the values that an operation puts out, and what is left of them.

        Returns:
            List of dicts from axis to a bool array, what is kept along it.
        """
        return self._kept(self._calls[id(operation)].outputs)

    def arguments_of(self, operation):
        """Returns the arguments of an operation's call, a tuple and a dict."""
        call = self._calls[id(operation)]
        return call.arguments(call.node.input_tensors)

    def tensor(self, tensor):
        """Returns the shape that is left of a Keras tensor of the graph."""
        numbers = self._tracing.graph.tensors.get(id(tensor))
        if not numbers:
            return tuple(tensor.shape)
        return self._tracing.values[numbers[0]].narrowed(self._removed)

    def _kept(self, numbers):
        return [self._tracing.values[n].kept(self._removed) for n in numbers]


def without(model, tracing, removed):
    """Makes a model without some channels.

    Args:
        model: The model that was traced. It is not changed.
        tracing: Its `Tracing`.
        removed: Bool array, by channel: which of them go.

    Returns:
        A model of the same graph, layer names and inputs.

    Raises:
        ShrinkError: If a rule leaves a weight with another shape than the layer that
            is made by its config has.
    """
    narrowed = Narrowed(tracing, removed)
    return rebuilt(
        model,
        lambda layer, parents, copier: _narrow_copy(layer, narrowed, copier),
        lambda operation: _operation(operation, narrowed),
        narrowed.tensor,
    )


def _narrow_copy(layer, narrowed, copier):
    """Makes a narrow layer, and what carries over what is left of the state."""
    rule = rule_of(layer)
    changes = rule.config(layer, narrowed) if rule is not None else {}
    if is_narrowed(layer, narrowed):
        changes = _initializers(layer) | _without_arrays(changes)
    new = copier.copy(layer, changes)
    return new, lambda: _carry_over(layer, new, narrowed)


def _initializers(layer):
    """Returns others for a layer's initializers that hold arrays, a part of its config.

    Those have the shapes of the weights that were. What they hold is not needed, since
    all weights are carried over.
    """
    constructors = (kind.__init__ for kind in type(layer).__mro__)
    names = {name for one in constructors for name in inspect.signature(one).parameters}
    found = {name: getattr(layer, name, None) for name in sorted(names)}
    return {
        name: keras.initializers.Zeros()
        for name, one in found.items()
        if isinstance(one, keras.initializers.Initializer)
        and _holds_array(one.get_config())
    }


def _without_arrays(config):
    """Does the same within the configs of layers that a part of a config holds."""
    if isinstance(config, (list, tuple)):
        return type(config)(map(_without_arrays, config))
    if not isinstance(config, dict):
        return config
    return {
        name: keras.initializers.serialize(keras.initializers.Zeros())
        if name.endswith("_initializer") and _holds_array(part)
        else _without_arrays(part)
        for name, part in config.items()
    }


def _holds_array(part):
    if isinstance(part, dict):
        is_one = part.get("class_name") in ("__numpy__", "__tensor__")
        return is_one or any(map(_holds_array, part.values()))
    return bool(np.ndim(part))


def _operation(operation, narrowed):
    rule = rule_of(operation)
    new = rule and rule.stand_in(operation, narrowed)
    return new or copy_operation(operation)


def _carry_over(layer, new, narrowed):
    """Carries over what is left of a layer's state."""
    rule = rule_of(layer)

    def left_of(variable):
        array = narrowed.array(variable, as_array(variable))
        if rule is None:
            return array
        return rule.rescaled(layer, variable, array, narrowed)

    if rule is not None:
        _check_shapes(rule, layer, new, narrowed)
    cloning.copy_state(layer, new, value_of=left_of)
    for old, part in zip(layer._flatten_layers(), new._flatten_layers(), strict=True):
        if isinstance(old, keras.layers.RNN) and old.states is not None:
            _carry_states(old, part, narrowed)


def _check_shapes(rule, layer, new, narrowed):
    """Raises if a rule does not say of a weight what becomes of it."""
    for variable, mine in zip(layer.variables, new.variables, strict=False):
        left, needed = narrowed.weight(variable), tuple(mine.shape)
        if left != needed:
            raise ShrinkError(
                f"The layer {layer.name!r} ({type(layer).__name__}), made again for "
                f"the channels that are left, has {variable.name!r} of shape {needed}, "
                f"and its rule {type(rule).__name__} leaves {left} of "
                f"{tuple(variable.shape)}. Let `trace` hold all weights that have "
                f"channels, as in `tracer.hold(layer.{variable.name}, "
                "{0: tracer.pin(inputs[0], -1)})`, and `config` return the sizes that "
                "change; or leave the layer out with `skip`."
            )


def _carry_states(layer, new, narrowed):
    """Carries over what a stateful layer remembers, which is none of its variables."""
    states = keras.tree.flatten(layer.states)
    kernels = kernels_of_states(layer) or [None] * len(states)  # stay as they are
    ours = keras.tree.flatten(new.states)
    for state, kernel, mine in zip(states, kernels, ours, strict=True):
        array = as_array(state)
        if kernel is not None:
            units = narrowed.kept(kernel).get(len(kernel.shape) - 2)
            array = array if units is None else np.compress(units, array, -1)
        mine.assign(array)
