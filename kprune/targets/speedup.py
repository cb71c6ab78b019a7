"""Says in words what pruning has made faster in a model, and what it has not."""

import dataclasses

from kprune import cloning, inspection, surgery
from kprune.layer_graph import read_graph
from kprune.targets.findings import table
from kprune.targets.kernel_properties import kernel_properties
from kprune.targets.xnnpack import check_xnnpack

# Speed of Dense layers of (4, 1) blocks against dense ones, by sparsity.
_BLOCK_FIGURES = ((0.95, "4.4x to 6x"), (0.9, "2.5x to 3.4x"), (0.8, "1.4x to 2.0x"))
_ENOUGH_BLOCKS = 0.8


@dataclasses.dataclass(frozen=True)
class Statement:
    """What is to be expected on one target.

    Attributes:
        target: String, where and how the model runs.
        faster: String: `"yes"`, `"no"` or `"if"`, the condition being in `words`.
        words: String, one or two sentences.
    """

    target: str
    faster: str
    words: str


@dataclasses.dataclass(frozen=True)
class SpeedupPrediction:
    """What will and will not be faster; printed, sentences.

    Attributes:
        model: String, the model's name.
        kernels: Tuple of `KernelProperties`.
        statements: Tuple of `Statement`.
        xnnpack: The `XnnpackCheck`, or `None` for a model whose graph is unknown.
    """

    model: str
    kernels: tuple
    statements: tuple
    xnnpack: object = None

    @property
    def sparsity(self):
        """Float, the fraction of zeros over all kernels."""
        return _mean([(k.sparsity, k.size) for k in self.kernels])

    def share(self, kind):
        """Returns the share of multiply-adds that kernels of a kind do.

        Args:
            kind: String, see `KernelProperties`.

        Returns:
            Float in [0, 1]. Where the multiply-adds are not known, the share of
            weights.
        """
        is_known = any(k.multiply_adds for k in self.kernels)
        costs = (k.multiply_adds if is_known else k.size for k in self.kernels)
        kinds = (k.kind == kind for k in self.kernels)
        return _mean(list(zip(kinds, costs, strict=True)))

    def __str__(self):
        title = (
            f"{self.model}: {self.sparsity:.1%} zeros in {len(self.kernels)} kernels; "
            f"multiply-adds: {self.share('dense'):.0%} Dense, "
            f"{self.share('pointwise'):.0%} 1x1 convolutions"
        )
        rows = [(s.target, s.faster, s.words) for s in self.statements]
        return table(title, ("on", "faster", "why"), rows)


def predict_speedup(model):
    """Says what will and what will not be faster for a model, with the conditions.

    Zeros alone make a file smaller. They make inference faster only where a kernel
    skips them, and those are few. The figures named were measured with TensorFlow
    2.21 on x86 with AVX-512, but where another source is named; measure on the
    device that counts.

    Args:
        model: A built Keras model, pruned or not. It is not changed.

    Returns:
        A `SpeedupPrediction`.

    Raises:
        TypeError: If `model` is no Keras 3 model.
        ValueError: If it is not built.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> for statement in predict_speedup(model).statements[:2]:
    ...     print(statement.target, "->", statement.faster)
    Keras, SavedModel -> no
    TFLite on x86, scattered zeros -> no
    """
    inspection.check_keras_model(model)
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so its kernels are not known. "
            "Call it on a batch, or give it an Input."
        )
    if inspection.is_pruned(model) and not inspection.is_pruned_in_place(model):
        model = surgery.strip(model)
    is_graph = cloning.is_graph(model)
    graph = read_graph(model) if is_graph else None
    kernels = tuple(kernel_properties(model, graph))
    check = check_xnnpack(model) if is_graph else None
    prediction = SpeedupPrediction(model.name, kernels, (), check)
    return dataclasses.replace(prediction, statements=tuple(_statements(prediction)))


def _mean(pairs):
    total = sum(weight for _, weight in pairs)
    return float(sum(x * weight for x, weight in pairs) / total) if total else 0.0


def _statements(prediction):
    yield Statement(
        "Keras, SavedModel",
        "no",
        "TensorFlow's kernels are dense: zeros are multiplied like other numbers.",
    )
    yield Statement(
        "TFLite on x86, scattered zeros",
        "no",
        f"{prediction.sparsity:.0%} zeros spread over kernels gain nothing on x86 with "
        "AVX (0.99x to 1.03x measured): the sparse kernels are switched off there.",
    )
    yield _about_xnnpack(prediction)
    yield _about_blocks(prediction)
    yield _about_channels(prediction)
    yield _about_int8(prediction)
    yield Statement(
        "TFLite, dynamic range",
        "no",
        "Quantizing weights alone makes the file smaller. It slowed MobileNetV2 to "
        "0.64x; measure before you choose it.",
    )


def _about_xnnpack(prediction):
    target = "TFLite on ARM, WebAssembly: XNNPACK's sparse 1x1 kernels"
    check, share = prediction.xnnpack, prediction.share("pointwise")
    if check is None:
        return Statement(
            target, "no", "The graph of a subclassed model can't be checked."
        )
    if check.obstacles:
        first = check.obstacles[0]
        warning = " Write no sparse tensors: wrong numbers." if check.is_cut else ""
        return Statement(
            target,
            "no",
            f"{len(check.obstacles)} things disable them, the first at "
            f"{first.where!r}: {first.problem}. See kprune.check_xnnpack.{warning}",
        )
    if check.to_be_trained:
        return Statement(
            target,
            "if",
            f"The layers qualify, the zeros do not yet: {check.sparsity:.0%} in the "
            "1x1 kernels, expected more than two thirds (60 %: 1.0x). "
            f"1x1 convolutions do {share:.0%} of the multiply-adds.",
        )
    return Statement(
        target,
        "if",
        f"The model qualifies, with {check.sparsity:.0%} zeros in its 1x1 kernels. "
        "Published figures on phones are 1.2x to 2.4x; 2.9x was measured at 70 % on "
        "x86 with SSE only. It needs a float32 file with sparse tensors "
        f"(kprune.TFLite(sparse=True)), and concerns the {share:.0%} of the "
        "multiply-adds that 1x1 convolutions do.",
    )


def _about_blocks(prediction):
    target = "TFLite, (4, 1) blocks in Dense, batch 1"
    dense = [k for k in prediction.kernels if k.kind == "dense"]
    if not dense:
        return Statement(target, "no", "The model has no Dense layers.")
    blocks = _mean([(k.block_sparsity, k.size) for k in dense])
    share = prediction.share("dense")
    measured = f"{blocks:.0%} of the blocks of 4 inputs are zero as a whole"
    if blocks < _ENOUGH_BLOCKS:
        return Statement(
            target,
            "no",
            f"{measured}; gains were measured from 80 % on (1.4x to 2.0x). Prune "
            "blocks of 4 along the inputs for that.",
        )
    figure = next(figure for least, figure in _BLOCK_FIGURES if blocks >= least)
    limit = f"at most {1 / (1 - share):.1f}x" if share < 1 else "without that limit"
    return Statement(
        target,
        "if",
        f"{measured}: {figure} was measured for such Dense layers alone, in a float32 "
        "file with sparse tensors, at batch 1 on x86; it fades by batch 16. They do "
        f"{share:.0%} of the multiply-adds, so the model as a whole gains {limit}.",
    )


def _about_channels(prediction):
    channels = sum(k.channels for k in prediction.kernels)
    zero = sum(k.zero_channels for k in prediction.kernels)
    target = "anywhere, channels removed"
    if not zero:
        return Statement(
            target,
            "no",
            f"None of the {channels:,} output channels is zero as a whole, so that "
            "none can be removed.",
        )
    return Statement(
        target,
        "if",
        f"{zero:,} of {channels:,} output channels are zero. They cost their full time "
        "until they are removed from the model. Half the width gave 2.3x to 2.7x on "
        "ResNet-20, MobileNetV2 and an MLP in float32, and int8 comes on top.",
    )


def _about_int8(prediction):
    target = "TFLite, full int8"
    dense = [k for k in prediction.kernels if k.kind == "dense"]
    blocks = _mean([(k.int8_block_sparsity, k.size) for k in dense])
    if blocks >= _ENOUGH_BLOCKS:
        return Statement(
            target,
            "if",
            f"{blocks:.0%} of the (16, 1) blocks in Dense layers are zero: 1.6x "
            "against dense int8 was measured at 90 %, for those layers, with sparse "
            "tensors.",
        )
    return Statement(
        target,
        "no",
        "Zeros gain nothing in int8 kernels, unless (16, 1) blocks of Dense layers are "
        f"zero ({blocks:.0%} are). What int8 itself gains depends on the device.",
    )
