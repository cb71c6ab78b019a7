"""Which layers of a model the user's `only` and `skip` choose."""

import fnmatch

import keras


class Selection:
    """What the user's `only` and `skip` select.

    Args:
        only: A layer name, a glob pattern such as `"block_*"`, a layer, a layer
            class, a function of a layer that returns a bool, or a list of these.
            `None` selects every layer. A name or pattern with a slash, as in
            `"body/stem"`, is of a layer together with the models or layers around it;
            any other is of the layer alone.
        skip: The same, layers to leave out. `None` leaves out none.
        spared: Sequence of layers whose channels are the model's outputs, to leave
            out unless `only` names them. Defaults to none.
        dense: Dict from the id of a variable to the reason why it is left out.
            Defaults to none.

    Raises:
        ValueError: If an entry is none of these.

    Example:
    >>> from keras import layers
    >>> selection = Selection(only="conv_*", skip=layers.Dense)
    >>> conv = layers.Conv2D(4, 3, name="conv_1")
    >>> selection.selects([conv])
    True
    >>> body = keras.Sequential([conv], name="body")
    >>> Selection(only="body/conv_1").selects([body, conv])
    True
    """

    def __init__(self, only=None, skip=None, spared=(), dense=None):
        self.only = _entries("only", only)
        self.skip = _entries("skip", skip)
        self.spared = list(spared)
        self.dense = dict(dense or {})

    def selects(self, chain):
        """Tells whether a layer is selected.

        Args:
            chain: List of layers, the outermost first, the layer itself last. A
                match of any of them counts for the layer.

        Returns:
            Bool.
        """
        return (self.only is None or _any_match(self.only, chain)) and not (
            self.skip and _any_match(self.skip, chain)
        )

    def asks_for(self, chain):
        """Tells whether `only` names the layer, not merely fails to exclude it."""
        return self.only is not None and _any_match(self.only, chain)

    def spares(self, layer, chain):
        """Tells whether a layer is left out for the sake of the model's outputs."""
        return not self.asks_for(chain) and any(layer is s for s in self.spared)

    def check(self, model):
        """Raises a `ValueError` for a name or pattern that no layer has."""
        chains = list(layer_chains(model))
        for argument in ("only", "skip"):
            for entry in getattr(self, argument) or ():
                if isinstance(entry, str):
                    names = list(dict.fromkeys(_name(entry, c) for c in chains))
                    if not _are_any(names, entry):
                        raise ValueError(
                            f"{argument} got {entry!r}, which matches no layer. The "
                            f"model's layers are {', '.join(map(repr, names))}. Mend "
                            "the name, or use a pattern such as 'block_*'."
                        )


def _entries(argument, value):
    if value is None:
        return None
    entries = list(value) if isinstance(value, (list, tuple, set)) else [value]
    for entry in entries:
        if not isinstance(entry, str) and not callable(entry):
            raise ValueError(
                f"{argument} got {entry!r}. Expected layer names, glob patterns, "
                "layer classes, a function of a layer, or a list of these."
            )
    return entries


def layer_chains(layer, around=()):
    """Yields each layer within a layer or model, behind those around it.

    Args:
        layer: A layer or model.
        around: Sequence of layers to put in front. Defaults to none.

    Yields:
        Lists of layers, as `Selection.selects` takes them.

    Example:
    >>> body = keras.Sequential([keras.layers.ReLU(name="r")], name="body")
    >>> [[x.name for x in chain] for chain in layer_chains(keras.Sequential([body]))]
    [['body'], ['body', 'r']]
    """
    for part in layer._layers:
        chain = [*around, part]
        yield chain
        yield from layer_chains(part, chain)


def _any_match(entries, chain):
    chains = [chain[: end + 1] for end in range(len(chain))]
    return any(_matches(entry, one) for entry in entries for one in chains)


def _are_any(names, pattern):
    """Tells whether a pattern, which may be a name with brackets, is in some names."""
    return pattern in names or bool(fnmatch.filter(names, pattern))


def _name(entry, chain):
    """Returns what a pattern is compared with: the full name if it has slashes."""
    return "/".join(layer.name for layer in chain) if "/" in entry else chain[-1].name


def _matches(entry, chain):
    layer = chain[-1]
    if isinstance(entry, str):
        return _are_any([_name(entry, chain)], entry)
    if isinstance(entry, keras.Layer):
        return entry is layer
    if isinstance(entry, type):
        return isinstance(layer, entry)
    return bool(entry(layer))
