"""kprune: pruning for Keras 3 on TensorFlow, from training to the device."""

from kprune.after_pruning import AfterPruning
from kprune.callbacks import PruningCallback
from kprune.criteria import Criterion, Magnitude
from kprune.export import (
    ExportError,
    ExportReport,
    Format,
    SavedModel,
    TFLite,
    export,
)
from kprune.granularity import Element, Granularity
from kprune.inspection import is_pruned
from kprune.mask_store import set_clock
from kprune.masks import compute_mask, compute_masks
from kprune.pruned_model import PrunedModel
from kprune.pruner import Pruner
from kprune.registry import register
from kprune.report.summary import summary
from kprune.schedules import ConstantSchedule, PolynomialSchedule, Schedule
from kprune.scopes import Global, LayerWise, Scope
from kprune.surgery import prune, strip
from kprune.wrapper import PruningWrapper

__version__ = "0.1.0"

__all__ = [
    "AfterPruning",
    "ConstantSchedule",
    "Criterion",
    "Element",
    "ExportError",
    "ExportReport",
    "Format",
    "Global",
    "Granularity",
    "LayerWise",
    "Magnitude",
    "PolynomialSchedule",
    "PrunedModel",
    "Pruner",
    "PruningCallback",
    "PruningWrapper",
    "SavedModel",
    "Schedule",
    "Scope",
    "TFLite",
    "compute_mask",
    "compute_masks",
    "export",
    "is_pruned",
    "prune",
    "register",
    "set_clock",
    "strip",
    "summary",
]
