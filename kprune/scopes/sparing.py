"""The scope that leaves the first and the last layer denser than the rest."""

import dataclasses

from kprune import registry
from kprune.registry import register
from kprune.scopes.base import Scope
from kprune.scopes.names import layer_of


@register("scopes")
class Sparing(Scope):
    """Sets a limit to the sparsity of the first and of the last layer.

    Both are small as a rule, and much depends on them. The others make up for it, so
    that the sparsity over all weights is the one that is asked for.

    Args:
        scope: Name or object, the scope that works within the limits. Defaults to
            `"layer_wise"`.
        first: Float in [0, 1], the highest sparsity of the first layer that is being
            pruned. Defaults to 0: it stays dense.
        last: Float in [0, 1], the highest sparsity of the last one. Defaults to 0.8.

    Raises:
        ValueError: If a limit is out of range; before training, if the others can't
            make up for it.

    Example:
    >>> import numpy as np
    >>> from kprune.scopes import Contender
    >>> scores = np.arange(10.0)
    >>> contenders = [Contender(scores, name=f"{n}/kernel") for n in ("a", "b", "c")]
    >>> keep = Sparing(first=0.2, last=0.5)(contenders, sparsity=0.5)
    >>> [int(k.sum()) for k in keep]
    [8, 2, 5]

    Reference:
        Gale, Elsen and Hooker, "The State of Sparsity in Deep Neural Networks", 2019,
        for the default values.
    """

    def __init__(self, scope="layer_wise", first=0.0, last=0.8):
        self.scope = registry.get("scopes", scope)
        self.first = _check_limit("first", first)
        self.last = _check_limit("last", last)

    def get_config(self):
        return {"scope": self.scope, "first": self.first, "last": self.last}

    @property
    def fixed_count(self):
        """Bool, as of the scope within."""
        return self.scope.fixed_count

    @property
    def ranks_layers_together(self):
        """Bool, as of the scope within."""
        return self.scope.ranks_layers_together

    @property
    def elementwise(self):
        """Bool, as of the scope within."""
        return self.scope.elementwise

    @property
    def within_weight(self):
        """String, as of the scope within."""
        return self.scope.within_weight

    def __call__(self, contenders, sparsity):
        """Returns the units that stay, as the scope within chooses them."""
        return self.scope(self._limited(contenders), sparsity)

    def asked(self, contenders, sparsity):
        """Returns what the scope within expects."""
        return self.scope.asked(self._limited(contenders), sparsity)

    def check(self, contenders, sparsity):
        """Raises if the sparsity can't be reached within the limits."""
        self.scope.check(self._limited(contenders), sparsity)

    def _limited(self, contenders):
        layers = [layer_of(c.name) for c in contenders]
        limits = {}
        for layer, limit in ((layers[0], self.first), (layers[-1], self.last)):
            limits[layer] = min(limit, limits.get(layer, 1.0))
        return [
            dataclasses.replace(c, reachable=min(c.reachable, limits.get(layer, 1.0)))
            for c, layer in zip(contenders, layers, strict=True)
        ]


def _check_limit(name, value):
    if isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(
            f"{name}={value} must be a number in [0, 1], the highest sparsity that "
            f"the {name} layer may be given."
        )
    return float(value)
