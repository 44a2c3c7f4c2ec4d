"""What precision each layer computes in, and whether that is single where it has to be.

Two sources: the graph as the library understands it, on any machine (in a strongly typed network these types bind the
compiler), and the engine as it was compiled, where it can be loaded: with its GPU only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da3_ros.engine.tensorrt_build import parsed_network
from da3_ros.errors import EngineError, MissingDependencyError

# Weights whose layers, and all that follows them, must be in single precision; see ``precision``.
_SINGLE = {
    "depth": ("network.depth.output_conv2.",),
    "rays": ("network.rays.norm.", "network.rays.out."),
    "camera": ("network.camera.",),
    "look": ("network.head.output_conv2.", "network.head.sky_output_conv2."),
}
_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")  # in a layer's metadata, one for each node that it was made of
# Words of the inspector's formats ("Row major linear FP16 format", "Half"), those that hold others first.
_WORDS = (
    ("BFLOAT16", "bf16"),
    ("BF16", "bf16"),
    ("HALF", "fp16"),
    ("FP16", "fp16"),
    ("FP32", "fp32"),
    ("FLOAT", "fp32"),
    ("FP8", "fp8"),
    ("FP4", "fp4"),
    ("INT8", "int8"),
    ("INT4", "int4"),
    ("INT32", "int32"),
    ("INT64", "int64"),
    ("BOOL", "bool"),
)
_WHOLE = ("int32", "int64", "bool")  # shapes and places: no precision to lose


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a layer."""

    name: str
    dtype: str  # "fp32", "fp16", ...; what the library says where that is not known
    format: str  # layout in memory, as the library puts it; empty before compilation


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a network, or what a compiler has made of several."""

    name: str
    nodes: tuple[str, ...]  # of the ONNX graph, that it comes from; empty for the library's own
    outputs: tuple[Output, ...]


def graph_layers(library: Any, graph: Path) -> tuple[Layer, ...]:
    """Layers of a graph with the types that the strongly typed network prescribes.

    Raises:
        EngineError: it cannot be parsed.
    """
    network = parsed_network(library, graph)
    return tuple(_layer(network.get_layer(i)) for i in range(network.num_layers))


def engine_layers(library: Any, engine: Any) -> tuple[Layer, ...]:
    """Layers of a loaded engine that was built with detailed verbosity.

    Raises:
        EngineError: the engine tells nothing of its layers.
    """
    text = engine.create_engine_inspector().get_engine_information(library.LayerInformationFormat.JSON)
    return read_layers(text)


def read_layers(text: str) -> tuple[Layer, ...]:
    """The inspector's JSON.

    Raises:
        EngineError: it has no details of layers.
    """
    try:
        told = json.loads(text)["Layers"]
        return tuple(
            Layer(
                layer["Name"],
                tuple(dict.fromkeys(_ORIGIN.findall(layer.get("Metadata") or ""))),
                tuple(_output(output) for output in layer["Outputs"]),
            )
            for layer in told
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineError("the engine tells no details of its layers; build it anew with 'da3 engine build'") from error


def single_precision_nodes(stage: str, graph: Path) -> frozenset[str]:
    """Nodes of a stage's graph that must compute in single precision: the last layers of its head and all after them.

    Raises:
        EngineError: the graph has lost the names of its weights, so nothing can be said.
        MissingDependencyError: onnx is not installed.
    """
    prefixes = _SINGLE.get(stage, ())
    if not prefixes:
        return frozenset()
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            f"checking the precision of '{stage}' needs onnx ({error}): pip install onnx"
        ) from error
    nodes = onnx.load(str(graph), load_external_data=False).graph.node  # in the order of their use
    lost = [p for p in prefixes if not any(name.startswith(p) for node in nodes for name in node.input)]
    if lost:
        raise EngineError(f"{graph.name} has no weights called {' or '.join(lost)}, so its precision cannot be checked")
    found, reached = set(), set()
    for node in nodes:
        if any(name in reached or name.startswith(prefixes) for name in node.input):
            found.add(node.name)
            reached.update(node.output)
    return frozenset(found)


def not_single(nodes: Set[str], layers: Sequence[Layer]) -> list[str]:
    """What of these nodes is not computed in single precision, one phrase each; empty where all is well.

    A node that no layer comes from counts too: nothing is known of it.  A compiler may put several nodes into one
    layer; then all outputs of that layer must be in single precision.
    """
    seen: set[str] = set()
    found = []
    for layer in layers:
        held = nodes & set(layer.nodes)
        seen |= held
        if held:
            found += [
                f"{layer.name} gives {output.name} in {output.dtype}"
                for output in layer.outputs
                if output.dtype not in ("fp32", *_WHOLE)
            ]
    return found + [f"{node} is in no layer" for node in sorted(nodes - seen)]


def _layer(layer: Any) -> Layer:
    outputs: Iterable[Any] = (layer.get_output(i) for i in range(layer.num_outputs))
    return Layer(
        layer.name,
        tuple(dict.fromkeys(_ORIGIN.findall(layer.metadata))),
        tuple(Output(output.name, _dtype(output.dtype.name), "") for output in outputs),
    )


def _output(told: dict[str, Any]) -> Output:
    text = str(told.get("Format/Datatype") or told.get("Datatype") or "")
    return Output(told["Name"], _dtype(text), text)


def _dtype(text: str) -> str:
    return next((dtype for word, dtype in _WORDS if word in text.upper()), text)
