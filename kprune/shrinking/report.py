"""What `shrink` has removed, and what it could not: records, printed as tables."""

import dataclasses

from kprune.shrinking.costs import in_words
from kprune.tables import laid_out


@dataclasses.dataclass(frozen=True)
class Stuck:
    """Channels that can't be removed.

    Attributes:
        layers: List of strings, the names of the layers that make them. Layers in one
            record can lose channels only together.
        width: Int, how many channels the first of them makes.
        stuck: Int, how many of these can't go.
        reasons: List of `Reason`, why not.
    """

    layers: list
    width: int
    stuck: int
    reasons: list


@dataclasses.dataclass(frozen=True)
class WhyNot:
    """What can't be narrowed in a model; printed, it is a table.

    Attributes:
        model: String, the model's name.
        records: List of `Stuck`, in running order. Empty if all can be narrowed.
    """

    model: str
    records: list

    def to_dict(self):
        """Returns everything as plain Python, fit for JSON."""
        return dataclasses.asdict(self)

    def __str__(self):
        if not self.records:
            return f"{self.model}: all channels can be removed"
        return f"{self.model}: channels that stay\n\n{_stuck_table(self.records)}"


@dataclasses.dataclass(frozen=True)
class LayerChange:
    """What is left of one layer or operation.

    Attributes:
        layer: String, its name after those of the nested models around it.
        widths: Tuple of ints, how many channels it made, along each axis of its
            kernel that makes some: units, filters; heads and their size.
        narrowed: Tuple of ints, how many it makes now.
        parameters: Tuple of two ints, the number of its weights before and after;
            those that an earlier layer has, too, stand there.
        macs: Tuple of two ints, its multiply-adds for one example before and after,
            or `None` where they are not known.
    """

    layer: str
    widths: tuple
    narrowed: tuple
    parameters: tuple
    macs: tuple


@dataclasses.dataclass(frozen=True)
class ShrinkReport:
    """What `kprune.shrink` has done; printed, it is a table.

    Attributes:
        model: String, the model's name.
        layers: List of `LayerChange`, one a layer or operation that has weights or
            multiplies tensors with each other, in running order.
        sparsity: Float, which fraction of the channels that may go is gone.
        change: Float, the largest difference of any output of the small model, or of
            what comes before a softmax or the like at the end, and of the one with
            zeros in the places of what was removed, by the largest number. What
            roundings make unless `exact=False`.
        left: List of `Stuck`, what could not be narrowed.
    """

    model: str
    layers: list
    sparsity: float
    change: float
    left: list

    @property
    def parameters(self):
        """Tuple of two ints, the number of weights before and after."""
        return self._sums("parameters")

    @property
    def macs(self):
        """Tuple of two ints, the multiply-adds for one example that are known."""
        return self._sums("macs")

    @property
    def uncounted(self):
        """List of strings, the layers and operations of which none are known."""
        return [layer.layer for layer in self.layers if layer.macs is None]

    def _sums(self, name):
        pairs = [getattr(layer, name) or (0, 0) for layer in self.layers]
        return tuple(map(sum, zip((0, 0), *pairs, strict=True)))

    def to_dict(self):
        """Returns everything as plain Python, fit for JSON."""
        return {
            **dataclasses.asdict(self),
            "parameters": list(self.parameters),
            "macs": list(self.macs),
            "uncounted": self.uncounted,
        }

    def __str__(self):
        macs = in_words(_arrow(self.macs), self.uncounted)
        numbers = ("channels", "parameters", "multiply-adds")
        lines = [
            f"{self.model}: {self.sparsity:.1%} of the channels that may go are gone",
            f"{_arrow(self.parameters)} parameters, {macs}",
            f"largest difference from zeros in their places: {self.change:.1e}",
            "",
            laid_out(
                ("layer", *numbers),
                [
                    (r.layer, _widths(r), _arrow(r.parameters), _arrow(r.macs))
                    for r in self.layers
                ],
                numbers,
            ),
        ]
        if self.left:
            lines += ["", "stay as they are:", "", _stuck_table(self.left)]
        return "\n".join(lines)


def _arrow(pair):
    if pair is None:
        return "?"
    before, after = pair
    return f"{before:,}" if before == after else f"{before:,} -> {after:,}"


def _widths(record):
    before, after = (" x ".join(map(str, w)) for w in (record.widths, record.narrowed))
    return before if before == after else f"{before} -> {after}"


def _stuck_table(records):
    return laid_out(
        ("layers", "channels", "stay", "because"),
        [
            (", ".join(r.layers), str(r.width), str(r.stuck), _reasons(r.reasons))
            for r in records
        ],
        numbers=("channels", "stay"),
    )


def _reasons(reasons):
    """Joins reasons, those of several layers that do the same into one."""
    layers = {}
    for reason in reasons:
        layers.setdefault(reason.text, []).append(reason.layer)
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in layers.items())
