"""The direction of imports, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "da3_ros"
BASE = {"types", "config", "errors", "files", "geometry"}
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    "slam": BASE,
    "mapping": BASE,
    "predictors": BASE | {"model", "engine"},
    "sources": BASE,
    "model": BASE,
    "engine": BASE | {"model"},
    "training": BASE | {"model", "engine", "sources"},
    "evaluation": BASE | {"slam", "mapping", "predictors", "sources"},
}
MAY_IMPORT["ros"] = set(MAY_IMPORT)
MAY_IMPORT["benchmarks"] = {*MAY_IMPORT, "ros"}
MAY_IMPORT["commands"] = {*MAY_IMPORT, "benchmarks", "ros"}
MAY_IMPORT["cli"] = {*MAY_IMPORT["commands"], "commands"}
ONLY_IN = {
    "rclpy": {"ros"},
    "torch": {"model", "engine", "training", "benchmarks"},  # the official code, to compare with, knows nothing else
    "safetensors": {"model"},
    "huggingface_hub": {"model"},
    "tensorrt": {"engine"},
    "open3d": {"mapping", "evaluation", "sources"},
    "matplotlib": {"evaluation"},
    "rosbags": {"sources"},
    "gtsam": {"slam"},
    "scipy": {"slam", "evaluation", "sources", "mapping"},
}


def modules() -> list[tuple[str, Path, set[str]]]:
    """(part of the package, file, names it imports) of every module."""
    out = []
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: imports are absolute"
                names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        out.append((part, path, names))
    return out


def test_parts_import_only_what_they_may():
    wrong = []
    for part, path, names in modules():
        if part == "__init__":
            continue
        assert part in MAY_IMPORT, f"say in this test what {part} may import"
        used = {n.split(".")[1] for n in names if n.startswith("da3_ros.") and n != "da3_ros.__version__"}
        generated = {"msg", "srv"} if part == "ros" else set()
        wrong += [f"{path.name} imports {n}" for n in sorted(used - MAY_IMPORT[part] - {part} - generated)]
    assert not wrong


def test_heavy_libraries_stay_where_they_belong():
    wrong = []
    for part, path, names in modules():
        tops = {n.split(".")[0] for n in names}
        wrong += [f"{path} imports {lib}" for lib, where in ONLY_IN.items() if lib in tops and part not in where]
    assert not wrong


def test_slam_and_map_never_see_the_truth():
    for part, path, _ in modules():
        if part in {"slam", "mapping"}:
            names = {n.attr for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute)}
            assert "truth" not in names, f"{path} reads the ground truth"


def test_the_command_line_is_light():
    code = (
        "import sys, da3_ros.cli; da3_ros.cli.parser(); "
        "print([m for m in ('numpy', 'cv2', 'open3d', 'torch', 'rclpy', 'matplotlib', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert done.stdout.strip() == "[]"
