"""Inference engines that read ONNX files: ONNX Runtime, OpenVINO, MNN. Each needs its package, and
the export needs `onnx`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from ... import export_onnx
from ..engine import Engine, Job
from ..runner import Runner


class OnnxEngine(Engine):
    """An engine that evaluates what ``attnnet.export_onnx`` writes.

    Args:
        threads: that it may use.
    """

    trains = False

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def train(self, job: Job) -> Runner:
        raise TypeError(f"{self.name} does not train")

    def infer(self, job: Job) -> Runner:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "network.onnx"
            export_onnx(job.model().eval(), path)
            return _OnnxRunner(self.load(path, job), job)

    @abstractmethod
    def load(self, path: Path, job: Job) -> Any:
        """A function from images to logits, both NumPy arrays."""


class _OnnxRunner(Runner):
    def __init__(self, run: Any, job: Job) -> None:
        self.run, self.images = run, job.images

    def logits(self) -> np.ndarray:
        return self.run(self.images)

    def step(self) -> None:
        self.run(self.images)


class OnnxRuntime(OnnxEngine):
    """ONNX Runtime, CPU provider."""

    name = "onnxruntime"

    def load(self, path: Path, job: Job) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        return lambda images: session.run(None, {name: images})[0]


class OpenVino(OnnxEngine):
    """OpenVINO, CPU device, for the batch at hand alone, which it likes best.

    Args:
        threads: that it may use.
        precision: "float32" or "bfloat16".
    """

    def __init__(self, threads: int, precision: str = "float32") -> None:
        super().__init__(threads)
        self.precision = precision
        self.name = "openvino" if precision == "float32" else "openvino bf16"

    def load(self, path: Path, job: Job) -> Any:
        import openvino

        core = openvino.Core()
        network = core.read_model(path)
        network.reshape([job.batch, *job.images.shape[1:]])
        compiled = core.compile_model(
            network,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": "f32" if self.precision == "float32" else "bf16",
            },
        )
        request = compiled.create_infer_request()
        return lambda images: request.infer({0: images}, share_inputs=True)[0].copy()


class Mnn(OnnxEngine):
    """MNN, CPU backend, high precision (float32)."""

    name = "mnn"

    def load(self, path: Path, job: Job) -> Any:
        import MNN
        import MNN.expr

        converted = path.with_suffix(".mnn")
        command = [sys.executable, "-m", "MNN.tools.mnnconvert", "-f", "ONNX", "--modelFile", path]
        command += ["--MNNModel", converted, "--bizCode", "bench"]
        subprocess.run(command, check=True, capture_output=True)
        manager = MNN.nn.create_runtime_manager(
            ({"backend": "CPU", "precision": "high", "numThread": self.threads},)
        )
        network = MNN.nn.load_module_from_file(
            str(converted), ["images"], ["logits"], runtime_manager=manager
        )

        def run(images: np.ndarray) -> np.ndarray:
            x = MNN.expr.const(images, list(images.shape), MNN.expr.NCHW)
            y = MNN.expr.convert(network.forward(x), MNN.expr.NCHW)
            return np.array(y.read(), np.float32)

        return run


def engines(name: str, threads: int) -> list[Engine]:
    """The configurations of "onnxruntime", "openvino" or "mnn"."""
    if name == "onnxruntime":
        return [OnnxRuntime(threads)]
    if name == "openvino":
        return [OpenVino(threads), OpenVino(threads, "bfloat16")]
    return [Mnn(threads)]
