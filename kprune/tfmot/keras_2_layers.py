"""Layers of one Keras made again in the other, where they have the same names."""

import dataclasses
import importlib
from collections.abc import Callable

import keras

from kprune.copier import in_short
from kprune.tfmot import keras_2_configs
from kprune.tfmot.twins import as_name

_RENAMED = {"SyncBatchNormalization": "BatchNormalization", "ThresholdedReLU": "ReLU"}

_REMEDIES = {
    "Lambda": "Its function is code that may use what the other Keras lacks: pass one "
    "that does the same, `custom_objects={{{name!r}: function}}`.",
    "LocallyConnected1D": "Keras 3 has no such layer; write one.",
    "LocallyConnected2D": "Keras 3 has no such layer; write one.",
    "ClusterWeights": "Strip it first: `tfmot.clustering.keras.strip_clustering`.",
    # The first of TFMOT's layers, whichever it is, refuses the whole model.
    **dict.fromkeys(
        ("QuantizeLayer", "QuantizeWrapper", "QuantizeWrapperV2", "QuantizeAnnotate"),
        "A model in quantization-aware training can't come over: go back to the one "
        "before `quantize_model` or `quantize_annotate_model`, and use "
        "`kprune.quantize_aware`.",
    ),
}

# Layers whose type is that of what they return in tf_keras, which is known without it.
_WITHOUT_POLICY = (
    *("Discretization", "HashedCrossing", "Hashing", "IntegerLookup", "StringLookup"),
    "TextVectorization",
)


@dataclasses.dataclass(frozen=True)
class LayerMaker:
    """Makes layers again from their configs.

    Attributes:
        source: The module `keras` or `tf_keras` whose layers are given.
        target: The other one.
        custom_objects: Dict from the names of classes to target classes, from those of
            functions to functions, and from that of a Lambda layer to the function that
            takes the place of its own.
        twin_of: Function that makes the twin of a layer within a layer.
    """

    source: object
    target: object
    custom_objects: dict
    twin_of: Callable

    def __call__(self, layer, name=None):
        """Makes the target layer of a source layer, not built.

        Args:
            layer: The source layer.
            name: String, what the new one is called. Defaults to the layer's name.

        Raises:
            ValueError: If the target has no such class, or no such argument.
        """
        if type(layer).__name__ == "Lambda" and layer.name in self.custom_objects:
            function = self.custom_objects[layer.name]
            return self.target.layers.Lambda(function, name=as_name(layer.name))
        target_class = self._class_for(layer)
        config = keras_2_configs.translated(layer, self._to_keras_3)
        config |= self._parts(layer, config)
        config |= {"name": as_name(name or layer.name), "dtype": self._dtype(layer)}
        if config["dtype"] is None:
            del config["dtype"]
        try:
            with self.target.saving.custom_object_scope(self.custom_objects):
                return self._made(layer, target_class, config)
        except Exception as error:  # any that a constructor thinks of
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) can't be made as "
                f"{target_class.__module__}.{target_class.__name__}: {in_short(error)} "
                "Pass functions and classes that it misses in `custom_objects`, by "
                "their names."
            ) from error

    @property
    def _to_keras_3(self):
        return self.target is keras

    def _made(self, layer, target_class, config):
        if not target_class.__module__.startswith(self.target.__name__):
            return target_class.from_config(config)
        config = keras_2_configs.without_unknown(
            config, layer, target_class, self._to_keras_3
        )
        return target_class(**config)

    def _class_for(self, layer):
        name = type(layer).__name__
        if isinstance(self.custom_objects.get(name), type):
            return self.custom_objects[name]
        if type(layer).__module__.startswith(self.source.__name__):
            found = self._own_class(type(layer))
        else:
            registered = self.source.saving.get_registered_name(type(layer))
            found = self.target.saving.get_registered_object(registered)
        if found is None:
            remedy = _REMEDIES.get(
                name, "Pass a class: `custom_objects={{{kind!r}: ...}}`."
            )
            raise ValueError(
                f"{self.target.__name__} has no counterpart of the layer "
                f"{layer.name!r} ({name}). {remedy.format(name=layer.name, kind=name)}"
            )
        return found

    def _own_class(self, layer_class):
        """Returns the class of the same name, or `None`."""
        name = _RENAMED.get(layer_class.__name__, layer_class.__name__)
        if name == "Lambda":
            return None
        module = layer_class.__module__
        if hasattr(self.target.layers, name) or "applications" not in module:
            return getattr(self.target.layers, name, None)
        # `keras.applications` has layers of its own, such as ConvNeXt's `LayerScale`.
        module = module.replace(self.source.__name__, self.target.__name__, 1)
        return getattr(importlib.import_module(module), name, None)

    def _parts(self, layer, config):
        """Makes the layers again that are arguments of a layer."""
        if type(layer).__name__ == "Bidirectional":
            return self._directions(layer, config)
        made = {}
        for key in {"layer", "cell", "cells"} & config.keys():
            part = getattr(layer, key)
            is_list = isinstance(part, (list, tuple))
            made[key] = list(map(self.twin_of, part)) if is_list else self.twin_of(part)
        return made

    def _directions(self, layer, config):
        """Makes those of a `Bidirectional`, which copies them under other names."""
        made = {}
        for key, prefix in (("layer", "forward_"), ("backward_layer", "backward_")):
            if key in config:
                part = getattr(layer, f"{prefix}layer")
                made[key] = self(part, part.name.removeprefix(prefix))
        return made

    def _dtype(self, layer):
        if self._to_keras_3:
            name = layer._dtype_policy.name
            return None if name == "_infer" else name
        policy = layer.dtype_policy
        if getattr(policy, "quantization_mode", None):
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) is quantized "
                f"({policy.name}), which tf_keras does not know. Pass the model as it "
                "was before `quantize`."
            )
        if type(layer).__name__ in _WITHOUT_POLICY:
            return None
        return self.target.mixed_precision.Policy(policy.name)
