"""A window through the stages, with what is known of its frames reused."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from da3_ros.engine.runtime import Host, Runtime
from da3_ros.engine.token_cache import Encoded, TokenCache
from da3_ros.model.reference import choose_reference, reference_first

# Views that go through the dense heads together: these need many times a view's share of the rest, and gain nothing
# from more at a time.
HEAD_VIEWS = 4


@dataclass(frozen=True, slots=True, eq=False)
class StagedOutput:
    """What the network says of a window: its own units, the reference view's frame."""

    reference: int
    depth: dict[int, tuple[Host, Host]]  # view -> depth (H, W), confidence (H, W), 1 and above
    rays: dict[int, tuple[Host, Host]]  # view -> rays (h, w, 6), confidence (h, w), 1 and above
    cameras: Host  # (S, 9), see CameraHead
    descriptors: Host  # (S, C)


class StagedNetwork:
    """One network at one image size.  Used by one thread."""

    def __init__(self, runtime: Runtime, cameras: Host, cache_bytes: int) -> None:
        """Use a runtime.

        Args:
            runtime: with the stages.
            cameras: (2, C) learned camera tokens, of the reference view and of the others.
            cache_bytes: how much may be kept of frames.
        """
        self._runtime = runtime
        self._cameras = [runtime.upload(np.ascontiguousarray(cameras[i : i + 1])) for i in range(2)]
        self.cache = TokenCache(cache_bytes)

    def predict(
        self,
        keys: Sequence[Hashable],
        images: Sequence[Host | None],
        *,
        reference: str = "first",
        depth_views: Sequence[int] = (),
        ray_views: Sequence[int] = (),
    ) -> StagedOutput:
        """Predict a window.

        Args:
            keys: one per view; the same key always stands for the same image.
            images: per view (1, 3, H, W), normalised; None where ``knows`` the key.
            reference: first, middle or saddle_balanced.
            depth_views: views whose depth is wanted.
            ray_views: views whose rays are wanted.

        Raises:
            PredictorError: the runtime failed.
        """
        try:
            return self._predict(keys, images, reference, depth_views, ray_views)
        finally:  # a window that fails must not leave its frames behind
            self.cache.trim(len(keys))

    def _predict(
        self,
        keys: Sequence[Hashable],
        images: Sequence[Host | None],
        reference: str,
        depth_views: Sequence[int],
        ray_views: Sequence[int],
    ) -> StagedOutput:
        frames = [self._encoded(key, image) for key, image in zip(keys, images, strict=True)]
        choosers = np.stack([frame.chooser for frame in frames])
        first = choose_reference(choosers, reference)
        order = reference_first(len(frames), first)
        entered = [self._entered(frames[i], is_reference=i == first) for i in order]
        *features, feature = self._runtime.run("mix", [self._runtime.join(entered)])
        place = {view: position for position, view in enumerate(order)}
        dense: dict[str, dict[int, tuple[Host, Host]]] = {"depth": {}, "rays": {}}
        wanted = sorted({*depth_views, *ray_views})
        for start in range(0, len(wanted), HEAD_VIEWS):
            views = wanted[start : start + HEAD_VIEWS]
            levels = self._runtime.run("neck", [self._runtime.pick(f, [place[v] for v in views]) for f in features])
            dense["depth"] |= self._dense("depth", levels, views, depth_views)
            dense["rays"] |= self._dense("rays", levels, views, ray_views)
        (cameras,) = self._runtime.run("camera", [feature])
        return StagedOutput(
            reference=first,
            depth=dense["depth"],
            rays=dense["rays"],
            cameras=self._runtime.fetch(cameras)[[place[view] for view in range(len(frames))]],
            descriptors=choosers,
        )

    def knows(self, key: Hashable) -> bool:
        """Whether the image of a frame is not needed again."""
        return key in self.cache

    def close(self) -> None:
        """Free everything."""
        self.cache.clear()
        self._runtime.close()

    def _encoded(self, key: Hashable, image: Host | None) -> Encoded:
        found = self.cache.get(key)
        if found is None:
            assert image is not None, f"the image of {key} is needed"
            tokens, chooser = self._runtime.run("encode", [self._runtime.upload(image)])
            token = self._runtime.fetch(chooser)[0].copy()  # on a host it is a piece of all tokens of an earlier block
            found = Encoded(tokens, token, size=self._runtime.size(tokens) + token.nbytes)
            self.cache.put(key, found)
        return found

    def _entered(self, frame: Encoded, *, is_reference: bool) -> Any:
        if is_reference not in frame.entered:
            camera = self._cameras[0 if is_reference else 1]
            (entered,) = self._runtime.run("enter", [frame.tokens, camera])
            frame.entered[is_reference] = entered
            self.cache.grew(frame, self._runtime.size(entered))
        return frame.entered[is_reference]

    def _dense(
        self, stage: str, levels: Sequence[Any], views: Sequence[int], wanted: Sequence[int]
    ) -> dict[int, tuple[Host, Host]]:
        """What a head says of those of ``views`` that are wanted; ``levels`` are of all of them."""
        some = [view for view in views if view in wanted]
        if not some:
            return {}
        rows = [views.index(view) for view in some]
        value, confidence = self._runtime.run(stage, [self._runtime.pick(level, rows) for level in levels])
        values, confidences = self._runtime.fetch(value), self._runtime.fetch(confidence)
        return {view: (values[i], confidences[i]) for i, view in enumerate(some)}
