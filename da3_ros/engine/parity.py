"""Whether a runtime says what the network says: a self-test on the first load of graphs or engines.

Compilers have been silently wrong (TensorRT 10.3 on some Jetsons returned plausible depth that was not the network's).
Pictures go through every stage, in windows of each size for which engines are compiled separately; what comes out is
compared with what torch gave in single precision when the graphs were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from da3_ros.engine.look import Looker
from da3_ros.engine.runtime import Host, Runtime
from da3_ros.engine.staged import StagedNetwork
from da3_ros.errors import EngineError

# Largest root mean square difference, as a share of an output's standard deviation.  A wrong layout, scale or layer
# makes it about 1; half precision 0.001 to 0.01; TF32, which GPUs use for single precision, 0.001.
TOLERANCE = {"fp32": 0.01, "bf16": 0.1, "fp16": 0.05}
WINDOWS = (1, 2, 5)  # views: one for each optimisation profile, see ``engines.profiles``
_LOOKS = 2  # of a network that looks at one view at a time
_THINNED = 3  # every so many pixels of dense outputs are kept, so that files stay small


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences by output: root mean square, as a share of the output's standard deviation."""

    differences: Mapping[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """Output that differs most, and by how much."""
        return max(self.differences.items(), key=lambda item: item[1])

    def require(self, precision: str, name: str) -> None:
        """Refuse a runtime that says something else than the network.

        Raises:
            EngineError: says which output is off and by how much.
        """
        output, difference = self.worst
        if not difference <= TOLERANCE[precision]:
            raise EngineError(
                f"{name} gives another {output} than the network does (by {difference:.2g} of its spread, "
                f"{TOLERANCE[precision]:g} is allowed for {precision}) and is not used; update its library, or choose "
                "another runtime or --precision fp32"
            )


def pictures(width: int, height: int) -> Host:
    """Views (5, 3, H, W) of something with structure at all scales, normalised as images are."""
    rng = np.random.default_rng(14)
    planes = np.zeros((height, width, 3 * WINDOWS[-1]), np.float32)
    for cells in (2, 5, 12, 40):
        noise = rng.standard_normal((cells, cells, 3 * WINDOWS[-1])).astype(np.float32)
        planes += cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR) / 2
    return np.ascontiguousarray(planes.reshape(height, width, WINDOWS[-1], 3).transpose(2, 3, 0, 1))


def outputs(runtime: Runtime, images: Host, cameras: Host | None, most: int = WINDOWS[-1]) -> dict[str, Host]:
    """What a runtime says of these images (N, 3, H, W), in all windows of at most so many views.

    ``cameras`` (2, C) are the learned camera tokens; None for a network that looks at one view at a time.
    """
    if cameras is None:
        looks = [Looker(runtime).look(image[None]) for image in images[:_LOOKS]]
        return {
            "depth": _thinned(np.stack([depth for depth, _ in looks])),
            "sky": _thinned(np.stack([sky for _, sky in looks])),
        }
    staged = StagedNetwork(runtime, cameras, cache_bytes=0)
    told: dict[str, Host] = {}
    for count in (n for n in WINDOWS if n <= most):
        views = f"{count} view" + ("s" if count > 1 else "")
        told |= {f"{name} of {views}": value for name, value in _window(staged, images[:count]).items()}
    staged.cache.clear()
    return told


def compare(runtime: Runtime, test: Mapping[str, Host], cameras: Host | None, most: int = WINDOWS[-1]) -> Parity:
    """Run the self-test: ``test`` holds the images and, under the names of ``outputs``, what is right."""
    found = outputs(runtime, test["images"], cameras, most)
    return Parity({name: _difference(test[name], value) for name, value in found.items()})


def _window(staged: StagedNetwork, images: Host) -> dict[str, Host]:
    views = range(len(images))
    out = staged.predict(list(views), [image[None] for image in images], depth_views=views, ray_views=views)
    return {
        "depth": _thinned(np.stack([out.depth[i][0] for i in views])),
        "depth confidence": _thinned(np.stack([out.depth[i][1] for i in views])),
        "rays": _thinned(np.stack([out.rays[i][0] for i in views])),
        "ray confidence": _thinned(np.stack([out.rays[i][1] for i in views])),
        "cameras": out.cameras,
    }


def _thinned(maps: Host) -> Host:
    """Some pixels of maps (N, H, W, ...)."""
    return np.ascontiguousarray(maps[:, ::_THINNED, ::_THINNED])


def _difference(right: Host, found: Host) -> float:
    if right.shape != found.shape or not (np.isfinite(found).all() and np.isfinite(right).all()):
        return float("inf")  # a NaN would hide among the others: it is neither more nor less than any of them
    spread = max(float(right.std()), 1e-6 * float(np.abs(right).max()), 1e-30)
    return float(np.sqrt(np.mean(np.square(right - found, dtype=np.float64)))) / spread
