"""The way from a model to the bytes of its TFLite file, each step proven."""

from kprune import litefile
from kprune.export import conversion, devices, int4, provenance, quantized, zeros
from kprune.export.base import ExportError
from kprune.export.forward import Forward
from kprune.export.samples import draw_samples
from kprune.quantize import finish, wrappers
from kprune.targets import sparse_risk

_BATCH_NOTE = (
    "batch fixed to 1: the converter cannot leave it open for this model "
    "(recurrent layers); run rows one after another"
)
_FLOAT_NOTE = "computes in float32 (the Keras model in {dtype})"
_SPARSE_NOTE = (
    "zeros of its weights are not stored: {encoded:,} bytes instead of {plain:,}; "
    "GPU delegates, TensorFlow Lite Micro and most converters do not read such a "
    "file, kprune.TFLite(sparse=False) gives them a plain one"
)
_AWARE_NOTE = "int8, as kprune.quantize_aware trained it"
_PLAIN_NOTE = "zeros of its weights are stored like other values: {reason}"
_FLOAT_OPERATORS_NOTE = "{operators} compute in float32, LiteRT has no {mode} for them"
_FLOAT_WEIGHTS_NOTE = "weights of {operators} stay float32, there is no int4 for them"
_ERROR_NOTE = "off by {error:.2g} of the outputs' spread, root mean square"
_SPARSE_ALTERNATIVE = (
    "Use sparse='auto', which takes the smallest file that is right; a compressed "
    "archive makes zeros small all the same."
)


def make_content(format, forward):
    """Converts, rounds and encodes a model as a format asks for.

    Args:
        format: The `kprune.TFLite`.
        forward: The model's `kprune.export.forward.Forward`.

    Returns:
        Bytes, the file, and a tuple of strings, what the report should say.

    Raises:
        ExportError: If there is no such file, or it would be wrong.

    Example:
    >>> import keras, kprune
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> content, notes = make_content(kprune.TFLite(), Forward(model))
    >>> content[4:8], notes
    (b'TFL3', ())
    """
    making = _Making(format, forward)
    return making.content(), tuple(making.notes)


class _Making:
    """One run; gathers what the reader of the report should know."""

    def __init__(self, format, forward):
        self.format, self.forward = format, forward
        self.notes = []

    def content(self):
        """Returns the bytes of the file."""
        if tables := self.forward.tables():
            layers = ", ".join(repr(layer.name) for layer, _ in tables)
            reason = f"it looks words or numbers up, in {layers}"
            raise conversion.refusal(self.forward, reason)
        content, batch = self._converted()
        if self.forward.compute_dtype != "float32":
            self.notes.append(_FLOAT_NOTE.format(dtype=self.forward.compute_dtype))
        if (batch, self.forward.fixed_batch, self.format.target) == (1, None, None):
            self.notes.append(_BATCH_NOTE)
        if self.format.quantization is not None:
            content = self._rounded(content, batch)
        content = self._with_zeros_left_out(content)
        described = provenance.describe(self.forward.model)
        described["quantization"] = self.format.quantization
        content = litefile.add_metadata(content, described)
        model, target = self.forward.model, self.format.target
        self.notes += devices.check_file(target, model, content)
        return content

    def _converted(self):
        batches = (1,) if self.format.target == "tflm" else (None, 1)
        if not wrappers(self.forward.model):
            return conversion.convert(self.forward, batches=batches)
        # A new `Forward`, for the model that is converted is another one.
        self.forward = Forward(finish(self.forward.model))
        self.notes.append(_AWARE_NOTE)
        return conversion.convert(self.forward, "aware", batches=batches)

    def _rounded(self, plain, batch):
        """Returns the rounded file, once it is proven to be the plain one rounded."""
        mode, reference = self.format.quantization, litefile.read(plain)
        if mode in conversion.CALIBRATED:
            conversion.refuse_loops(self.forward, reference, mode)
        rows, integer_io = self.format.rows_for(self.forward), self.format.integer_io
        if mode == "int4":
            content = self._in_four_bits(plain)
        else:
            content, _ = conversion.convert(
                self.forward, mode, rows, integer_io, batches=(batch,)
            )
        contents = litefile.read(content)
        self.notes += quantized.check_constants(contents, reference)
        if mode in conversion.CALIBRATED:
            self._note_float_operators(contents)
            self.notes += quantized.few_rows(rows)
        if self.format.tolerance is None:
            rows = quantized.joined(self._inputs()) if rows is None else rows
            error, notes = quantized.check_answers(self.forward, content, rows, mode)
            self.notes += [_ERROR_NOTE.format(error=error), *notes]
        return content

    def _in_four_bits(self, plain):
        try:
            content = int4.round_weights(plain)
        except Exception as error:
            reason = f"ai-edge-quantizer fails with {error}"
            raise conversion.refusal(self.forward, reason, "int4") from error
        int4.check_rounding(content, plain, self._inputs())
        if operators := int4.left_in_float(litefile.read(content)):
            note = _FLOAT_WEIGHTS_NOTE.format(operators=", ".join(operators))
            self.notes.append(note)
        return content

    def _inputs(self):
        drawn = self.format.inputs(self.forward)
        return [x for x, _ in draw_samples(self.forward)] if drawn is None else drawn

    def _note_float_operators(self, contents):
        operators, mode = ", ".join(contents.float_operators), self.format.quantization
        if operators and self.format.integer_io:
            reason = f"integer_io=True, and {operators} would compute in float32"
            raise conversion.refusal(self.forward, reason, mode)
        if operators:
            note = _FLOAT_OPERATORS_NOTE.format(operators=operators, mode=mode)
            self.notes.append(note)

    def _with_zeros_left_out(self, content):
        """Returns the file without its zeros, or as it is if that is better."""
        format, model = self.format, self.forward.model
        optional = format.sparse == "auto" and format.target != "xnnpack"
        if not format.sparse or format.target == "tflm":
            return content
        if optional and (format.quantization or _AWARE_NOTE in self.notes):
            return content
        encoded, reason = zeros.proven_encoding(
            content, format.quantization, self._inputs
        )
        if encoded is not None and (risk := sparse_risk(model, encoded)):
            encoded, reason = None, risk
        if encoded is not None:
            sizes = {"encoded": len(encoded), "plain": len(content)}
            self.notes.append(_SPARSE_NOTE.format(**sizes))
            return encoded
        if not optional:
            mode = format.quantization or "float32"
            raise ExportError(
                f"Model {model.name!r} has no TFLite file of mode {mode} with its "
                f"zeros left out: {reason}. {_SPARSE_ALTERNATIVE}"
            )
        if reason != zeros.NOTHING_TO_ENCODE:
            self.notes.append(_PLAIN_NOTE.format(reason=reason))
        return content
