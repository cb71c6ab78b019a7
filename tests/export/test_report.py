import dataclasses
import gzip
import io
import json
import zipfile

from kprune.export.report import ExportRecord, ExportReport, file_sizes

RECORDS = (
    ExportRecord("SavedModel", "out/saved_model", 1_114_950, 86_048, 0.0),
    ExportRecord("TFLite", "out/model.tflite", 90_040, 8_167, 1.5e-7, ("batch 1",)),
)


def test_report_prints_as_an_aligned_table_with_its_notes():
    report = ExportReport("net", 1000, 250, RECORDS, ("was stripped",), "0.1.0")

    assert str(report).splitlines() == [
        "net: 1,000 weights, 250 nonzero (sparsity 0.7500)",
        "format      path                  bytes  gzipped  max difference",
        "SavedModel  out/saved_model   1,114,950   86,048         0.0e+00",
        "TFLite      out/model.tflite     90,040    8,167         1.5e-07",
        "note: was stripped",
        "note (model.tflite): batch 1",
    ]


def test_a_model_without_weights_has_a_report():
    assert str(ExportReport("relu", 0, 0)).startswith("relu: 0 weights, 0 nonzero")


def test_report_survives_json():
    report = ExportReport("net", 1000, 250, RECORDS, ("was stripped",), "0.1.0")

    assert ExportReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_sizes_are_those_of_the_gzip_module_and_sum_over_a_folder(tmp_path):
    one, two = b"kprune " * 1000, bytes(range(256))
    (tmp_path / "sub").mkdir()
    (tmp_path / "one").write_bytes(one)
    (tmp_path / "sub" / "two").write_bytes(two)
    packed = [len(gzip.compress(content, 9, mtime=0)) for content in (one, two)]

    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        file.writestr(f"{tmp_path.name}/one", one)
        file.writestr(f"{tmp_path.name}/sub/two", two)

    assert file_sizes(str(tmp_path / "one"))[:2] == (7000, packed[0])
    assert file_sizes(str(tmp_path)) == (7256, sum(packed), len(zipped.getvalue()))


def test_columns_that_some_record_has_are_shown():
    first, second = RECORDS
    records = (dataclasses.replace(first, bound=1000, accuracy=0.5), second)
    report = ExportReport("net", 1000, 250, records, accuracy=0.75)

    heading, keras, *files = str(report).splitlines()[1:]

    assert heading.split()[-3:] == ["difference", "bound", "accuracy"]
    assert keras == "Keras".ljust(len(heading) - 6) + "0.7500"
    assert files[0].split()[-2:] == ["1,000", "0.5000"]
    assert files[1].split()[-1] == "1.5e-07"
