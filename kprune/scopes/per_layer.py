"""The scope that takes the sparsity of each layer from the user."""

import fnmatch
import math
from collections.abc import Mapping

from kprune.arguments import check_sparsity
from kprune.registry import register
from kprune.scopes.base import Scope, keep_best
from kprune.scopes.names import layer_of


@register("scopes")
class PerLayer(Scope):
    """Prunes every layer to the sparsity that is given for it.

    The sparsities given are final ones: let the schedule end at the highest of them.
    While it rises, all rise in proportion.

    Args:
        sparsities: Dict from a name to a float in [0, 1). A name is that of a layer
            (`"block_1"`), of a weight (`"block_1/kernel"`), or a pattern for either
            (`"block_*"`). An exact name counts before a pattern, and of several
            patterns the first. What is given for a layer holds for those whose
            channels go together with its own.
        default: Float in [0, 1), for layers that no name matches. Defaults to 0:
            they stay dense.

    Raises:
        ValueError: If a sparsity is out of range; before training, if a name matches
            nothing, if layers that lose the same channels are given different
            sparsities, or if the schedule ends elsewhere.

    Example:
    >>> import numpy as np
    >>> from kprune.scopes import Contender
    >>> scores = np.arange(8.0)
    >>> contenders = [Contender(scores, name=f"{n}/kernel") for n in ("a", "head")]
    >>> scope = PerLayer({"head": 0.25}, default=0.75)
    >>> [int(k.sum()) for k in scope(contenders, sparsity=0.75)]
    [2, 6]
    """

    def __init__(self, sparsities, default=0.0):
        if not isinstance(sparsities, Mapping):
            raise ValueError(
                f"sparsities={sparsities!r} must be a dict from names of layers to "
                "their sparsities, as in {'block_1': 0.5}."
            )
        self.sparsities = {
            name: check_sparsity(f"The sparsity of {name!r}", sparsity)
            for name, sparsity in sparsities.items()
        }
        self.default = check_sparsity("default", default)

    def get_config(self):
        return {"sparsities": dict(self.sparsities), "default": self.default}

    def __call__(self, contenders, sparsity):
        """Yields the units of each weight that stay, weight after weight."""
        final = self._final(contenders)
        rise = sparsity / (max(final) or 1)
        for contender, own in zip(contenders, final, strict=True):
            yield keep_best([contender], rise * own)[0]

    def asked(self, contenders, sparsity):
        """Returns the mean of the sparsities, weighed by the sizes of the weights."""
        final = self._final(contenders)
        zeros = sum(c.size * own for c, own in zip(contenders, final, strict=True))
        size = sum(c.size for c in contenders)
        return sparsity / (max(final) or 1) * zeros / size

    def check(self, contenders, sparsity):
        """Raises for names without a layer, and what can't be reached."""
        final = self._final(contenders)
        for contender, own in zip(contenders, final, strict=True):
            if own > contender.reachable:
                raise ValueError(
                    f"PerLayer asks for a sparsity of {own:g} in {contender.name!r}, "
                    f"which may be given {contender.reachable:g} at most. Lower it, or "
                    "take another granularity."
                )
        if not math.isclose(sparsity, max(final)):
            raise ValueError(
                f"The schedule rises to a sparsity of {sparsity:g}, and the highest in "
                f"{self!r} is {max(final):g}. Let the schedule end there, so that each "
                "layer reaches its own."
            )

    def _final(self, contenders):
        """Returns the sparsity of each weight."""
        return [self.default if s is None else s for s in self.given(contenders)]

    def given(self, contenders):
        """Returns the sparsity that a name gives to each weight.

        Args:
            contenders: List of `Contender` of which only the names are looked at.

        Returns:
            List of floats, `None` where no name matches.

        Raises:
            ValueError: If a name matches nothing.
        """
        called = [c.names or [c.name] for c in contenders]
        names = [list(map(_names_of, some)) for some in called]
        known = [name for some in names for of_weight in some for name in of_weight]
        for name in self.sparsities:
            if name not in known and not fnmatch.filter(known, name):
                weights = [name for some in called for name in some]
                layers = dict.fromkeys(map(layer_of, weights))
                raise ValueError(
                    f"PerLayer got the name {name!r}, which matches nothing that is "
                    f"being pruned. These are {', '.join(map(repr, layers))}. Mend the "
                    "name, or use a pattern such as 'block_*'."
                )
        # A name with brackets is no pattern for other layers.
        patterns = [name for name in self.sparsities if name not in known]
        found = [[self._find(names, patterns) for names in some] for some in names]
        return list(map(_agreed, called, found))

    def _find(self, names, patterns):
        exact = [n for n in reversed(names) if n in self.sparsities]
        patterns = [p for p in patterns if fnmatch.filter(names, p)]
        found = [self.sparsities[name] for name in exact + patterns]
        return found[0] if found else None


def _agreed(names, sparsities):
    """Returns the one sparsity that is given for weights ranked as one, or `None`."""
    given = {n: s for n, s in zip(names, sparsities, strict=True) if s is not None}
    if len(set(given.values())) > 1:
        several = ", ".join(f"{s:g} for {layer_of(n)!r}" for n, s in given.items())
        raise ValueError(
            f"PerLayer got {several}, and these lose the same channels, since they "
            "are added to each other or hang together otherwise. Give one sparsity "
            "for all of them."
        )
    return next(iter(given.values()), None)


def _names_of(name):
    """Returns what a weight may be called: `a/b/kernel` is in `a`, `b`, and `a/b`."""
    parts = name.split("/")
    ends = range(1, len(parts))
    of_layers = ["/".join(parts[i:end]) for end in ends for i in reversed(range(end))]
    of_weight = ["/".join(parts[i:]) for i in reversed(range(len(parts) - 1))]
    return of_layers + (of_weight or [name])
