"""What an archive leaves out of the configs of common layers.

The arguments are those that models mostly have, written down here and not asked of
Keras: an archive means the same when a later Keras has other defaults. Changing a
value changes what old archives mean, so that it needs a new version of the format.
"""


def _object(class_name, module="keras.initializers", /, **config):
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }


_GLOROT = _object("GlorotUniform", seed=None, input_axes=None, output_axes=None)
_ZEROS, _ONES = _object("Zeros"), _object("Ones")
_VALUES = {
    "trainable": True,
    "dtype": _object("DTypePolicy", "keras", name="float32"),
    "activation": "linear",
    "recurrent_activation": "sigmoid",
    "use_bias": True,
    "use_gate": False,
    "unit_forget_bias": True,
    "reset_after": True,
    "kernel_initializer": _GLOROT,
    "depthwise_initializer": _GLOROT,
    "pointwise_initializer": _GLOROT,
    "recurrent_initializer": _object("Orthogonal", seed=None, gain=1.0),
    "embeddings_initializer": _object(
        "RandomUniform", seed=None, minval=-0.05, maxval=0.05
    ),
    "bias_initializer": _ZEROS,
    "beta_initializer": _ZEROS,
    "moving_mean_initializer": _ZEROS,
    "gamma_initializer": _ONES,
    "moving_variance_initializer": _ONES,
    "padding": "valid",
    "data_format": "channels_last",
    "interpolation": "nearest",
    "groups": 1,
    "depth_multiplier": 1,
    "axis": -1,
    "momentum": 0.99,
    "epsilon": 0.001,
    "center": True,
    "scale": True,
    "rms_scaling": False,
    "synchronized": False,
    "renorm": False,
    "renorm_momentum": 0.99,
    "invert": False,
    "negative_slope": 0.0,
    "threshold": 0.0,
    "offset": 0.0,
    "dropout": 0.0,
    "recurrent_dropout": 0.0,
    "keepdims": False,
    "mask_zero": False,
    "return_sequences": False,
    "return_state": False,
    "go_backwards": False,
    "stateful": False,
    "unroll": False,
    "zero_output_for_mask": False,
    "sparse": False,
    "ragged": False,
    "optional": False,
}


def _weight(*names):
    kinds = ("initializer", "regularizer", "constraint")
    return " ".join(f"{name}_{kind}" for name in names for kind in kinds)


_DENSE = f"activation use_bias {_weight('kernel', 'bias')}"
_SLIDING = "padding data_format activation use_bias activity_regularizer"
_CONV = f"groups {_SLIDING} {_weight('kernel', 'bias')}"
_POOLING = "padding data_format"
_NORM = f"axis epsilon center scale {_weight('beta', 'gamma')}"
_RNN = (
    f"{_weight('kernel', 'recurrent', 'bias')} use_bias recurrent_activation dropout "
    "activity_regularizer recurrent_dropout seed return_sequences return_state "
    "go_backwards stateful unroll zero_output_for_mask"
)


def _steps(rank):
    return {"strides": [1] * rank, "dilation_rate": [1] * rank}


def _defaults(names="", **others):
    # What is not in the table is `None`: regularizers, constraints, seeds and such.
    values = {name: _VALUES.get(name) for name in f"trainable dtype {names}".split()}
    return {**values, **others}


DEFAULTS = {
    "InputLayer": {
        **{name: _VALUES[name] for name in ("sparse", "ragged", "optional")},
        "dtype": "float32",
    },
    "Dense": _defaults(f"{_DENSE} quantization_config"),
    "Conv1D": _defaults(_CONV, **_steps(1)),
    "Conv2D": _defaults(_CONV, **_steps(2)),
    "Conv3D": _defaults(_CONV, **_steps(3)),
    "DepthwiseConv2D": _defaults(
        f"{_SLIDING} depth_multiplier {_weight('depthwise', 'bias')}", **_steps(2)
    ),
    "SeparableConv2D": _defaults(
        f"{_SLIDING} depth_multiplier {_weight('depthwise', 'pointwise', 'bias')}",
        **_steps(2),
    ),
    "Conv2DTranspose": _defaults(
        f"{_SLIDING} output_padding {_weight('kernel', 'bias')}", **_steps(2)
    ),
    "BatchNormalization": _defaults(
        f"{_NORM} momentum moving_mean_initializer moving_variance_initializer "
        "synchronized renorm renorm_clipping renorm_momentum"
    ),
    "LayerNormalization": _defaults(f"{_NORM} rms_scaling"),
    "Normalization": _defaults("invert mean variance", axis=[-1]),
    "Rescaling": _defaults("offset"),
    "Activation": _defaults(),
    "ReLU": _defaults("max_value negative_slope threshold"),
    "Dropout": _defaults("seed noise_shape"),
    "MaxPooling1D": _defaults(_POOLING, pool_size=[2], strides=[2]),
    "MaxPooling2D": _defaults(_POOLING, pool_size=[2, 2], strides=[2, 2]),
    "AveragePooling2D": _defaults(_POOLING, pool_size=[2, 2], strides=[2, 2]),
    "GlobalAveragePooling1D": _defaults("data_format keepdims"),
    "GlobalAveragePooling2D": _defaults("data_format keepdims"),
    "GlobalMaxPooling2D": _defaults("data_format keepdims"),
    "UpSampling2D": _defaults("data_format interpolation", size=[2, 2]),
    "ZeroPadding2D": _defaults("data_format"),
    "Flatten": _defaults("data_format"),
    "Reshape": _defaults(),
    "Add": _defaults(),
    "Multiply": _defaults(),
    "Concatenate": _defaults("axis"),
    "Embedding": _defaults(
        f"{_weight('embeddings')} activity_regularizer mask_zero quantization_config"
    ),
    "LSTM": _defaults(f"{_RNN} unit_forget_bias", activation="tanh"),
    "GRU": _defaults(f"{_RNN} reset_after", activation="tanh"),
    "MultiHeadAttention": _defaults(
        f"{_weight('kernel', 'bias')} activity_regularizer dropout use_bias use_gate "
        "output_shape attention_axes sliding_window seed"
    ),
}
