"""kprune: pruning for Keras 3 on TensorFlow, from training to the device."""

from kprune.after_pruning import AfterPruning
from kprune.callbacks import PruningCallback
from kprune.compress import ArchiveError, ArchiveReport, load_archive, save_archive
from kprune.compress.sharing import share_weights
from kprune.criteria import (
    ActivationMean,
    ActivationPercentile,
    APoZ,
    BatchNormScale,
    Criterion,
    GeometricMedian,
    Magnitude,
    UnitCriterion,
    Wanda,
)
from kprune.export import (
    Archive,
    ExportError,
    ExportReport,
    Format,
    SavedModel,
    TFLite,
    export,
)
from kprune.granularity import Channel, Element, Granularity
from kprune.inspection import is_pruned
from kprune.mask_store import set_clock
from kprune.masks import compute_mask, compute_masks
from kprune.pruned_model import PrunedModel
from kprune.pruner import Pruner
from kprune.quantize import (
    dequantize,
    finish,
    fold_batch_normalization,
    quantize_aware,
)
from kprune.registry import register
from kprune.report.summary import summary
from kprune.schedules import ConstantSchedule, PolynomialSchedule, Schedule
from kprune.scopes import Global, LayerWise, Scope
from kprune.surgery import prune, strip
from kprune.targets import (
    check_tflm,
    check_xnnpack,
    predict_speedup,
    rewrite_padding,
    write_c_array,
)
from kprune.wrapper import PruningWrapper

__version__ = "0.1.0"

__all__ = [
    "APoZ",
    "ActivationMean",
    "ActivationPercentile",
    "AfterPruning",
    "Archive",
    "ArchiveError",
    "ArchiveReport",
    "BatchNormScale",
    "Channel",
    "ConstantSchedule",
    "Criterion",
    "Element",
    "ExportError",
    "ExportReport",
    "Format",
    "GeometricMedian",
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
    "UnitCriterion",
    "Wanda",
    "check_tflm",
    "check_xnnpack",
    "compute_mask",
    "compute_masks",
    "dequantize",
    "export",
    "finish",
    "fold_batch_normalization",
    "is_pruned",
    "load_archive",
    "predict_speedup",
    "prune",
    "quantize_aware",
    "register",
    "rewrite_padding",
    "save_archive",
    "set_clock",
    "share_weights",
    "strip",
    "summary",
    "write_c_array",
]
