"""`ChannelRule`: how channels pass through one type of layer or operation."""

import keras

from kprune.registry import lookup
from kprune.variants import defined_anew, known_type, other_kernels


class ChannelRule:
    """Base of the rules for layer types and operations.

    Register a subclass with `kprune.register("channel_rules", LayerType)`. It counts
    for subclasses of the type, too, as long as these define nothing anew but their
    constructor and config. What has no rule, or one whose `trace` returns `None`,
    stops removal.

    Attributes:
        takes_variables: Bool, whether `trace` knows what to do with Keras variables
            among the call's arguments (see `Tracer.arguments`). Calls with some stop
            removal otherwise. Defaults to `False`.

    Example:
    >>> import keras, kprune
    >>> from kprune.channels.value import Value
    >>> class Scale(keras.layers.Layer):
    ...     def build(self, shape):
    ...         self.scale = self.add_weight(shape=shape[-1:], name="scale")
    ...     def call(self, inputs):
    ...         return inputs * self.scale
    >>> @kprune.register("channel_rules", Scale)
    ... class ScaleRule(ChannelRule):
    ...     def trace(self, layer, inputs, tracer):
    ...         tracer.hold(layer.scale, {0: tracer.pin(inputs[0], -1)})
    ...         return inputs
    """

    takes_variables = False

    def trace(self, operation, inputs, tracer):
        """Follows the channels through one call.

        Args:
            operation: The layer or `keras.Operation`.
            inputs: List of `Value`, the tensors that go in.
            tracer: `Tracer`, whose methods make, tie, fix and note channels.

        Returns:
            List of `Value`, one for each tensor that comes out; or `None` if the rule
            does not know what this call does.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no `trace`.")

    def config(self, layer, narrowed):
        """Returns what changes in a layer's config once channels are gone.

        Args:
            layer: The layer.
            narrowed: `Narrowed`, the shapes that are left.

        Returns:
            Dict, a part of the config. Defaults to none.
        """
        return {}

    def stand_in(self, operation, narrowed):
        """Returns what is called in the place of an operation that is no layer.

        Args:
            operation: The `keras.Operation`.
            narrowed: `Narrowed`.

        Returns:
            A function of the call's arguments, or `None` for a copy of the operation.
        """
        return None

    def rescaled(self, layer, variable, array, narrowed):
        """Returns the narrowed array of a weight as the narrowed layer needs it.

        It is multiplied by numbers that don't depend on it.

        Args:
            layer: The layer as it was.
            variable: Its Keras variable.
            array: Array, what is left of it.
            narrowed: `Narrowed`.

        Returns:
            Array of the same shape.
        """
        return array


def rule_of(operation):
    """Returns the `ChannelRule` for a layer or operation, or `None`."""
    found = lookup("channel_rules", type(operation))
    return None if found is None or _obstacle(operation) else found()


def has_rescaling_rule(operation):
    """Tells whether the rule of a layer, if any, rescales what is left of weights."""
    rule = rule_of(operation)
    return rule is not None and type(rule).rescaled is not ChannelRule.rescaled


def missing_rule(operation):
    """Says that there is no rule for a layer or operation, or for this use of it."""
    name = type(operation).__name__
    if rule_of(operation) is not None:
        inner = getattr(operation, "layer", None)
        use = f"the {type(inner).__name__} within" if inner else "this call"
        return f"the rule for {name} can't follow {use}"
    word = "layer" if isinstance(operation, keras.Layer) else "operation"
    return f"no rule for the {word} {name}{_obstacle(operation) or ''}"


def _obstacle(operation):
    """Returns why no rule counts for a layer or operation, a string, or `None`."""
    known = known_type("channel_rules", operation)
    if known is None:
        is_wrapper = isinstance(operation, keras.layers.Wrapper)
        return f" around {operation.layer.name!r}" if is_wrapper else None
    other = defined_anew(type(operation), known)
    if other:
        names = ", ".join(map(repr, other))
        return f", which defines {names} in another way than {known.__name__}"
    kernels = other_kernels(operation)
    return kernels and f" with {kernels}: shrink first"
