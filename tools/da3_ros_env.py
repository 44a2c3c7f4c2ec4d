"""Makes this environment's Python see ROS 2 and our messages, without sourcing anything.

tools/bootstrap.py copies this file into the environment's site-packages together with da3_ros_env.json
(what to put in front of which variable) and a .pth file that imports it whenever Python starts.

The dynamic linker reads LD_LIBRARY_PATH only when a process starts, so Python is started once more with
the complete value. The ROS wheels bring a .pth that does the same for themselves, guarded by a variable
that child processes inherit: another environment's Python would then run with this one's libraries. This
module runs first (alphabetical order), does the work for both, and notices when the inherited values are
those of another environment.
"""

import json
import os
import sys

OWNER = "DA3_ROS_ENV"  # the environment that the variables were last prepared for
WHEELS_GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"  # set: the wheels' own .pth leaves the process alone


def prepend(entries: list[str], present: str) -> str:
    """`entries` in front of a PATH-like value, without repeating any."""
    rest = [entry for entry in present.split(os.pathsep) if entry and entry not in entries]
    return os.pathsep.join(entries + rest)


def prepare(prefix: str, paths: dict[str, list[str]]) -> None:
    """Set the variables for the environment at `prefix`; restart Python if the linker must see them."""
    libraries = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    ready = os.environ.get(OWNER) == prefix and set(paths["LD_LIBRARY_PATH"]) <= set(libraries)
    if ready:
        return
    for variable, entries in paths.items():
        os.environ[variable] = prepend(entries, os.environ.get(variable, ""))
    os.environ[OWNER] = prefix
    os.environ[WHEELS_GUARD] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def main() -> None:
    """Read the settings beside this file and apply them, in this environment's own interpreter only."""
    with open(os.path.splitext(__file__)[0] + ".json", encoding="utf-8") as file:
        settings = json.load(file)
    if os.path.realpath(sys.prefix) == settings["prefix"] and sys.executable:
        prepare(settings["prefix"], settings["paths"])


main()
