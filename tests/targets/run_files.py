"""Runs pairs of .tflite files, sparse and dense, and prints how they compare as JSON.

Called as `python run_files.py FOLDER`; stops once LiteRT is loaded, for `hide_avx.py`.
"""

import json
import os
import pathlib
import signal
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def load(path):
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (details,) = interpreter.get_input_details()
    image = np.random.default_rng(0).random(details["shape"]).astype("float32")
    interpreter.set_tensor(details["index"], image)
    interpreter.invoke()
    return interpreter


def seconds(interpreter):
    start = time.perf_counter()
    interpreter.invoke()
    return time.perf_counter() - start


def outputs(interpreter):
    found = [d["index"] for d in interpreter.get_output_details()]
    return [interpreter.get_tensor(index) for index in found]


def compare(sparse, dense):
    # The least of many is what other work on the machine disturbs least.
    times = np.min([(seconds(dense), seconds(sparse)) for _ in range(50)], axis=0)
    pairs = zip(outputs(sparse), outputs(dense), strict=True)
    largest = max(float(np.abs(s - d).max() / np.abs(d).max()) for s, d in pairs)
    return {"speedup": times[0] / times[1], "difference": largest}


def main(folder):
    report = {}
    for path in sorted(pathlib.Path(folder).glob("*.sparse")):
        try:
            report[path.stem] = compare(load(path), load(path.with_suffix(".dense")))
        except RuntimeError as error:
            report[path.stem] = {"failure": str(error)}
    print("REPORT", json.dumps(report))


if __name__ == "__main__":
    os.kill(os.getpid(), signal.SIGTRAP)
    main(sys.argv[1])
