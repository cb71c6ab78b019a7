"""The networks of `structured.py`, and how each is trained and narrowed."""

import dataclasses
import functools

import keras
from _networks import lenet_5_caffe, resnet_8_d


@dataclasses.dataclass(frozen=True)
class Phase:
    """Removal of channels, and the training thereafter.

    Args:
        epochs: Int.
        learning_rate: Float at the beginning; it falls to 0 along a cosine.
        macs: Int or float, what may be left of the multiply-adds, or which part of
            them; `None` where nothing is removed.
    """

    epochs: int
    learning_rate: float
    macs: float = None


@dataclasses.dataclass(frozen=True)
class Masking:
    """Channels that are masked while the network trains, and removed afterwards.

    Args:
        sparsity: Float, which part of the channels goes.
        begin: Int, the epoch after which the first go.
        end: Int, the epoch after which all are gone.
        pruning: Dict, the other arguments of `kprune.PruningCallback`.
    """

    sparsity: float
    begin: int
    end: int
    pruning: dict


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one network is trained and narrowed.

    Args:
        data: String, what `kprune.datasets.load` knows.
        held_out: Int, how many training images `--validate` tests on.
        build: Function that returns the network, whose outputs are logits.
        optimizer: Function of a learning rate or schedule.
        first: `Phase`, the training of the whole network.
        shift: Int, by how many pixels training images move at most.
        then: Tuple of `Phase`.
        shrinking: Dict, the other arguments of `kprune.shrink`.
        masking: `Masking`, in a training of its own that is as long as the first;
            `None` where phases follow.
        mirrored: Bool, whether half of them are.
        from_scratch: Bool, whether the widths that are left are trained afresh, too.
        batch_size: Int.
    """

    data: str
    held_out: int
    build: callable
    optimizer: callable
    first: Phase
    shift: int
    then: tuple = ()
    shrinking: dict = dataclasses.field(default_factory=dict)
    masking: Masking = None
    mirrored: bool = False
    from_scratch: bool = True
    batch_size: int = 128

    @property
    def epochs(self):
        """Int, of all phases together."""
        return self.first.epochs + sum(phase.epochs for phase in self.then)


def _adam(rate):
    return keras.optimizers.AdamW(rate, weight_decay=0.05)


def _momentum(rate):
    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-3)


_resnet_8 = functools.partial(
    Recipe,
    data="cifar10",
    held_out=4_000,
    build=lambda: resnet_8_d(keras, 32),
    optimizer=_momentum,
    shift=4,
    mirrored=True,
)
_masked_resnet_8 = functools.partial(
    _resnet_8,
    first=Phase(24, 0.1),
    masking=Masking(5 / 16, 4, 12, {"scope": "layer_wise"}),
)
RECIPES = {
    "lenet_5_caffe": Recipe(
        data="mnist",
        held_out=10_000,
        build=lambda: lenet_5_caffe(keras),
        optimizer=_adam,
        first=Phase(5, 2e-3),
        then=(
            Phase(1, 2e-3, 0.5),
            Phase(1, 2e-3, 0.25),
            Phase(1, 2e-3, 0.13),
            Phase(8, 4e-3, 158_000),
        ),
        shrinking={"criterion": "l1", "scope": "layer_wise"},
        shift=2,
        from_scratch=False,
    ),
    "resnet_8": _resnet_8(
        first=Phase(12, 0.1),
        then=(Phase(12, 0.1, 0.5),),
        shrinking={"criterion": "l1", "scope": "layer_wise"},
    ),
    "resnet_8_masked": _masked_resnet_8(),
    "thin_resnet_8_masked": _masked_resnet_8(build=lambda: resnet_8_d(keras, 8)),
}
