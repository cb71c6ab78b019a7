"""`shrink`: a model without the channels that matter least."""

from collections.abc import Mapping

import numpy as np

from kprune import registry
from kprune.arguments import check_number, check_sparsity, check_whole
from kprune.scopes import PerLayer
from kprune.shrinking import optimizer_state
from kprune.shrinking.choice import Chooser, says_how_much, scope_for
from kprune.shrinking.narrowing import Narrowing
from kprune.shrinking.plain import check_model, without_masks


def shrink(
    model,
    sparsity=None,
    *,
    macs=None,
    criterion="l1",
    scope="layer_wise",
    reduce="mean",
    normalize="mean",
    min_width=1,
    round_to=1,
    only=None,
    skip=None,
    calibration_data=None,
    exact=True,
    keep_optimizer=False,
    return_report=False,
):
    """Makes a smaller model without the channels that matter least.

    Filters, units, heads and all that hangs on them are cut out of the weights: what
    comes back is a plain Keras model with narrower layers, which is smaller and faster
    anywhere. Channels that are added to each other, or hang together in other ways,
    go together. Fine-tune the result; to lose less, shrink in several steps with
    training between them.

    What is returned has been compared, on a few random examples, with the model that
    has zeros in the places of what is gone.

    Args:
        model: A built Functional or Sequential model, pruned or not. It is not
            changed.
        sparsity: Float in [0, 1), the fraction of the channels that may go, each
            counted as often as layers make it; or a dict from names of layers, or
            patterns such as `"block_*"`, to such fractions. With neither `sparsity`
            nor `macs`, the channels go that are zero already, as the masks of
            `kprune.prune(model, granularity="channel")` leave them, if nothing is
            changed by that.
        macs: Float in (0, 1), which fraction of the multiply-adds may be left. The
            sparsity is then found out.
        criterion: Name, `Criterion` or function of a weight, by which channels are
            scored; or `"l1"` or `"l2"`, the mean of absolute or squared weights.
            Defaults to `"l1"`.
        scope: Name or object, which channels compete with each other. Defaults to
            `"layer_wise"`: those of the same layers.
        reduce: String, how the scores of channels that go together become one:
            `"mean"`, `"sum"`, `"max"` or `"l2"`. Defaults to `"mean"`.
        normalize: String or `None`, by what the scores of each layer are divided,
            so that layers can be compared: their `"mean"`, `"max"`, norm `"l2"`, or
            nothing. Defaults to `"mean"`.
        min_width: Int, how many channels each layer keeps at least. Defaults to 1.
        round_to: Int. Widths that change become the nearest multiple of it.
            Defaults to 1; take 8 or more where processors work on as many at once.
        only: Layers that may lose channels: a name, a glob pattern, a layer class, a
            function of a layer, or a list of these. Defaults to all.
        skip: Layers that keep their widths, likewise. Defaults to none.
        calibration_data: Examples for criteria that look at some, as `fit` takes
            them: inputs, or a tuple of inputs and targets. Defaults to none.
        exact: Bool, whether channels stay that can't be removed without another
            effect on the rest: those that a normalization takes its statistics over.
            Defaults to `True`.
        keep_optimizer: Bool, whether the optimizer of the small model goes on with
            what that of the model remembers of the weights that are left, so that
            training goes on without a jump. Defaults to `False`: it begins anew.
        return_report: Bool, whether a report is returned, too. Defaults to `False`.

    Returns:
        A Keras model with the same layer names, inputs, shapes of outputs and compile
        arguments; with `return_report=True` a tuple of it and a `ShrinkReport`.

    Raises:
        TypeError: If `model` is no Keras 3 model, or a subclassed one.
        ShrinkError: If no channel can be removed, or if the small model does not
            compute the same. It is a `ValueError`.
        ValueError: If an argument is out of its range, if a sparsity can't be
            reached, if `only`, `skip` or a name matches nothing, or if calibration
            data is missing.

    Example:
    >>> import keras, kprune
    >>> layers = [keras.layers.Dense(n, name=f"dense_{n}") for n in (16, 8, 3)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> small = kprune.shrink(model, sparsity=0.5)
    >>> [(layer.name, layer.units) for layer in small.layers]
    [('dense_16', 8), ('dense_8', 4), ('dense_3', 3)]

    In four steps with training between them, to a quarter of the width:

    >>> for step in range(4):
    ...     model = kprune.shrink(model, sparsity=1 - 0.25 ** (1 / 4))
    ...     # model.fit(...)
    >>> [layer.units for layer in model.layers]
    [4, 2, 3]

    Reference:
        Li et al., "Pruning filters for efficient ConvNets", ICLR 2017; Fang et al.,
        "DepGraph: towards any structural pruning", CVPR 2023.
    """
    check_model(model)
    _check_numbers(sparsity, macs, min_width, round_to)
    if isinstance(sparsity, Mapping):
        scope, sparsity = _per_layer(sparsity, scope), None
    scope = registry.get("scopes", scope)
    if says_how_much(scope):
        _check_alone(scope, sparsity=sparsity, macs=macs)
    plain, only, skip = without_masks(model, only, skip)
    work = Narrowing(plain, only, skip, exact, calibration_data)
    scope = scope_for(scope, work.families, work.left)
    if sparsity is None and macs is None and not says_how_much(scope):
        removed = work.zeros(min_width, round_to)
        compared = np.zeros_like(removed)
    else:
        importance = work.importance(criterion, reduce, normalize)
        chooser = Chooser(work.families, importance(), scope, min_width, round_to)
        removed = compared = work.lowest(chooser, sparsity, macs)
        work.check_some(removed, sparsity, min_width, round_to)
    small, report = work.result(removed, compared)
    if keep_optimizer:
        optimizer_state.carry_over(model, plain, small, work.tracing, removed)
    return (small, report) if return_report else small


def _check_numbers(sparsity, macs, min_width, round_to):
    check_whole("min_width", min_width, 1, "channels")
    check_whole("round_to", round_to, 1, "channels")
    if macs is not None:
        expected = "in (0, 1), the fraction of multiply-adds that may be left"
        check_number("macs", macs, lambda n: 0 < n < 1, expected)
        if sparsity is not None:
            raise ValueError(
                f"sparsity={sparsity!r} and macs={macs!r} were given. Give one of the "
                "two: the other follows."
            )
    if sparsity is not None and not isinstance(sparsity, Mapping):
        check_sparsity("sparsity", sparsity)


def _check_alone(scope, **given):
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{scope!r} says how much is removed, and {name}={value!r} was given, "
                f"too. Leave `{name}` out, or take another scope."
            )


def _per_layer(sparsities, scope):
    if not sparsities:
        raise ValueError(
            "sparsity={} names no layer. Give some, as in {'block_1': 0.5}, or one "
            "sparsity for all: `kprune.shrink(model, sparsity=0.5)`."
        )
    others = [key for key in sparsities if not isinstance(key, str)]
    if others:
        raise ValueError(
            f"sparsity got the key {others[0]!r}. Give the names of layers, or "
            "patterns such as 'block_*': {'block_1': 0.5}, or {layer.name: 0.5}."
        )
    if scope != "layer_wise":
        raise ValueError(
            f"scope={scope!r} was given with a sparsity for each layer, which leaves "
            "nothing for it to decide. Leave it out."
        )
    return PerLayer(sparsities)
