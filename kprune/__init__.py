"""kprune: pruning for Keras 3 on TensorFlow, from training to the device."""

from kprune import tfmot
from kprune.after_pruning import AfterPruning
from kprune.callbacks import PruningCallback
from kprune.compress import ArchiveError, ArchiveReport, load_archive, save_archive
from kprune.compress.sharing import share_weights
from kprune.constraints import L0Budget
from kprune.criteria import (
    SNIP,
    ActivationMean,
    ActivationPercentile,
    APoZ,
    BatchNormScale,
    Criterion,
    Fisher,
    GeometricMedian,
    GradientMagnitude,
    GraSP,
    LayerAdaptive,
    Magnitude,
    Movement,
    Random,
    SquaredMagnitude,
    SquaredTaylor,
    SynFlow,
    Taylor,
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
from kprune.granularity import (
    AttentionHead,
    Block,
    Channel,
    Element,
    Granularity,
    Kernel,
    NofM,
    Tie,
    Units,
    Vector,
)
from kprune.inspection import is_pruned
from kprune.layout import Layout
from kprune.masks import compute_mask, compute_masks
from kprune.penalize import penalize
from kprune.pruned_model import PrunedModel
from kprune.pruner import Pruner
from kprune.quantize import (
    dequantize,
    finish,
    fold_batch_normalization,
    quantize_aware,
)
from kprune.registry import register
from kprune.regrowth import SET, DynamicNetworkSurgery, Regrowth, RigL
from kprune.regularizers import GroupLasso, Penalties
from kprune.report.comparison import compare
from kprune.report.summary import summary
from kprune.rewinding import Rewind
from kprune.rollback import Rollback
from kprune.schedules import (
    ConstantSchedule,
    CosineSchedule,
    CyclicSchedule,
    ExponentialSchedule,
    IterativeSchedule,
    LinearSchedule,
    PolynomialSchedule,
    Schedule,
    TwoStageSchedule,
)
from kprune.scopes import (
    ERK,
    ErdosRenyi,
    Global,
    LayerWise,
    OutputWise,
    PerLayer,
    Scope,
    Sparing,
    Threshold,
)
from kprune.shrinking import (
    ChannelRule,
    ShrinkError,
    ShrinkReport,
    WhyNot,
    shrink,
    why_not,
)
from kprune.surgery import prune, strip
from kprune.targets import (
    check_tflm,
    check_xnnpack,
    predict_speedup,
    rewrite_padding,
    write_c_array,
)
from kprune.whole_model import set_clock
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
    "AttentionHead",
    "BatchNormScale",
    "Block",
    "Channel",
    "ChannelRule",
    "ConstantSchedule",
    "CosineSchedule",
    "Criterion",
    "CyclicSchedule",
    "DynamicNetworkSurgery",
    "ERK",
    "Element",
    "ErdosRenyi",
    "ExponentialSchedule",
    "ExportError",
    "ExportReport",
    "Fisher",
    "Format",
    "GeometricMedian",
    "Global",
    "GraSP",
    "GradientMagnitude",
    "Granularity",
    "GroupLasso",
    "IterativeSchedule",
    "Kernel",
    "L0Budget",
    "LayerAdaptive",
    "LayerWise",
    "Layout",
    "LinearSchedule",
    "Magnitude",
    "Movement",
    "NofM",
    "OutputWise",
    "Penalties",
    "PerLayer",
    "PolynomialSchedule",
    "PrunedModel",
    "Pruner",
    "PruningCallback",
    "PruningWrapper",
    "Random",
    "Regrowth",
    "Rewind",
    "RigL",
    "Rollback",
    "SET",
    "SNIP",
    "SavedModel",
    "Schedule",
    "Scope",
    "ShrinkError",
    "ShrinkReport",
    "Sparing",
    "SquaredMagnitude",
    "SquaredTaylor",
    "SynFlow",
    "TFLite",
    "Taylor",
    "Threshold",
    "Tie",
    "TwoStageSchedule",
    "UnitCriterion",
    "Units",
    "Vector",
    "Wanda",
    "WhyNot",
    "check_tflm",
    "check_xnnpack",
    "compare",
    "compute_mask",
    "compute_masks",
    "dequantize",
    "export",
    "finish",
    "fold_batch_normalization",
    "is_pruned",
    "load_archive",
    "penalize",
    "predict_speedup",
    "prune",
    "quantize_aware",
    "register",
    "rewrite_padding",
    "save_archive",
    "set_clock",
    "share_weights",
    "shrink",
    "strip",
    "summary",
    "tfmot",
    "why_not",
    "write_c_array",
]
