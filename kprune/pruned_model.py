"""`PrunedModel`: masks for models that only their own class can build.

A subclassed model can't be put together again from wrapped layers: its class
makes its layers. It keeps its class, with its `call` and `train_step`, and gets
one `MaskStore` for all its weights. Only what it tells Keras about itself when
it is saved differs, so that loading it makes the masks again.
"""

import copy
import dataclasses
import functools

from keras import saving

from kprune import copier, prunable, registry
from kprune.mask_store import MaskStore, serialize_shared


@registry.register("layers")
class PrunedModel:
    """What a subclassed model is as well, while it is pruned.

    Not made by hand: `kprune.prune` returns an object that is an instance of
    the user's class and of this one.
    """

    @property
    def weights(self):
        """The model's weights, and the masks with their clock."""
        return _with_store(self, super().weights, "weights")

    @property
    def variables(self):
        """The model's variables, and the masks with their clock."""
        return _with_store(self, super().variables, "variables")

    def get_config(self):
        """Returns the model's own config with the paths of its pruned weights."""
        origin, store = self.kprune_origin, self.kprune_store
        if origin.config is None:
            raise ValueError(
                f"The model {self.name!r} ({type(self).__name__}) was pruned in "
                "place, since it can't be made again from a config, so that it "
                "can't be saved as a whole. Save its weights (`save_weights`), or "
                "give its class a `get_config` and prune again."
            )
        return {
            "model": copy.deepcopy(origin.config),
            "weights": list(origin.paths),
            "granularity": serialize_shared(store.granularity),
            "clock": serialize_shared(store.clock),
            "schedule": saving.serialize_keras_object(store.schedule),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the user's model from its config, then the masks."""
        model = saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        granularity = registry.get("granularities", config["granularity"])
        clock = saving.deserialize_keras_object(config["clock"])
        attach(model, config["weights"], granularity, clock, config["model"])
        schedule = saving.deserialize_keras_object(config.get("schedule"))
        model.kprune_store.schedule = schedule
        return model

    def build_from_config(self, config):
        """Builds the model, then the masks of its weights."""
        super().build_from_config(config)
        _attach_if_built(self)
        if config and not self.kprune_store.entries:
            self.kprune_store.attach(self, self.kprune_origin.paths)


def _with_store(model, found, kind):
    # A Sequential does not count a layer that is only an attribute.
    store = vars(model).get("kprune_store")
    known = {id(v) for v in found}
    own = [] if store is None else getattr(store, kind)
    return found + [v for v in own if id(v) not in known]


def attach(model, paths, granularity, clock, plain_config):
    """Turns a model into a pruned one, in place.

    Args:
        model: A `keras.Model`.
        paths: List of strings, paths of the weights to mask.
        granularity: What is removed together, a `Granularity`.
        clock: The model's `Clock`.
        plain_config: What `keras.saving.serialize_keras_object` gives for the
            model, or `None` if it can't be made from a config.

    Returns:
        The same object.
    """
    model.__class__ = class_for(PrunedModel, type(model))
    model.kprune_origin = _Origin(plain_config, list(paths))
    model._tracker.unlock()
    model.kprune_store = MaskStore(
        granularity, clock, name="kprune_store", dtype="float32"
    )
    _attach_if_built(model)
    return model


@dataclasses.dataclass
class _Origin:
    """What a pruned model was made from; no dict of its own, which Keras tracks."""

    config: dict | None
    paths: list


def _attach_if_built(model):
    found = {w.path for w in prunable.find_weights(model)}
    if not model.kprune_store.entries and found.issuperset(model.kprune_origin.paths):
        model.kprune_store.attach(model, model.kprune_origin.paths)


def detach(model):
    """Turns a pruned model into what it was before, in place.

    Args:
        model: A model that `attach` has changed.

    Returns:
        The same object.
    """
    store = model.kprune_store
    store.detach()
    model._tracker.unlock()
    model._tracker.untrack(store)
    del model.kprune_store, model.kprune_origin
    model.__class__ = plain_class(model)
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)  # the old one is traced with masks
    return model


def plain_class(model):
    """Returns the class that a pruned model had before."""
    return next(c for c in type(model).__mro__ if not issubclass(c, PrunedModel))


@functools.cache
def class_for(kind, plain):
    """Returns the class of models that are of a user's class and of `kind` as well.

    Args:
        kind: `PrunedModel` or a registered class derived from it.
        plain: The user's class.

    Returns:
        A class, one and the same for the same arguments.
    """
    prefix = kind.__name__.removesuffix("Model")
    both = type(f"{prefix}{plain.__name__}", (kind, plain), {})
    # Keras shall save it as `kind`, which can be loaded anywhere ...
    register = saving.register_keras_serializable("kprune", kind.__name__)
    register(both)
    # ... and shall find that one, not the last class made here.
    register(kind)
    return both


def config_of(model):
    """Returns the serialised form of a model as it is without masks.

    Args:
        model: A `keras.Model`, pruned or not.

    Returns:
        Dict as `keras.saving.serialize_keras_object` makes it, or `None`.
    """
    if isinstance(model, PrunedModel):
        return model.kprune_origin.config
    config = saving.serialize_keras_object(model)
    # How it is compiled, the pruned model tells itself.
    config.pop("compile_config", None)
    return config


def plain_copy(model):
    """Makes the user's model again, without masks and with fresh weights.

    Args:
        model: A pruned model that was not pruned in place.

    Returns:
        A model of the user's class.
    """
    with saving.custom_object_scope(copier.objects_within(model)):
        return plain_class(model).from_config(
            copy.deepcopy(model.kprune_origin.config["config"])
        )
