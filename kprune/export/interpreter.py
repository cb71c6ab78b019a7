"""TFLite files in LiteRT's interpreter, fed and read in real numbers."""

import contextlib

import numpy as np

from kprune.export.base import quiet


def load(source):
    """Loads a TFLite file in LiteRT.

    Where inputs or outputs of the file are quantized integers, they are scaled
    here, so that files of every mode take and return what the model does.

    Args:
        source: Path of the file, or its content as bytes.

    Returns:
        A function of a dict of arrays by input name that returns a dict of arrays
        by output name, and the batch size that it is bound to (`None` if it
        takes any).
    """
    from ai_edge_litert.interpreter import Interpreter

    given = "model_content" if isinstance(source, bytes) else "model_path"
    with quiet():
        interpreter = Interpreter(**{given: source})
        runner = interpreter.get_signature_runner()
    wanted, returned = runner.get_input_details(), runner.get_output_details()
    planned = None

    def run(inputs):
        nonlocal planned
        fed = {name: _quantized(inputs[name], wanted[name]) for name in wanted}
        shapes = [array.shape for array in fed.values()]
        # Memory is planned for each new shape, and that is what prints. Silence
        # takes longer than a small model, so that other calls go without.
        with contextlib.nullcontext() if shapes == planned else quiet():
            outputs = runner(**fed)
        planned = shapes
        return {name: _real(x, returned[name]) for name, x in outputs.items()}

    shapes = [detail["shape_signature"] for detail in wanted.values()]
    return run, None if shapes[0][0] == -1 else int(shapes[0][0])


def _quantized(array, detail):
    array, (scale, zero_point) = np.asarray(array), detail["quantization"]
    if not scale or array.dtype.kind != "f":
        return array
    limits = np.iinfo(detail["dtype"])
    steps = np.round(array.astype("float64") / scale) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(detail["dtype"])


def _real(array, detail):
    scale, zero_point = detail["quantization"]
    if not scale or array.dtype.kind != "i":
        return np.copy(array)
    return ((array.astype("float64") - zero_point) * scale).astype("float32")
