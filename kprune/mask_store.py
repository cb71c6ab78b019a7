"""Where masks and clock live.

A `MaskStore` is a layer without a call: it owns one boolean mask for each
pruned weight of another layer or model, and the clock. It sits inside a
`PruningWrapper` or a `PrunedModel`, so that whatever saves the model's weights
saves masks and clock.
"""

import functools

import keras
from keras.saving import serialize_keras_object

from kprune import prunable
from kprune.clock import Clock
from kprune.masked_weight import MaskConstraint, MaskedWeight
from kprune.naming import layer_path
from kprune.registry import register
from kprune.scopes.names import WeightName
from kprune.tracked import Tracked


@register("layers")
class MaskStore(keras.Layer):
    """Masks and clock for the weights of one layer or model.

    Args:
        granularity: What is removed together, a `Granularity`.
        clock: The model's `Clock`. Defaults to one of its own.

    Attributes:
        entries: List of `MaskedWeight`, those that are ranked and counted. Empty until
            `attach`.
        followers: List of `MaskedWeight`, those that lose what belongs to channels
            removed elsewhere, and are neither ranked nor counted. Their masks can be
            broadcast against them. Those of weights that are in `entries`, too, are
            their `following` as well.
        coupled: Bool, whether channels of the entries go together with all that
            hangs on them. Defaults to `False`.
        clock: As given.
        granularity: As given.
        schedule: What says when these weights are pruned, if a callback brings none of
            its own; see `kprune.tfmot`. Defaults to `None`.
        tracked: `Tracked`, variables that only some methods need.
    """

    def __init__(self, granularity, clock=None, **kwargs):
        super().__init__(**kwargs)
        self.granularity = granularity
        self.clock = clock or Clock()
        self.built = True
        # Not tracked as a dependency: the masks are weights of this layer, the
        # variables belong to another.
        object.__setattr__(self, "entries", [])
        object.__setattr__(self, "followers", [])
        self.coupled = False
        self.schedule = None
        self._undo = []
        self.step = self.clock.variable  # tracked here, so that they are saved
        self.plan = self.clock.plan
        self.tracked = Tracked(name="tracked", dtype="float32")

    def attach(self, root, paths):
        """Makes the masks of a layer's weights and sets their constraints.

        Args:
            root: The built layer or model that owns the weights.
            paths: List of strings, paths as `prunable.find_weights` gives them.

        Raises:
            ValueError: If `root` has no weight at one of the paths.
        """
        for weight in _weights_at(root, paths):
            name = f"mask_{len(self.entries)}"
            entry = self._entry(root, weight, name, weight.variable.shape)
            self._constrain(entry)
            self.entries.append(entry)
        self.refuse_conversions(root)

    def follow(self, root, shapes):
        """Makes masks that follow channels removed elsewhere.

        Args:
            root: The built layer that owns the weights.
            shapes: Dict from path to the shape of a mask that can be broadcast
                against the weight.
        """
        ranked = {id(entry.variable): entry for entry in self.entries}
        for weight in _weights_at(root, shapes):
            name = f"following_{len(self.followers)}"
            follower = self._entry(root, weight, name, shapes[weight.path])
            if id(weight.variable) in ranked:
                ranked[id(weight.variable)].following = follower.mask
            else:
                self._constrain(follower)
            self.followers.append(follower)

    def _entry(self, root, weight, mask_name, mask_shape):
        mask = self.add_weight(
            shape=mask_shape,
            dtype="bool",
            initializer="ones",
            trainable=False,
            aggregation="only_first_replica",
            name=mask_name,
        )
        setattr(self, mask.name, mask)  # as an attribute, for tf.train.Checkpoint
        name = self._name(root, weight.path)
        return MaskedWeight(
            weight.path, weight.variable, mask, weight.layer, name, self.tracked
        )

    def _constrain(self, entry):
        variable = entry.variable
        variable.constraint = MaskConstraint(self, entry, variable.constraint)

    @property
    def held(self):
        """List of all `MaskedWeight`, one a variable: entries and what else follows."""
        ranked = {id(entry.variable) for entry in self.entries}
        others = [f for f in self.followers if id(f.variable) not in ranked]
        return [*self.entries, *others]

    def _name(self, root, path):
        """Returns what a weight is called; a pruned model's own name is left out."""
        layer = layer_path(root, path)
        within = path.removeprefix(layer).removeprefix("/")
        if vars(root).get("kprune_store") is not self:
            layer = f"{root.name}/{layer}" if layer else root.name
        return WeightName(layer, within)

    def detach(self):
        """Gives the variables back their own constraints."""
        for entry in self.held:
            if isinstance(entry.variable.constraint, MaskConstraint):
                entry.variable.constraint = entry.variable.constraint.own
        for undo in self._undo:
            undo()
        self.entries.clear()
        self.followers.clear()
        self._undo.clear()

    def trained_entries(self):
        """Lists the entries that training changes, thus not the frozen ones."""
        return [e for e in self.entries if e.variable.trainable]

    def refuse_conversions(self, root):
        """Refuses what would leave a mask behind on another kind of kernel.

        Args:
            root: A layer or model; it and all within it refuse `quantize` and
                `enable_lora` until `detach`.
        """
        for layer in root._flatten_layers():
            for name in ("quantize", "enable_lora"):
                method = getattr(layer, name, None)
                if method is not None and not isinstance(method, _Refusal):
                    self._undo.append(functools.partial(setattr, layer, name, method))
                    setattr(layer, name, _Refusal(layer, name))


def _weights_at(root, paths):
    """Returns what is found in a layer or model at some paths."""
    found = {w.path: w for w in prunable.find_weights(root)}
    missing = [path for path in paths if path not in found]
    if missing:
        raise ValueError(
            f"The layer {root.name!r} ({type(root).__name__}) has no weight at "
            f"{', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, found))}. The class has changed since the "
            "model was pruned: restore its attribute names, or prune again."
        )
    return [found[path] for path in paths]


class _Refusal:
    def __init__(self, layer, method_name):
        self.layer = layer
        self.method_name = method_name
        self.policy = layer.dtype_policy

    def __call__(self, *args, **kwargs):
        # Where a quantized dtype policy is assigned, Keras keeps it first and then
        # asks the layer to follow.
        self.layer._dtype_policy = self.policy
        raise ValueError(
            f"{self.method_name}() was called on {self.layer.name!r}, in a model that "
            "is pruned: it would leave masks behind on weights that are no longer "
            "there. Call `model = kprune.strip(model)` first, then "
            f"`{self.method_name}` on the result."
        )


def serialize_shared(part):
    """Returns the config of an object that others may share, marked as such.

    Keras marks an object as shared when it meets it a second time. By then it has
    copied the config of one that sits inside another layer, so that tied weights
    and the common clock would come apart on loading. So it is met twice here.

    Args:
        part: A layer, a clock, or anything that Keras can serialise.

    Returns:
        Dict as `keras.saving.serialize_keras_object` makes it.
    """
    serialize_keras_object(part)
    return serialize_keras_object(part)
