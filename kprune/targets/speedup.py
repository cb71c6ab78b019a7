"""Says in words what pruning has made faster in a model, and what it has not."""

import dataclasses

from kprune import cloning, inspection, surgery
from kprune.layer_graph import read_graph
from kprune.targets.findings import table
from kprune.targets.kernel_properties import (
    kernel_properties,
    unknown_costs,
    unread_layers,
)
from kprune.targets.xnnpack import check_xnnpack

# Speed of Dense layers of (4, 1) blocks against dense ones, by sparsity.
_BLOCK_FIGURES = ((0.95, "4.4x to 6x"), (0.9, "2.5x to 3.4x"), (0.8, "1.4x to 2.0x"))
_ENOUGH_BLOCKS = 0.8


@dataclasses.dataclass(frozen=True)
class Statement:
    """What is to be expected on one target.

    Attributes:
        target: String, where and how the model runs.
        faster: String: `"no"`, `"if"`, the condition being in `words`, or
            `"not known"`.
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
        unknown_costs: Tuple of strings, layers whose multiply-adds are not known; if
            there are any, no shares are.
        unread: Tuple of strings, layers whose kernels `model.quantize` has packed,
            or that LoRA adapts; their zeros are not counted.
    """

    model: str
    kernels: tuple
    statements: tuple
    xnnpack: object = None
    unknown_costs: tuple = ()
    unread: tuple = ()

    @property
    def sparsity(self):
        """Float, the fraction of zeros over all `kernels`; `None` without any."""
        known = [(k.sparsity, k.size) for k in self.kernels]
        return _mean(known) if known else None

    def share(self, kind):
        """Returns the share of multiply-adds that kernels of a kind do.

        Args:
            kind: String, see `KernelProperties`.

        Returns:
            Float in [0, 1], or `None` where the multiply-adds of a layer are not
            known.
        """
        if self.unknown_costs:
            return None
        # What no call applies costs nothing.
        return _mean([(k.kind == kind, k.multiply_adds or 0) for k in self.kernels])

    def __str__(self):
        kinds = {"dense": "Dense", "pointwise": "1x1 convolutions"}
        known = {} if self.unknown_costs else kinds
        shares = [f"{self.share(kind):.0%} {name}" for kind, name in known.items()]
        title = f"{self.model}: no kernels that can be read"
        if self.kernels:
            zeros = f"{self.sparsity:.1%} zeros in {len(self.kernels)} kernels"
            title = f"{self.model}: {zeros}"
        title += f"; multiply-adds: {', '.join(shares) or 'not known'}"
        rows = [(s.target, s.faster, s.words) for s in self.statements]
        return table(title, ("on", "faster", "why"), rows, self._notes())

    def _notes(self):
        if self.unknown_costs:
            yield f"the multiply-adds of {_names(self.unknown_costs)} are not known"
        if self.unread:
            yield f"the zeros of {_names(self.unread)} are not counted"


def predict_speedup(model):
    """Says what will and what will not be faster for a model, with the conditions.

    Zeros alone make a file smaller. They make inference faster only where a kernel
    skips them, and those are few. What a layer costs is counted for `Dense` and
    convolutions of fixed sizes; if others have kernels (recurrent layers, attention,
    wrappers), the shares of the multiply-adds are not known, and it says so.

    The figures named were measured with TensorFlow 2.21 on x86 with AVX-512, but
    where another source is named; measure on the device that counts.

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
        model = surgery.stripped(model)
    is_graph = cloning.is_graph(model)
    graph = read_graph(model) if is_graph else None
    kernels = tuple(kernel_properties(model, graph))
    check = check_xnnpack(model) if is_graph else None
    unknown, unread = unknown_costs(model, graph), unread_layers(model)
    prediction = SpeedupPrediction(model.name, kernels, (), check, unknown, unread)
    return dataclasses.replace(prediction, statements=tuple(_statements(prediction)))


def _mean(pairs):
    total = sum(weight for _, weight in pairs)
    return float(sum(x * weight for x, weight in pairs) / total) if total else 0.0


def _percent(share):
    return "not known" if share is None else f"{share:.0%}"


def _names(names):
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more


def _statements(prediction):
    yield Statement(
        "Keras, SavedModel",
        "no",
        "TensorFlow's kernels are dense: zeros are multiplied like other numbers.",
    )
    yield Statement(
        "TFLite on x86, scattered zeros",
        "no",
        "Zeros spread over kernels gain nothing on x86 with AVX (0.99x to 1.03x "
        "measured): the sparse kernels are switched off there.",
    )
    yield _about_xnnpack(prediction)
    for target, statement in _ABOUT_KERNELS.items():
        if prediction.unread:
            yield Statement(
                target,
                "not known",
                f"The kernels of {_names(prediction.unread)} are quantized by Keras or "
                "adapted by LoRA and can't be read. Ask for the model without that.",
            )
        else:
            yield Statement(target, *statement(prediction))
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
            target, "not known", "The graph of a subclassed model can't be checked."
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
            f"Share of 1x1 convolutions in the multiply-adds: {_percent(share)}.",
        )
    return Statement(
        target,
        "if",
        f"The model qualifies, with {check.sparsity:.0%} zeros in its 1x1 kernels. "
        "Published figures on phones are 1.2x to 2.4x; 2.9x was measured at 70 % on "
        "x86 with SSE only. It needs a float32 file with sparse tensors "
        "(kprune.TFLite(sparse=True)), and concerns 1x1 convolutions alone; their "
        f"share of the multiply-adds: {_percent(share)}.",
    )


def _about_blocks(prediction):
    dense = [k for k in prediction.kernels if k.kind == "dense"]
    if not dense:
        return "no", "The model has no Dense layers."
    blocks = _mean([(k.block_sparsity, k.size) for k in dense])
    share = prediction.share("dense")
    measured = f"{blocks:.0%} of the blocks of 4 inputs are zero as a whole"
    if blocks < _ENOUGH_BLOCKS:
        return (
            "no",
            f"{measured}; gains were measured from 80 % on (1.4x to 2.0x). Prune "
            "blocks of 4 along the inputs for that.",
        )
    figure = next(figure for least, figure in _BLOCK_FIGURES if blocks >= least)
    return (
        "if",
        f"{measured}: {figure} was measured for such Dense layers alone, in a float32 "
        "file with sparse tensors, at batch 1 on x86; it fades by batch 16. "
        f"{_as_a_whole(share)}",
    )


def _as_a_whole(share):
    if share is None:
        return "Their share of the multiply-adds is not known, nor the whole gain."
    if share == 1:
        return "They do 100% of the multiply-adds."
    return (
        f"They do {share:.0%} of the multiply-adds, so the model as a whole gains at "
        f"most {1 / (1 - share):.1f}x."
    )


def _about_channels(prediction):
    known = [k for k in prediction.kernels if k.channels is not None]
    channels = sum(k.channels for k in known)
    zero = sum(k.zero_channels for k in known)
    if not zero:
        return (
            "no",
            f"None of the {channels:,} output channels of Dense layers and "
            "convolutions is zero as a whole; none of them can be removed.",
        )
    return (
        "if",
        f"{zero:,} of {channels:,} output channels of Dense layers and convolutions "
        "are zero. They cost their full time until they are removed from the model. "
        "Half the width gave 2.3x to 2.7x on ResNet-20, MobileNetV2 and an MLP in "
        "float32, and int8 comes on top.",
    )


def _about_int8(prediction):
    dense = [k for k in prediction.kernels if k.kind == "dense"]
    blocks = _mean([(k.int8_block_sparsity, k.size) for k in dense])
    if blocks >= _ENOUGH_BLOCKS:
        return (
            "if",
            f"{blocks:.0%} of the (16, 1) blocks in Dense layers are zero: 1.6x "
            "against dense int8 was measured at 90 %, for those layers, with sparse "
            "tensors.",
        )
    return (
        "no",
        "Zeros gain nothing in int8 kernels, unless (16, 1) blocks of Dense layers are "
        f"zero ({blocks:.0%} are). What int8 itself gains depends on the device.",
    )


_ABOUT_KERNELS = {
    "TFLite, (4, 1) blocks in Dense, batch 1": _about_blocks,
    "anywhere, channels removed": _about_channels,
    "TFLite, full int8": _about_int8,
}
