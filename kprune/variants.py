"""Whether a rule for a type of layer holds for a subclass, and for its kernels."""

import inspect

from kprune.registry import keys


def known_type(family, operation):
    """Returns the type that the rule for a layer or operation is registered with.

    Args:
        family: String, a family of rules by type.
        operation: A layer or `keras.Operation`.

    Returns:
        Its own type or the nearest base class, or `None` if there is no rule.
    """
    types = keys(family)
    return next((kind for kind in type(operation).__mro__ if kind in types), None)


# What may differ in a subclass without a change of what it computes.
_HARMLESS = """
    __annotations__ __dict__ __doc__ __firstlineno__ __init__ __module__ __qualname__
    __static_attributes__ __weakref__ build_from_config compute_output_shape
    compute_output_spec from_config get_build_config get_config
"""


def defined_anew(kind, known):
    """Lists what a subclass defines and the known class does, too.

    What `call` calls counts as much as `call`: with another `convolution_op` a layer
    computes something else. Constructors and configs don't count.

    Args:
        kind: Class.
        known: One of its base classes, or the class itself.

    Returns:
        List of strings, names in the alphabet's order.

    Example:
    >>> from keras import layers
    >>> class Own(layers.Dense):
    ...     def call(self, inputs):
    ...         return 2 * super().call(inputs)
    >>> defined_anew(Own, layers.Dense)
    ['call']
    """
    own = kind.__mro__[: kind.__mro__.index(known)]
    names = {name for base in own for name in vars(base)} - {*_HARMLESS.split()}
    return sorted(
        name
        for name in names
        if hasattr(known, name)
        and inspect.getattr_static(kind, name)
        is not inspect.getattr_static(known, name)
    )


def other_kernels(operation):
    """Returns what a layer has in the place of kernels of its own, or `None`.

    In int8, or with LoRA's matrices, `kernel` is no variable.

    Args:
        operation: A layer, looked at with all within it, or a `keras.Operation`.

    Returns:
        String, or `None`.
    """
    for part in getattr(operation, "_flatten_layers", list)():
        if getattr(part, "lora_enabled", False):
            return "matrices of LoRA beside its kernel"
        mode = getattr(part, "quantization_mode", None)
        if mode:
            return f"a kernel that is quantized ({mode})"
    return None
