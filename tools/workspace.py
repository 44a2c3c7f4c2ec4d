"""The colcon workspace inside the environment: tf2_msgs where it is missing, and this package."""

from __future__ import annotations

import shutil
from pathlib import Path

from console import run
from environment import REPOSITORY, Environment, clean_variables, inherited
from ros_wheels import BUILD_TOOLS, WHEELS
from stamps import Stamps, digest_of, files_below


def forget_other_sources(env: Environment, stamps: Stamps) -> None:
    """Remove what was built from another checkout or with other tools: CMake would mix the two."""
    digest = digest_of([str(REPOSITORY), *BUILD_TOOLS], [] if env.native else WHEELS[env.distro])
    if not stamps.fresh("workspace", digest):
        for folder in ("build", "install"):
            shutil.rmtree(env.install.parent / folder, ignore_errors=True)
        stamps.forget("tf2_msgs", "messages")
        stamps.record("workspace", digest)


def build_tf2_msgs(env: Environment, stamps: Stamps) -> bool:
    """Build tf2_msgs where it is missing; no wheel has it."""
    if any(Path(prefix, "share/tf2_msgs").exists() for prefix in inherited(env, "AMENT_PREFIX_PATH")):
        return False
    source = REPOSITORY / "tools/tf2_msgs"
    digest = digest_of(files_below(source))
    if stamps.fresh("tf2_msgs", digest):
        return False
    colcon_build(env, source, "Building tf2_msgs")
    stamps.record("tf2_msgs", digest)
    return True


def build_messages(env: Environment, stamps: Stamps) -> bool:
    """Build this package with colcon: messages compiled, everything else linked to the working tree."""
    sources = [path for folder in ("msg", "srv") for path in files_below(REPOSITORY / folder)]
    sources += [REPOSITORY / "CMakeLists.txt", REPOSITORY / "package.xml"]
    linked = [str(path) for folder in ("launch", "config") for path in files_below(REPOSITORY / folder)]
    digest = digest_of(sources, *linked)
    if stamps.fresh("messages", digest):
        return False
    colcon_build(env, REPOSITORY, "Building the messages of da3_ros")
    code = "import rclpy, tf2_msgs.msg, da3_ros.msg, da3_ros.srv"
    command = [str(env.python), "-c", code]
    run("Trying rclpy and the messages", command, env.logs / "import.log", clean_variables())
    stamps.record("messages", digest)
    return True


def colcon_build(env: Environment, source: Path, title: str) -> None:
    """Build one package into the environment's workspace."""
    workspace = env.install.parent
    command = [str(env.python), "-m", "colcon", "--log-base", str(workspace / "log"), "build"]
    command += ["--paths", str(source), "--merge-install", "--symlink-install"]
    command += ["--build-base", str(workspace / "build"), "--install-base", str(env.install)]
    command += ["--event-handlers", "console_direct+", "console_cohesion-"]
    command += ["--cmake-args", f"-DPython3_EXECUTABLE={env.python}", "-DBUILD_TESTING=OFF", "-Wno-dev"]
    variables = clean_variables()
    variables["PATH"] = f"{env.root / 'bin'}:{variables['PATH']}"
    if not env.native:
        variables["AMENT_PREFIX_PATH"] = variables["CMAKE_PREFIX_PATH"] = str(env.root)
    run(title, command, env.logs / f"{source.name}.log", variables)
