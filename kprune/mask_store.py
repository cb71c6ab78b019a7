"""Where masks and clock live, and how zeros are held at zero.

A `MaskStore` is a layer without a call: it owns one boolean mask for each
pruned weight of another layer or model, and the clock. It sits inside a
`PruningWrapper` or a `PrunedModel`, so that whatever saves the model's weights
saves masks and clock.

The zeros are held by the constraint of the variable, which Keras applies inside
the compiled step after each optimizer update. No Python runs per batch for it.
"""

import dataclasses
import functools

import keras
import tensorflow as tf
from keras.saving import serialize_keras_object

from kprune import prunable
from kprune.clock import Clock, applying_optimizer
from kprune.naming import layer_path
from kprune.optimizer_slots import average_of
from kprune.registry import register
from kprune.scopes.names import WeightName
from kprune.tracked import Tracked


@dataclasses.dataclass
class MaskedWeight:
    """A weight variable with its mask.

    Attributes:
        path: String, where the variable is found in the layer or model that the
            store belongs to.
        variable: The Keras variable.
        mask: Boolean Keras variable of its shape, `True` keeps the weight.
        layer: The layer that owns the variable.
        name: `WeightName`, what the weight is called beside those of other layers,
            such as `"block_1/query_dense/kernel"`.
        tracked: The `Tracked` variables of the store.
        following: Boolean Keras variable that can be broadcast against the weight,
            what is left of the channels that it takes in, or `None`.
    """

    path: str
    variable: object
    mask: object
    layer: keras.Layer
    name: WeightName
    tracked: Tracked
    following: object = None

    def held(self, weight):
        """Returns a weight as it shall be after an update, and in a stripped model.

        Other kinds of entries hold more than zeros.

        Args:
            weight: Tensor or variable of the weight's shape: the weight, or the
                average that an optimizer keeps of it.

        Returns:
            Tensor like `weight`. What is held already comes back bit for bit.
        """
        return self.left_of(weight)

    def left_of(self, weight):
        """Returns a weight, tensor or variable, with zeros in place of what is gone."""
        if self.following is not None:
            weight = masked(weight, self.following)
        return masked(weight, self.mask)

    def track(self, kind, value):
        """Makes the variable of a kind that belongs to this weight.

        Args:
            kind: String, what is tracked.
            value: Array of the weight's shape, what it holds at first.
        """
        self.tracked.hold(self._name_of(kind), value)

    def tracked_as(self, kind):
        """Returns the variable of a kind that belongs to this weight, or `None`."""
        return self.tracked.get(self._name_of(kind))

    def _name_of(self, kind):
        return self.mask.name.replace("mask", kind)


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


class MaskConstraint(keras.constraints.Constraint):
    """Holds a weight as its entry says, after every optimizer update.

    The user's own constraint runs on what the mask leaves. The average that an
    optimizer with `use_ema=True` keeps of the weight is held too, and the clock is
    advanced. Where removed weights go on learning in a shadow, it takes up what they
    have learnt.

    Args:
        store: The `MaskStore` of the weight.
        entry: Its `MaskedWeight`.
        own: The constraint that the variable had before, or `None`.
    """

    def __init__(self, store, entry, own=None):
        self.store = store
        self.entry = entry
        self.own = own
        self.optimizer = self.shadow = None  # as the step traced last has them

    def __call__(self, weight):
        """Returns the weight as it shall be after the update."""
        self.store.clock.advance(weight)
        self.optimizer = applying_optimizer()
        average = average_of(self.entry.variable, self.optimizer)
        if average is not None:
            average.assign(self.entry.held(average))
        learnt = weight
        if self.own is not None:
            # Of what is removed it sees nothing: a norm or a budget is of the rest.
            weight = self.own(self.entry.left_of(weight))
        self.shadow = shadow = self.entry.tracked_as("shadow")
        if shadow is not None:
            # A removed weight was zero, so that what it is now is how far it moved.
            shadow.assign(tf.where(self.entry.mask, weight, shadow + learnt))
        return self.entry.held(weight)


def masked(weight, mask):
    """Returns a weight with exact zeros where the mask is `False`.

    Args:
        weight: Float tensor or variable.
        mask: Boolean tensor or variable of its shape.

    Returns:
        Tensor; kept weights are bit for bit the same.

    Example:
    >>> masked(tf.constant([1.5, float("nan")]), tf.constant([True, False])).numpy()
    array([1.5, 0. ], dtype=float32)
    """
    weight = tf.convert_to_tensor(weight)
    # As fast as `where` on large kernels and twice as fast on small ones (see
    # benchmarks/training_overhead.py); also turns NaN and -0.0 into 0.
    return tf.math.multiply_no_nan(weight, tf.cast(mask, weight.dtype))


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
