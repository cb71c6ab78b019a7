"""What two models cost, side by side."""

import dataclasses

from kprune.shrinking.costs import NUMBERS, LayerCost, ModelCosts, costs_of, in_digits
from kprune.tables import laid_out

_FIELDS = ("parameters", "macs", "activation_bytes")


@dataclasses.dataclass(frozen=True)
class CostComparison:
    """What two models cost; printed, a table of the layers that differ.

    Attributes:
        before: `ModelCosts` of the first.
        after: `ModelCosts` of the second.
    """

    before: ModelCosts
    after: ModelCosts

    @property
    def layers(self):
        """List of tuples of two `LayerCost`, of layers that have one name.

        All calls of a layer are one entry. Where only one of the models has it,
        the other entry is `None`.
        """
        before, after = _by_name(self.before), _by_name(self.after)
        return [(before.get(name), after.get(name)) for name in {**before, **after}]

    def left(self, number):
        """Returns which part of the costs is left.

        Args:
            number: String, `"parameters"`, `"macs"` or `"activation_bytes"`.

        Returns:
            Float, or `None` where one of the two is not known, or there were none.
        """
        was, now = getattr(self.before, number), getattr(self.after, number)
        return None if now is None or not was else now / was

    def to_dict(self):
        """Returns everything as plain Python, fit for JSON."""
        return {
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
            "left": {number: self.left(number) for number in _FIELDS},
        }

    def __str__(self):
        changed = [pair for pair in self.layers if pair[0] != pair[1]]
        rows = [[(a or b).name, *_arrows(a, b)] for a, b in changed]
        rows.append(["total", *_arrows(self.before, self.after)])
        rows.append(["left", *(_percent(self.left(number)) for number in _FIELDS)])
        title = f"{self.before.model}, for one example: before -> after"
        return f"{title}\n\n{laid_out(('layer', *NUMBERS), rows, numbers=NUMBERS)}"


def _by_name(costs):
    found = {}
    for layer in costs.layers:
        seen = found.get(layer.name)
        found[layer.name] = layer if seen is None else _sum(seen, layer)
    return found


def _sum(one, other):
    pairs = [(getattr(one, n), getattr(other, n)) for n in _FIELDS]
    return LayerCost(one.name, *(None if None in p else sum(p) for p in pairs))


def _arrows(before, after):
    """Returns each number before and after; a layer that is not there has none."""
    return [
        f"{_shown(before, number)} -> {_shown(after, number)}" for number in _FIELDS
    ]


def _shown(costs, number):
    return "-" if costs is None else in_digits(getattr(costs, number))


def _percent(part):
    return "?" if part is None else f"{part:.1%}"


def compare(before, after, print_fn=print):
    """Prints what a model and a smaller one made of it cost, layer by layer.

    Args:
        before: A built Keras model, pruned or not.
        after: Another one, as `kprune.shrink` returns it.
        print_fn: Function of a string that prints the table, or `None` to print
            nothing. Defaults to `print`.

    Returns:
        `CostComparison`, the same as data.

    Raises:
        TypeError: If one of the two is no Keras 3 model.
        ValueError: If one of them is not built.

    Example:
    >>> import keras
    >>> def model(units):
    ...     hidden = keras.layers.Dense(units, name="hidden")
    ...     body = [keras.Input((4,)), hidden, keras.layers.Dense(2, name="head")]
    ...     return keras.Sequential(body, name="net")
    >>> comparison = compare(model(8), model(4))
    net, for one example: before -> after
    <BLANKLINE>
    layer   parameters  multiply-adds  activation bytes
    hidden    40 -> 20       32 -> 16          32 -> 16
    head      18 -> 10        16 -> 8            8 -> 8
    total     58 -> 30       48 -> 24          40 -> 24
    left         51.7%          50.0%             60.0%
    >>> comparison.left("macs")
    0.5
    """
    result = CostComparison(costs_of(before), costs_of(after))
    if print_fn is not None:
        print_fn(str(result))
    return result
