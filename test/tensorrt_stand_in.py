"""What TensorRTRuntime uses of tensorrt_rtx, executed by ONNX Runtime on host memory through the tensors' addresses.

Handed to the runtime in place of the library's module.  An "engine" is a graph with its profiles and, to see what is
made of failures, the name of a call that fails.
"""

from __future__ import annotations

import ctypes
import enum
import json
from pathlib import Path

import numpy as np
import onnxruntime

__version__ = "0.0"

_MAGIC = b"stand-in"


def engine_bytes(graph: Path, profiles: list[tuple[int, int, int]], fail: str = "", says: str = "") -> bytes:
    """What ``build`` would give."""
    head = json.dumps({"profiles": profiles, "fail": fail, "says": says}).encode()
    return _MAGIC + len(head).to_bytes(4, "big") + head + graph.read_bytes()


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    BF16 = 2


class TensorIOMode(enum.Enum):
    INPUT = 0
    OUTPUT = 1


_TYPES = {
    "tensor(float)": (DataType.FLOAT, np.dtype(np.float32)),
    "tensor(float16)": (DataType.HALF, np.dtype(np.float16)),
}


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2


class Runtime:
    def __init__(self, logger):
        self._logger = logger

    def deserialize_cuda_engine(self, data):
        if not data.startswith(_MAGIC):
            self._logger.log(ILogger.Severity.WARNING, "this is not the cause")
            self._logger.log(ILogger.Severity.ERROR, "magic tag does not match")
            self._logger.log(ILogger.Severity.ERROR, "a consequence")
            return None
        start = len(_MAGIC) + 4
        end = start + int.from_bytes(data[len(_MAGIC) : start], "big")
        return Engine(json.loads(data[start:end]), data[end:], self._logger)


class Engine:
    def __init__(self, head, graph, logger):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.head, self.logger = head, logger
        self.nodes = {node.name: node for node in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.num_io_tensors = len(self.nodes)
        self.num_optimization_profiles = len(head["profiles"])
        self.contexts = []

    def get_tensor_name(self, index):
        return list(self.nodes)[index]

    def get_tensor_dtype(self, name):
        return _TYPES[self.nodes[name].type][0]

    def get_tensor_profile_shape(self, name, profile):
        return [(views, *self.nodes[name].shape[1:]) for views in self.head["profiles"][profile]]

    def create_runtime_config(self):
        return IRuntimeConfig()

    def create_execution_context(self, config):
        if self.fails("create_execution_context"):
            return None
        assert config.cache is not None
        config.cache.kernels |= self.nodes.keys()
        self.contexts.append(Context(self))
        return self.contexts[-1]

    def fails(self, call):
        if self.head["fail"] != call:
            return False
        self.logger.log(ILogger.Severity.ERROR, self.head["says"])
        return True


class IRuntimeConfig:
    cache = None

    def create_runtime_cache(self):
        return IRuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class IRuntimeCache:
    def __init__(self):
        self.kernels = set()

    def deserialize(self, data):
        if not data.startswith(_MAGIC):
            return False
        self.kernels |= set(data.removeprefix(_MAGIC).decode().split())
        return True

    def serialize(self):
        return _MAGIC + b" " + " ".join(sorted(self.kernels)).encode()


class Context:
    """Refuses what a context refuses: shapes outside the profile, and execution with an address that is missing."""

    def __init__(self, engine):
        self._engine, self._profile = engine, None
        self._shapes, self._addresses = {}, {}

    def set_optimization_profile_async(self, profile, stream):
        assert stream == 0
        self._profile = self._engine.head["profiles"][profile]
        return True

    def set_input_shape(self, name, shape):
        least, _, most = self._profile
        if not least <= shape[0] <= most or list(shape[1:]) != self._engine.nodes[name].shape[1:]:
            complaint = f"{name} {shape} is outside the profile"
            self._engine.logger.log(ILogger.Severity.ERROR, complaint)
            return False
        self._shapes[name] = shape
        return True

    def get_tensor_shape(self, name):
        shape = next(iter(self._shapes.values()))
        return (shape[0], *self._engine.nodes[name].shape[1:])

    def set_tensor_address(self, name, address):
        self._addresses[name] = address
        return address != 0

    def execute_async_v3(self, stream):
        if self._engine.fails("execute_async_v3"):
            return False
        assert self._addresses.keys() == self._engine.nodes.keys()
        feed = {node.name: self._memory(node.name).copy() for node in self._engine.session.get_inputs()}
        names = [node.name for node in self._engine.session.get_outputs()]
        for name, value in zip(names, self._engine.session.run(names, feed), strict=True):
            self._memory(name)[...] = value
        return True

    def _memory(self, name):
        shape = self.get_tensor_shape(name)
        dtype = _TYPES[self._engine.nodes[name].type][1]
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_byte * size).from_address(self._addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)
