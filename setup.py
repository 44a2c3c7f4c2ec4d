"""Plain pip installation: the Python package and its two commands, without the ROS messages.

This file is also the one list of Python dependencies: tools/bootstrap.py installs the extras from here.
The ROS build (package.xml, CMakeLists.txt) adds the messages; see DESIGN.md for how the two fit together.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
README = HERE / "README.md"
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "da3_ros/__init__.py").read_text()).group(1)

AROUND_TORCH = ["safetensors>=0.4", "huggingface_hub>=1.0", "onnx", "onnxscript", "onnxruntime"]
EXTRAS = {
    # The synthetic world, meshes and fast voxel maps. The CPU build is a quarter of the size of the other.
    "open3d": [
        "open3d-cpu>=0.19; platform_machine == 'x86_64'",
        "open3d>=0.18; platform_machine != 'x86_64'",
    ],
    # The pose graph; without it loops stay open.
    "loops": ["gtsam>=4.3; python_version >= '3.11'"],
    # The network: checkpoints, hub, export and ONNX Runtime. With a plain index, torch is the CUDA build.
    "model": ["torch>=2.4", *AROUND_TORCH],
    # Engines for GPUs of the RTX kind; they can be built without a GPU.
    "rtx": [
        f"tensorrt-rtx-cu12; sys_platform == '{system}' and platform_machine == '{machine}'"
        for system, machine in (("linux", "x86_64"), ("win32", "AMD64"))
    ],
    # The last three are what the official network needs, which tests take as a yardstick; see tools/bootstrap.py.
    "test": ["pytest>=8", "pytest-timeout", "pytest-xdist", "hypothesis", "einops", "omegaconf", "addict"],
    "lint": ["ruff", "mypy", "types-PyYAML"],
}
EXTRAS["all"] = EXTRAS["open3d"] + EXTRAS["loops"] + EXTRAS["model"]
# Without torch: tools/torch_build.py has chosen its build by then.
EXTRAS["dev"] = EXTRAS["open3d"] + EXTRAS["loops"] + AROUND_TORCH + EXTRAS["test"] + EXTRAS["lint"]

setup(
    name="da3_ros",
    version=VERSION,
    description="Real-time monocular SLAM on Depth Anything 3, as a ROS 2 node and without ROS",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="da3_ros developers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["da3_ros", "da3_ros.*"]),
    # Telling setuptools where the packages are makes an editable installation a plain path entry.
    package_dir={"": "."},
    package_data={"da3_ros": ["py.typed", "model/shipped/*/*"]},
    include_package_data=True,
    python_requires=">=3.10",
    install_requires=[
        "matplotlib>=3.5",
        "numpy>=1.24",
        "opencv-python-headless>=4.6",
        "psutil>=5.9",
        "PyYAML>=6.0",
        "rosbags>=0.10",
        "scipy>=1.10",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "da3 = da3_ros.cli:main",
            "da3_slam_node = da3_ros.ros.slam_node:main",
        ],
    },
    zip_safe=False,
)
