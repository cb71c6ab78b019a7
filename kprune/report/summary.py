"""What is pruned in a model, what is left dense for which reason, what it costs."""

import dataclasses

import keras
import numpy as np

from kprune import cloning, mask_store, whole_model
from kprune.compress.sharing_store import SharedWeight
from kprune.delegation import DelegatingWrapper
from kprune.inspection import check_keras_model, is_pruned
from kprune.layer_choice import Selection
from kprune.layer_graph import layers_of_outputs
from kprune.prunable import find_weights
from kprune.quantize import left_in_float, wrappers
from kprune.shrinking.costs import ModelCosts, costs_of, in_digits, macs_by_weight
from kprune.tables import laid_out
from kprune.ties import kept_whole
from kprune.weight_access import as_array


@dataclasses.dataclass(frozen=True)
class WeightRecord:
    """One weight of a model.

    Attributes:
        layer: String, the name of the layer.
        weight: String, path of the weight within the layer.
        shape: Tuple of int.
        size: Int, number of elements.
        zeros: Int, how many of them are zero now.
        masked: Bool, whether a mask is on it.
        reason: String, why it is not pruned; empty for a masked weight that is
            trained.
        bits: Int, how many bits tell its values (but zero, if they are shared)
            apart; 8 where it is trained for int8, `None` in float.
        macs: Int, its multiply-adds for one example, zeros included, or `None` where
            they are not known.
    """

    layer: str
    weight: str
    shape: tuple
    size: int
    zeros: int
    masked: bool
    reason: str
    bits: int | None = None
    macs: int | None = None

    @property
    def sparsity(self):
        """Float, the fraction of zeros."""
        return self.zeros / self.size


@dataclasses.dataclass(frozen=True)
class PruningSummary:
    """All weights of a model; printed, it is a table.

    Attributes:
        model: String, the model's name.
        weights: List of `WeightRecord`, in the order of the layers.
        step: Int, the model's clock, or `None` if nothing prunes it.
        in_float: Dict from the names of the layers that a quantization-aware model
            computes in float to the reasons; empty for other models.
        costs: `ModelCosts`, parameters, multiply-adds and bytes of activations of
            each layer; printed, a table of its own.
    """

    model: str
    weights: list
    step: int | None
    costs: ModelCosts
    in_float: dict = dataclasses.field(default_factory=dict)

    @property
    def masked(self):
        """List of the records of weights with masks."""
        return [w for w in self.weights if w.masked]

    @property
    def dense(self):
        """List of the records of weights that are left dense."""
        return [w for w in self.weights if not w.masked]

    @property
    def size(self):
        """Int, number of weights in the model."""
        return sum(w.size for w in self.weights)

    @property
    def nonzero(self):
        """Int, how many of them are not zero."""
        return self.size - sum(w.zeros for w in self.weights)

    @property
    def sparsity(self):
        """Float, the fraction of zeros in the weights with masks."""
        size = sum(w.size for w in self.masked)
        return sum(w.zeros for w in self.masked) / size if size else 0.0

    def to_dict(self):
        """Returns everything as plain Python, fit for JSON."""
        return {
            **dataclasses.asdict(self),
            "costs": self.costs.to_dict(),
            "size": self.size,
            "nonzero": self.nonzero,
            "sparsity": self.sparsity,
        }

    def __str__(self):
        title = f"{self.model}: {self.nonzero:,} of {self.size:,} weights are not zero"
        if self.step is not None:
            title += f"; pruned part {self.sparsity:.2%} zeros, at step {self.step}"
        numbers = ("zeros", "bits", "multiply-adds")
        columns = ("layer", "weight", "shape", *numbers, "left dense because")
        table = laid_out(columns, map(_row, self.weights), numbers)
        lines = [title, self.costs.headline, "", table]
        if self.in_float:
            lines += ["", "in float:"]
            lines += [f"  {layer}: {reason}" for layer, reason in self.in_float.items()]
        return "\n".join(lines)


def _row(record):
    shape = " x ".join(map(str, record.shape))
    bits = "" if record.bits is None else str(record.bits)
    macs = "" if record.macs == 0 else in_digits(record.macs)
    zeros = f"{record.sparsity:.2%}"
    return record.layer, record.weight, shape, zeros, bits, macs, record.reason


def summary(model, print_fn=print):
    """Prints what is pruned in a model, why the rest is left dense, what it costs.

    Multiply-adds are those of the shapes: zeros are multiplied like other numbers until
    channels are removed (`kprune.shrink`).

    Args:
        model: A built `keras.Model`, pruned, stripped or neither.
        print_fn: Function of a string that prints the table, or `None` to print
            nothing. Defaults to `print`.

    Returns:
        `PruningSummary`, the same as data.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If the model is not built.

    Example:
    >>> import kprune
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(5, name="head")], name="tiny"
    ... )
    >>> for w in kprune.summary(kprune.prune(model), print_fn=None).weights:
    ...     print(w.layer, w.weight, w.shape, w.masked, w.reason)
    head kernel (4, 5) True
    head bias (5,) False a bias
    """
    check_keras_model(model)
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so its weights are not known. "
            "Call it on a batch, or give it an Input."
        )
    held, macs = _held(model), macs_by_weight(model)
    whole = kept_whole(model)
    selection = Selection(spared=_spared(model), dense=whole)
    weights = [
        _record(layer, weight, held.get(id(weight.variable)), macs, whole)
        for layer, weight in _weights(model, (), selection)
    ]
    step = whole_model.clock_of(model) if is_pruned(model) else None
    in_float = left_in_float(model) if wrappers(model) else {}
    result = PruningSummary(model.name, weights, step, costs_of(model), in_float)
    if print_fn is not None:
        print_fn(str(result))
    return result


@dataclasses.dataclass(frozen=True)
class _Held:
    """How training holds one weight: by a mask or not, and with how many bits."""

    masked: bool
    bits: int | None
    reason: str = ""


def _held(model):
    """Returns a `_Held` by the id of each variable that has masks or is rounded."""
    found = {}
    for entry in whole_model.masked_weights(model):
        is_shared = isinstance(entry, SharedWeight)
        bits = (entry.size - 2).bit_length() if is_shared else None
        found[id(entry.variable)] = _Held(True, bits)
    for wrapper in wrappers(model):
        if wrapper.kernel_variable is not None:
            key = id(wrapper.kernel_variable)
            pruned = found.get(key, _Held(wrapper.mask is not None, None))
            reason = _FINISHED if wrapper.static else _NOTHING_TO_KEEP
            found[key] = _Held(
                pruned.masked, pruned.bits or 8, "" if pruned.masked else reason
            )
    return found


def _spared(model):
    """Lists the layers whose output channels are the model's, where these matter."""
    granularities = [store.granularity for store in whole_model.stores(model)]
    removes_channels = any(g.channel_axis == -1 for g in granularities)
    return layers_of_outputs(model) if removes_channels else []


def _weights(layer, parents, selection):
    """Yields each weight with the outermost layer, below models, that holds it."""
    while isinstance(layer, DelegatingWrapper):
        layer = layer.layer
    if isinstance(layer, keras.Model) and cloning.is_graph(layer):
        for child in layer.layers:
            yield from _weights(child, (*parents, layer), selection)
        return
    for weight in find_weights(layer, selection, parents):
        if not isinstance(weight.layer, mask_store.MaskStore):
            yield layer, weight


_NOT_WRAPPED = "left out by `only` or `skip`, or the model is not pruned at all"
_NOTHING_TO_KEEP = "it had no zeros to keep, or only zeros"
_FINISHED = "frozen by kprune.finish"


def _record(layer, weight, held, macs, whole):
    values = as_array(weight.variable)
    return WeightRecord(
        layer=layer.name,
        weight=weight.path,
        shape=tuple(weight.variable.shape),
        size=int(values.size),
        zeros=int(values.size - np.count_nonzero(values)),
        masked=held is not None and held.masked,
        reason=_reason(weight, held, whole.get(id(weight.variable), "")),
        bits=held and held.bits,
        macs=macs.get(id(weight.variable)),
    )


def _reason(weight, held, whole):
    """Says why a weight is left dense; nothing for one that is pruned."""
    if held is None:
        return weight.reason or _NOT_WRAPPED
    if held.masked and not weight.variable.trainable:
        return "frozen; pruned once it is trained"
    return held.reason or whole
