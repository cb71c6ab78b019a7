"""Checks a model against the conditions of XNNPACK's sparse kernels."""

import dataclasses

from kprune.cloning import is_graph
from kprune.layer_graph import read_graph
from kprune.litefile import read
from kprune.targets.cluster import Cluster
from kprune.targets.findings import Finding, table
from kprune.targets.folding import FoldedGraph
from kprune.targets.plain import plain_model

_VALID = 1  # Padding.VALID in TFLite's schema
_CUT = (
    "sparse kernels would begin at the stem and meet an obstacle behind it: with AVX "
    "hidden, LiteRT 2.3 gave WRONG numbers for files of such models with sparse "
    "tensors, or did not load them, and ARM runs the same code. Write the file with "
    "kprune.TFLite(sparse=False)"
)
_NOTES = (
    "the TFLite file has to be float32 with sparse tensors (kprune.TFLite("
    "sparse=True)); quantized files never use these kernels",
    "they run on ARM, WebAssembly, RISC-V and x86 without AVX; on x86 with AVX XNNPACK "
    "switches them off. Measure on the device: published figures are 1.2x to 2.4x",
)


@dataclasses.dataclass(frozen=True)
class XnnpackCheck:
    """Whether XNNPACK would run a model with its sparse kernels.

    True if nothing stands in the way; printed, a table.

    Attributes:
        model: String, the model's name.
        obstacles: Tuple of `Finding`, nodes that training cannot mend: change
            them before it.
        to_be_trained: Tuple of `Finding`, empty or with the one about too few
            zeros, which pruning mends.
        kernels: Tuple of (name, zeros, size), the 1x1 kernels of the cluster.
        is_cut: Bool, whether the sparse kernels would take over at the stem and meet
            an obstacle later. With files of such models that hold sparse tensors,
            LiteRT 2.3 was seen to give wrong numbers, or not to load them,
            where these kernels are on.
    """

    model: str
    obstacles: tuple
    to_be_trained: tuple
    kernels: tuple
    is_cut: bool = False

    @property
    def findings(self):
        """Tuple of all findings."""
        return self.obstacles + self.to_be_trained

    @property
    def sparsity(self):
        """Float, the fraction of zeros over the 1x1 kernels of the cluster."""
        size = sum(size for _, _, size in self.kernels)
        return sum(zeros for _, zeros, _ in self.kernels) / size if size else 0.0

    def __bool__(self):
        return not self.findings

    def __str__(self):
        verdict = "meets" if self else "does not meet"
        title = (
            f"{self.model} {verdict} XNNPACK's conditions for sparse inference; "
            f"{self.sparsity:.2%} zeros in {len(self.kernels)} kernels of 1x1"
        )
        rows = [(f.where, f.problem, f.remedy) for f in self.findings]
        columns = ("where", "in the way", "change")
        return table(title, columns, rows, (_CUT, *_NOTES) if self.is_cut else _NOTES)


def check_xnnpack(model):
    """Lists what keeps XNNPACK from running a model with its sparse kernels.

    XNNPACK multiplies with sparse 1x1 kernels only within a cluster: a 3x3 stem of
    stride 2 with 3 input channels, then 1x1 convolutions, 3x3 or 5x5 depthwise
    ones, additions and multiplications, unary activations, and a global average
    pool at the end, with 1 or 2 zeros explicitly on all sides of strided kernels.
    More than two thirds of the 1x1 weights have to be zero. One foreign node
    disables it all. Call this before training: most of it is architecture.

    BatchNormalization right behind a convolution folds into it and does not count;
    neither do layers in front of the stem, and Dense and other layers of vectors
    behind the last pool.

    Args:
        model: A built Functional or Sequential model, pruned or not. It is not
            changed.

    Returns:
        An `XnnpackCheck`, true if the model qualifies.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If its graph cannot be read (subclassed, or without inputs).

    Example:
    >>> import keras
    >>> from keras import layers
    >>> model = keras.Sequential(
    ...     [
    ...         keras.Input((8, 8, 3)),
    ...         layers.Conv2D(4, 3, 2, "same", name="stem"),
    ...         layers.Conv2D(8, 1, name="wide"),
    ...         layers.GlobalAveragePooling2D(),
    ...     ]
    ... )
    >>> check = check_xnnpack(model)
    >>> bool(check), [finding.where for finding in check.findings]
    (False, ['stem', 'model'])

    Reference:
        Elsen et al., "Fast Sparse ConvNets", CVPR 2020; "Sparse Inference" in the
        README of TensorFlow Lite's XNNPACK delegate; XNNPACK, src/subgraph.c.
    """
    plain = plain_model(model, "check_xnnpack")
    cluster = Cluster(FoldedGraph(read_graph(plain)))
    obstacles, kernels = tuple(cluster.obstacles()), tuple(cluster.kernels())
    return XnnpackCheck(
        model=model.name,
        obstacles=obstacles,
        to_be_trained=tuple(_too_dense(kernels)),
        kernels=kernels,
        is_cut=bool(obstacles) and cluster.has_entry,
    )


def _too_dense(kernels):
    size = sum(size for _, _, size in kernels)
    zeros = sum(zeros for _, zeros, _ in kernels)
    if size and zeros * 3 <= size * 2:
        yield Finding(
            "model",
            f"{zeros:,} of {size:,} weights of the 1x1 convolutions are zero "
            f"({zeros / size:.1%}); expected more than two thirds",
            "to be reached by training: prune them to a sparsity of 0.7 or more",
        )


def sparse_risk(model, path_or_bytes):
    """Says why the sparse tensors of a file could give wrong numbers on a device.

    From a stem on, XNNPACK turns all it can to channels first, and hands the result
    on as it is if another operator cuts the cluster. Seen with LiteRT 2.3.0 on x86
    with AVX hidden from it: max pooling, concatenation, a constant factor and an
    output in the middle moved outputs, some by their own size; a 1x1 convolution
    behind the last pool kept the file from loading. It was not seen on an ARM
    device, which runs the same code. On x86 with AVX the kernels are off, so that
    comparing outputs there cannot find it.

    Args:
        model: The Keras model that the file was made from.
        path_or_bytes: String, path or bytes: the .tflite file.

    Returns:
        String, the reason not to ship the file, empty if there is none.

    Raises:
        ValueError: If this is no TFLite file, or a damaged one.
    """
    main = read(path_or_bytes).subgraphs[0]
    is_sparse = any(tensor.is_sparse for tensor in main.tensors)
    if not is_sparse or not any(map(_is_entry, main.operators)):
        return ""
    if not is_graph(model):
        return (
            f"{model.name!r} is subclassed, so that it can't be checked whether "
            "XNNPACK's sparse kernels run all of it, or a part of it, and wrongly"
        )
    obstacles = check_xnnpack(model).obstacles
    if not obstacles:
        return ""
    return (
        f"where XNNPACK's sparse kernels are on (ARM), {model.name!r} would give wrong "
        f"numbers or not load, since they meet {obstacles[0].where!r} on their way: "
        f"{obstacles[0].problem}"
    )


def _is_entry(operator):
    """Tells whether an operator is a 3x3 convolution at which sparse kernels begin."""
    if operator.name != "CONV_2D":
        return False
    options, kernel = operator.options, operator.inputs[1]
    return (
        kernel.shape[1:] == (3, 3, 3)
        and (options.strideH, options.strideW) == (2, 2)
        and options.padding == _VALID
    )
