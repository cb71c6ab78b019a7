"""What is pruned in a model, and what is left dense for which reason."""

import dataclasses
import io

import keras
import numpy as np

from kprune import cloning, mask_store
from kprune.inspection import check_keras_model, is_pruned
from kprune.prunable import find_weights
from kprune.weight_access import as_array
from kprune.wrapper import PruningWrapper


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
    """

    layer: str
    weight: str
    shape: tuple
    size: int
    zeros: int
    masked: bool
    reason: str

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
        step: Int, the model's clock, or `None` if it holds no masks.
    """

    model: str
    weights: list
    step: int | None

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
            "size": self.size,
            "nonzero": self.nonzero,
            "sparsity": self.sparsity,
        }

    def __str__(self):
        from rich.console import Console
        from rich.table import Table

        title = f"{self.model}: {self.nonzero:,} of {self.size:,} weights are not zero"
        if self.step is not None:
            title += f"; pruned part {self.sparsity:.2%} zeros, at step {self.step}"
        table = Table(box=None)
        for column in ("layer", "weight", "shape"):
            table.add_column(column, no_wrap=True)
        table.add_column("zeros", justify="right", no_wrap=True)
        table.add_column("left dense because")
        for w in self.weights:
            zeros = f"{w.sparsity:.2%}"
            shape = " x ".join(map(str, w.shape))
            table.add_row(w.layer, w.weight, shape, zeros, w.reason)
        text = io.StringIO()
        Console(
            file=text,
            width=120,
            force_jupyter=False,
            force_terminal=False,
            no_color=True,
        ).print(table)
        lines = [title, "", *text.getvalue().splitlines()]
        return "\n".join(line.rstrip() for line in lines)


def summary(model, print_fn=print):
    """Prints what is pruned in a model, and why the rest is left dense.

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
    masked = {
        id(entry.variable)
        for store in mask_store.stores(model)
        for entry in store.entries
    }
    weights = [
        _record(layer, weight, id(weight.variable) in masked)
        for layer, weight in _weights(model, ())
    ]
    step = mask_store.clock_of(model) if is_pruned(model) else None
    result = PruningSummary(model.name, weights, step)
    if print_fn is not None:
        print_fn(str(result))
    return result


def _weights(layer, parents):
    """Yields each weight with the outermost layer, below models, that holds it."""
    if isinstance(layer, PruningWrapper):
        layer = layer.layer
    if isinstance(layer, keras.Model) and cloning.is_graph(layer):
        for child in layer.layers:
            yield from _weights(child, (*parents, layer))
        return
    for weight in find_weights(layer, parents=parents):
        if not isinstance(weight.layer, mask_store.MaskStore):
            yield layer, weight


_NOT_WRAPPED = "left out by `only` or `skip`, or the model is not pruned at all"


def _record(layer, weight, masked):
    if masked:
        trained = weight.variable.trainable
        reason = "" if trained else "frozen; pruned once it is trained"
    else:
        reason = weight.reason or _NOT_WRAPPED
    values = as_array(weight.variable)
    return WeightRecord(
        layer=layer.name,
        weight=weight.path,
        shape=tuple(weight.variable.shape),
        size=int(values.size),
        zeros=int(values.size - np.count_nonzero(values)),
        masked=masked,
        reason=reason,
    )
