"""`PruningWrapper`: a layer with masks on its weights."""

import functools

import keras
from keras.saving import deserialize_keras_object

from kprune import prunable, registry
from kprune.channels.rules import ChannelRule, rule_of
from kprune.delegation import DelegatingWrapper
from kprune.mask_store import MaskStore, serialize_shared


@registry.register("layers")
class PruningWrapper(DelegatingWrapper):
    """Wraps a layer and holds a mask for each of its prunable weights.

    `kprune.prune` makes these. Wrap a layer by hand to build a model that is
    pruned from the start.

    The wrapper computes what the layer computes, under the layer's name, and
    what it does not know (`units`, `kernel`, `embeddings`) it asks the layer.
    Masked weights are zero after each optimizer update; inference writes nothing.

    Args:
        layer: The Keras layer to wrap, built or not. It is not copied.
        granularity: Name or object, what is removed together. Defaults to
            `"element"`.
        weights: List of strings, the paths of the weights to mask. Defaults to
            all that the rules for the layer's type call prunable.
        clock: The `Clock` that it shares with others. Defaults to one of its own.
        following: Dict from the paths of weights that lose what belongs to channels
            removed elsewhere to the shapes of their masks; `None` where channels are
            not coupled. Defaults to `None`.
        **kwargs: What every Keras layer takes; defaults are the layer's own.

    Attributes:
        layer: The wrapped layer.
        masks: Dict from weight path to boolean mask variable.

    Example:
    >>> wrapper = PruningWrapper(keras.layers.Dense(4, name="head"))
    >>> outputs = wrapper(keras.ops.zeros((1, 3)))
    >>> wrapper.name, wrapper.units, list(wrapper.masks)
    ('head', 4, ['kernel'])
    """

    def __init__(
        self,
        layer,
        granularity="element",
        weights=None,
        clock=None,
        following=None,
        **kwargs,
    ):
        if isinstance(layer, PruningWrapper):
            raise ValueError(f"The layer {layer.name!r} is wrapped already.")
        super().__init__(layer, **kwargs)
        granularity = registry.get("granularities", granularity)
        if isinstance(clock, dict):
            clock = deserialize_keras_object(clock)
        self.store = MaskStore(granularity, clock, name="store", dtype="float32")
        self.store.coupled = following is not None
        self._paths = weights
        self._shapes = {k: tuple(shape) for k, shape in (following or {}).items()}
        self._attached = False
        self._find = prunable.find_weights
        for name in _CALL_TRAITS:
            setattr(self, name, getattr(layer, name))
        self._attach_if_built()

    def select(self, selection, parents=()):
        """Narrows the weights to mask, as long as the layer is not built.

        Args:
            selection: `layer_choice.Selection`.
            parents: Sequence of the models around the layer.
        """
        self._find = functools.partial(
            prunable.find_weights, selection=selection, parents=parents
        )

    @property
    def masks(self):
        """Dict from weight path to mask variable; empty until the layer is built."""
        return {entry.path: entry.mask for entry in self.store.entries}

    @property
    def following(self):
        """Dict from path to shape, the masks that follow; `None` if not coupled."""
        return dict(self._shapes) if self.store.coupled else None

    def around(self, layer, weights, clock, following):
        """Returns a wrapper like this one around another layer.

        Args:
            layer: As for `PruningWrapper`, and so are the others.
            weights: List of paths.
            clock: `Clock`.
            following: Dict from path to shape, or `None`.
        """
        return PruningWrapper(layer, self.granularity, weights, clock, following)

    @property
    def paths(self):
        """List of the paths of the masked weights, `None` until they are known."""
        return self._paths

    @property
    def dtype_policy(self):
        """The dtype policy of the wrapped layer; setting it sets that."""
        return self.layer.dtype_policy

    @dtype_policy.setter
    def dtype_policy(self, value):
        self.layer.dtype_policy = value

    @property
    def granularity(self):
        """What is removed together."""
        return self.store.granularity

    def call_layer(self, *args, **kwargs):
        """Returns what the layer returns."""
        outputs = self.layer(*args, **kwargs)
        self._attach_if_built()
        return outputs

    def _maybe_build(self, call_spec):
        if not self._attached:
            self.layer._maybe_build(call_spec)
            self._attach_if_built()

    def build(self, *args, **kwargs):
        """Builds the layer, and the masks of its weights."""
        if not self.layer.built:
            self.layer.build(*args, **kwargs)
        self._attach_if_built()

    def get_build_config(self):
        """Returns what builds the wrapped layer."""
        return self.layer.get_build_config()

    def build_from_config(self, config):
        """Builds the wrapped layer from the config of its build."""
        if config and not self.layer.built and not _is_built_by_call(self.layer):
            self.layer.build_from_config(config)
        self._attach_if_built()

    def _attach_if_built(self):
        parts = self.layer._flatten_layers()
        if self._attached or not all(part.built for part in parts):
            return
        if self._paths is None:
            self._paths = [w.path for w in self._find(self.layer) if not w.reason]
        self.store.attach(self.layer, self._paths)
        self.store.follow(self.layer, self._shapes)
        self._attached = self.built = True

    def quantize(self, mode=None, config=None, **kwargs):
        """Refused by the wrapped layer, which says what to do instead."""
        return self.layer.quantize(mode, config=config, **kwargs)

    def compute_output_shape(self, *args, **kwargs):
        """Returns the shape of the layer's outputs."""
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        """Returns shapes and types of the layer's outputs."""
        spec = self.layer.compute_output_spec(*args, **kwargs)
        self._attach_if_built()
        return spec

    def get_config(self):
        """Returns the layer's config and what was resolved: paths, granularity."""
        config = super().get_config()
        config["clock"] = serialize_shared(self.store.clock)
        if _is_built_by_call(self.layer):
            config["layer"].pop("build_config", None)
        config["granularity"] = serialize_shared(self.granularity)
        config["weights"] = None if self._paths is None else list(self._paths)
        if self.store.coupled:
            config["following"] = {k: list(v) for k, v in self._shapes.items()}
        return config


@registry.register("channel_rules", PruningWrapper)
class PruningWrapperRule(ChannelRule):
    """Passes for the layer within: masks move no channel."""

    def trace(self, wrapper, inputs, tracer):
        """Follows channels through the layer."""
        rule = rule_of(wrapper.layer)
        outputs = None if rule is None else rule.trace(wrapper.layer, inputs, tracer)
        if outputs is None:
            text = f"no rule for the layer {type(wrapper.layer).__name__}"
            return tracer.stop(inputs, "unknown", text)
        return outputs


_CALL_TRAITS = (
    "_call_context_args",
    "_call_has_context_arg",
    "_convert_input_args",
    "_allow_non_tensor_positional_args",
    "autocast",
    "supports_jit",
)


def _is_built_by_call(layer):
    return type(layer).build is keras.Layer.build
