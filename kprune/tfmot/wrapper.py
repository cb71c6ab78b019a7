"""`PruneLowMagnitude`: a wrapper that knows when its layer is pruned."""

import keras
from keras import saving

from kprune.granularity import Block, Element, NofM
from kprune.mask_store import serialize_shared
from kprune.registry import register
from kprune.schedules import Schedule
from kprune.tfmot.schedules import ConstantSparsity, PruningSchedule
from kprune.wrapper import PruningWrapper

_POOLING = {"AVG": "mean", "MAX": "max"}


@register("layers")
class PruneLowMagnitude(PruningWrapper):
    """A `kprune.PruningWrapper` that knows its schedule, as TFMOT's does.

    It keeps the name of its layer, which TFMOT prefixes by `prune_low_magnitude_`.

    Args:
        layer: The Keras layer to wrap, built or not. It is not copied.
        pruning_schedule: `PruningSchedule` or `kprune.Schedule`. Defaults to a sparsity
            of 0.5 from the first step on.
        block_size: Pair of ints, inputs and outputs that are removed together, on
            kernels of any rank (TFMOT: of rank 2); see `kprune.Block`. Defaults to
            single weights.
        block_pooling_type: `"AVG"` or `"MAX"`, whether a block is judged by the mean of
            its weights or by the best. Defaults to `"AVG"`.
        sparsity_m_by_n: Pair `(m, n)`: m ZEROS in every n weights along the inputs. The
            pattern is made at the first update and does not follow the schedule.
            Defaults to none.
        weights: List of paths, as for `kprune.PruningWrapper`.
        clock: The `Clock` that it shares with others.
        following: As for `kprune.PruningWrapper`.
        **kwargs: What every Keras layer takes.

    Raises:
        ValueError: If an argument is none of these.

    Example:
    >>> wrapper = PruneLowMagnitude(keras.layers.Dense(4), sparsity_m_by_n=(2, 4))
    >>> wrapper.granularity
    NofM(n=2, m=4, axis=-2)
    """

    def __init__(
        self,
        layer,
        pruning_schedule=None,
        block_size=(1, 1),
        block_pooling_type="AVG",
        sparsity_m_by_n=None,
        weights=None,
        clock=None,
        following=None,
        **kwargs,
    ):
        if not isinstance(layer, keras.Layer):
            raise ValueError(f"Expected a Keras 3 layer to wrap, got {layer!r}.")
        granularity = granularity_of(block_size, block_pooling_type, sparsity_m_by_n)
        super().__init__(layer, granularity, weights, clock, following, **kwargs)
        if getattr(self, "_input_shape_arg", None) is None:
            # For a Sequential that begins with this layer.
            self._input_shape_arg = getattr(layer, "_input_shape_arg", None)
        self.block_size = tuple(block_size)
        self.block_pooling_type = block_pooling_type
        self.sparsity_m_by_n = sparsity_m_by_n and tuple(sparsity_m_by_n)
        if isinstance(pruning_schedule, dict):
            pruning_schedule = saving.deserialize_keras_object(pruning_schedule)
        self.store.schedule = checked_schedule(pruning_schedule)

    @property
    def pruning_schedule(self):
        """When the layer is pruned, and how much."""
        return self.store.schedule

    def around(self, layer, weights, clock, following):
        """Returns a wrapper like this one around another layer."""
        return PruneLowMagnitude(
            layer,
            **self._arguments(),
            weights=weights,
            clock=clock,
            following=following,
        )

    def _arguments(self):
        return {
            "pruning_schedule": self.pruning_schedule,
            "block_size": self.block_size,
            "block_pooling_type": self.block_pooling_type,
            "sparsity_m_by_n": self.sparsity_m_by_n,
        }

    def get_config(self):
        """Returns the layer's config, with schedule, blocks and pattern."""
        config = super().get_config()
        del config["granularity"]
        schedule = serialize_shared(self.pruning_schedule)
        return {**config, **self._arguments(), "pruning_schedule": schedule}


def granularity_of(block_size, block_pooling_type, sparsity_m_by_n):
    """Returns what is removed together, by TFMOT's arguments.

    Args:
        block_size: Pair of ints.
        block_pooling_type: `"AVG"` or `"MAX"`.
        sparsity_m_by_n: Pair of ints, zeros and weights, or `None`.

    Returns:
        `kprune.Granularity`.

    Raises:
        ValueError: If an argument is none of these.
    """
    if block_pooling_type not in _POOLING:
        raise ValueError(
            f"block_pooling_type={block_pooling_type!r} must be 'AVG' or 'MAX'."
        )
    rows, columns = _two_ints("block_size", block_size)
    if sparsity_m_by_n:
        zeros, weights = _two_ints("sparsity_m_by_n", sparsity_m_by_n)
        if not 0 < zeros < weights:
            raise ValueError(
                f"sparsity_m_by_n={sparsity_m_by_n!r} must be (zeros, weights), some "
                "of the weights but not all of them, as in (2, 4)."
            )
        return NofM(weights - zeros, weights)
    if (rows, columns) == (1, 1):
        return Element()
    return Block(rows, columns, pooling=_POOLING[block_pooling_type])


def _two_ints(name, value):
    try:
        found = tuple(value)
    except TypeError:
        found = ()
    if len(found) != 2 or not all(type(number) is int for number in found):
        raise ValueError(f"{name}={value!r} must be a tuple or list of two ints.")
    return found


def checked_schedule(schedule):
    """Returns a schedule, or TFMOT's default, a sparsity of 0.5 from the start.

    Args:
        schedule: `PruningSchedule`, `kprune.Schedule`, or `None`.

    Raises:
        ValueError: If it is something else.
    """
    if schedule is None:
        return ConstantSparsity(0.5, 0)
    if not isinstance(schedule, (PruningSchedule, Schedule)):
        raise ValueError(
            f"Expected a schedule, got pruning_schedule={schedule!r}. Pass an object, "
            "such as kprune.tfmot.ConstantSparsity(0.5, begin_step=0)."
        )
    return schedule
