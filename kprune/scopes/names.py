"""What weights are called."""


class WeightName(str):
    """The name of a weight, which remembers where the name of its layer ends.

    A layer may hold others, as attention does, and a model may stand in a model: the
    slashes alone don't tell them apart.

    Args:
        layer: String, the layer's name after those of the nested models around it.
            Empty for a weight that a model holds by itself.
        path: String, the weight's path within the layer.

    Example:
    >>> name = WeightName("body/attention", "query_dense/kernel")
    >>> print(name, layer_of(name))
    body/attention/query_dense/kernel body/attention
    """

    def __new__(cls, layer, path):
        name = super().__new__(cls, f"{layer}/{path}" if layer else path)
        name.layer, name.path = layer, path
        return name

    def __getnewargs__(self):
        return self.layer, self.path

    def within(self, models):
        """Returns the name with those of the models around, the outermost first."""
        return WeightName("/".join(filter(None, (*models, self.layer))), self.path)


def layer_of(name):
    """Returns the layer's name in that of a weight; of plain strings the first part."""
    return name.layer if isinstance(name, WeightName) else name.split("/")[0]
