"""What a model must be so that layers and weights are all there is to save of it."""

import keras
import numpy as np

from kprune.compress.packing import ArchiveError
from kprune.inspection import check_numbers, is_pruned_in_place, own_weights

_LOOKUPS = (keras.layers.StringLookup, keras.layers.IntegerLookup)


def check_archivable(model):
    """Refuses a model of which an archive would lose a part.

    Args:
        model: A built Keras 3 model without masks.

    Raises:
        ArchiveError: If the model was pruned in place, a weight is NaN, a layer is
            quantized or a stateful recurrent one, or a layer keeps something that is
            neither a weight nor an argument of its constructor.
    """
    if is_pruned_in_place(model):
        raise ArchiveError(
            f"The model {model.name!r} was pruned or shared in place, since its class "
            "can't make a second one from a config, and an archive needs that config. "
            "Give the class a `get_config`, build the model anew, and give it the "
            "weights of this one after `kprune.strip`."
        )
    check_numbers(model, ArchiveError)
    for layer in model._flatten_layers():
        _check_stateless(layer)
        _check_precision(layer)
        _check_vocabulary(layer)
        _check_state(layer)


def _check_stateless(layer):
    if isinstance(layer, keras.layers.RNN) and layer.stateful:
        raise ArchiveError(
            f"The layer {layer.name!r} ({type(layer).__name__}) is stateful: it keeps "
            "the states of a batch, which no archive holds. Build the same model with "
            "stateful=False, give it the weights of this one, and save that."
        )


def _check_precision(layer):
    policy = layer.dtype_policy
    if isinstance(policy, keras.dtype_policies.QuantizedDTypePolicy):
        raise ArchiveError(
            f"The layer {layer.name!r} was converted by Keras' `quantize` to "
            f"{policy.name!r}, which no archive holds. Save the model as it was before "
            "and call `quantize` on what `kprune.load_archive` returns."
        )


def _check_vocabulary(layer):
    if not isinstance(layer, _LOOKUPS) or layer.get_config().get("vocabulary"):
        return
    if len(layer.get_vocabulary(include_special_tokens=False)):
        raise ArchiveError(
            f"The layer {layer.name!r} was adapted, and what it learnt is in no "
            "weight and no config, so that an archive would lose it. Such layers "
            "have to be made anew with their vocabulary: "
            "vocabulary=layer.get_vocabulary()."
        )


def _check_state(layer):
    if _is_of_user(layer, "save_assets"):
        _refuse_state(layer, "writes files of its own (`save_assets`)")
    if not _is_of_user(layer, "save_own_variables"):
        return
    state = {}
    layer.save_own_variables(state)
    weights = [np.asarray(weight) for weight in own_weights(layer)]
    for name, value in state.items():
        if not any(np.array_equal(np.asarray(value), weight) for weight in weights):
            _refuse_state(layer, f"saves {name!r} (`save_own_variables`)")


def _is_of_user(layer, method):
    owners = (cls for cls in type(layer).__mro__ if method in vars(cls))
    return not next(owners, keras.Layer).__module__.startswith("keras.")


def _refuse_state(layer, what):
    raise ArchiveError(
        f"The layer {layer.name!r} ({type(layer).__name__}) {what}, which is in no "
        "weight, so that an archive would lose it. Make it a weight (`add_weight`) or "
        "an argument that `get_config` returns."
    )
