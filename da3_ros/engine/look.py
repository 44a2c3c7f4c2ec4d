"""Depth and sky of single views, on any runtime."""

from __future__ import annotations

from da3_ros.engine.runtime import Host, Runtime


class Looker:
    """A network that looks at one view at a time, at one image size.  Used by one thread."""

    def __init__(self, runtime: Runtime) -> None:
        """Use a runtime with the stage ``look``."""
        self._runtime = runtime

    @property
    def name(self) -> str:
        """Of the runtime."""
        return self._runtime.name

    def look(self, image: Host) -> tuple[Host, Host]:
        """Normalised image (1, 3, H, W) -> depth (H, W) before scaling by the focal length, sky (H, W), 0 and above.

        Raises:
            PredictorError: the runtime failed.
        """
        depth, sky = self._runtime.run("look", [self._runtime.upload(image)])
        return self._runtime.fetch(depth)[0], self._runtime.fetch(sky)[0]

    def close(self) -> None:
        """Free everything."""
        self._runtime.close()
