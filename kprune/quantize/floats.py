"""What of a model stays in float, and why."""

import warnings

from kprune.quantize.plan import nested_calls, reads_floats
from kprune.quantize.rules import rule_for
from kprune.quantize.wrapper import QuantizationWrapper

_LEFT_OUT = "left out by `only` or `skip`"
_NAMED_AT_MOST = 5


class FloatLayers:
    """Tells which layers stay in float: those left out, and those without a rule.

    Args:
        model: A built Sequential or Functional model. Layers of models made from it
            are known by their names.
        selection: `kprune.layer_choice.Selection`, what `only` and `skip` select.
    """

    def __init__(self, model, selection):
        self._left_out = {
            _path(call.operation, parents)
            for call, parents in nested_calls(model)
            if not selection.selects([*parents, call.operation])
        }

    def __call__(self, layer, parents):
        """Returns whether a layer stays in float, by its place in the model."""
        return self.is_left_out(layer, parents) or isinstance(rule_for(layer), str)

    def is_left_out(self, layer, parents):
        """Returns whether `only` or `skip` leave it out."""
        return _path(layer, parents) in self._left_out

    def check(self, model):
        """Warns of layers that have no form in int8 and were not named in `skip`.

        Args:
            model: The model whose layers are about to be wrapped.

        Raises:
            ValueError: If nothing is left to quantize.
        """
        reasons = {}
        can_any = False
        for call, parents in nested_calls(model):
            if self.is_left_out(call.operation, parents):
                continue
            reason = _reason(call)
            can_any = can_any or _can_compute(call)
            if reason:
                reasons.setdefault(reason, {})[call.operation.name] = None
        listed = "; ".join(f"{_named(names)}: {r}" for r, names in reasons.items())
        if not can_any:
            raise ValueError(
                f"Nothing of the model {model.name!r} can be quantized. "
                + (f"{listed}." if listed else "`only` and `skip` leave nothing.")
            )
        if reasons:
            warnings.warn(
                f"Some layers of {model.name!r} stay in float, between rounded ones. "
                f"{listed}. Name them in `skip` if that is what you want, or replace "
                "them.",
                stacklevel=3,
            )


def left_in_float(model):
    """Lists what a quantization-aware model computes in float.

    Args:
        model: A model that `quantize_aware` has made.

    Returns:
        Dict from the name of a layer to the reason. Layers that compute nothing, such
        as `Flatten`, are not in it.

    Example:
    >>> import keras, kprune
    >>> parts = keras.layers.Dense(2, name="a"), keras.layers.Dense(2, name="b")
    >>> model = keras.Sequential([keras.Input((3,)), *parts])
    >>> left_in_float(kprune.quantize_aware(model, skip="a"))
    {'a': 'left out by `only` or `skip`'}
    """
    return {
        call.operation.name: _reason(call) or _LEFT_OUT
        for call, _ in nested_calls(model)
        if not isinstance(call.operation, QuantizationWrapper)
        and (_reason(call) or _can_compute(call))
    }


def _path(layer, parents):
    return (*(parent.name for parent in parents), layer.name)


def _reason(call):
    """Says why a layer can't compute in int8; `None` if it can, or has no need to."""
    rule = rule_for(call.operation)
    gives_floats = any("float" in tensor.dtype for tensor in call.outputs)
    return rule if isinstance(rule, str) and gives_floats else None


def _can_compute(call):
    """Tells whether a layer is one that int8 computes, and does not only pass on."""
    rule = rule_for(call.operation)
    return not isinstance(rule, str) and not rule.passes and reads_floats(call)


def _named(names):
    shown = ", ".join(map(repr, list(names)[:_NAMED_AT_MOST]))
    more = len(names) - _NAMED_AT_MOST
    return f"{shown} and {more} more" if more > 0 else shown
