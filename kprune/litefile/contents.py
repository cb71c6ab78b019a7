"""What a TFLite file says: subgraphs, operators, tensors, the signature."""

import dataclasses


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """A node of a subgraph.

    Args:
        name: String, such as `"CONV_2D"`; of a custom operator, its own name.
        inputs: Tuple of `Tensor`s; `None` for an optional one that is left out.
        outputs: Tuple of `Tensor`s.
        is_custom: Bool.
        subgraphs: Tuple of int, the subgraphs that it runs.
        options: The table of options in TFLite's schema, or `None`.
    """

    name: str
    inputs: tuple
    outputs: tuple
    is_custom: bool = False
    subgraphs: tuple = ()
    options: object = None


@dataclasses.dataclass(frozen=True, eq=False)
class Subgraph:
    """One subgraph; the first is the model, others are bodies of control flow.

    Args:
        tensors: Tuple of `Tensor`s, in the order of the file.
        operators: Tuple of `Operator`s, in running order.
        inputs: Tuple of `Tensor`s.
        outputs: Tuple of `Tensor`s.
    """

    tensors: tuple
    operators: tuple
    inputs: tuple
    outputs: tuple


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """What `read` found in a TFLite file.

    Args:
        subgraphs: Tuple of `Subgraph`s, the model first.
        inputs: Dict of `Tensor`s by name in the signature.
        outputs: Dict likewise.

    Example:
    >>> from kprune.litefile import Tensor
    >>> x, y = Tensor("x", "float32", (1, 4)), Tensor("y", "float32", (1, 4))
    >>> main = Subgraph((x, y), (Operator("RELU", (x,), (y,)),), (x,), (y,))
    >>> contents = Contents((main,), {"x": x}, {"y": y})
    >>> contents.float_operators, contents.step("y")
    (['RELU'], 0.0)
    """

    subgraphs: tuple
    inputs: dict
    outputs: dict

    @property
    def operators(self):
        """The operators of all subgraphs, in running order within each."""
        return tuple(op for graph in self.subgraphs for op in graph.operators)

    @property
    def tensors(self):
        """The tensors of all subgraphs."""
        return tuple(tensor for graph in self.subgraphs for tensor in graph.tensors)

    @property
    def constants(self):
        """The tensors whose values the file holds."""
        return tuple(tensor for tensor in self.tensors if tensor.is_constant)

    @property
    def has_loops(self):
        """Whether an operator runs a subgraph again and again."""
        return any(operator.name == "WHILE" for operator in self.operators)

    @property
    def float_operators(self):
        """Names of operators that compute with float32, in order, each once."""
        computing = [
            operator.name
            for operator in self.operators
            if operator.name not in ("QUANTIZE", "DEQUANTIZE")
            and any(
                tensor is not None and tensor.dtype == "float32"
                for tensor in (*operator.inputs, *operator.outputs)
            )
        ]
        return list(dict.fromkeys(computing))

    def step(self, name):
        """Returns the step that an output is rounded to, 0.0 if to none.

        Args:
            name: String, the output's name in the signature.

        Returns:
            Float, in units of the output.
        """
        tensor = self.outputs[name]
        for operator in self.operators:
            if operator.name == "DEQUANTIZE" and operator.outputs[0] is tensor:
                tensor = operator.inputs[0]
        return float(tensor.scales[0]) if tensor.scales.size else 0.0
