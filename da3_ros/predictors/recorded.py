"""Predictions on disk: save what a predictor said, replay it without the predictor.

A recording is a ZIP archive with one uncompressed ``.npz`` per window, named by the stamps of its views; nothing in
it is pickled.  It is written under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from da3_ros.errors import OutputError, PredictorError
from da3_ros.files import reason
from da3_ros.geometry.camera import Pinhole
from da3_ros.types import Prediction, Predictor, Rays, Window

_FORMAT = "da3_ros recording 1"


class RecordedPredictor:
    """Replays a recording; a window that was not recorded is refused."""

    needs_truth = False

    def __init__(self, path: str | Path) -> None:
        """Open the archive and read its index."""
        self.name = f"recorded:{Path(path).name}"
        try:
            self._archive = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise PredictorError(f"no recording at {path}; make one with da3 run SOURCE --record {path}") from None
        except (OSError, zipfile.BadZipFile) as error:
            raise PredictorError(f"{path} is not a recording of predictions, or is cut short") from error
        if self._archive.comment != _FORMAT.encode():
            raise PredictorError(f"{path} is a ZIP archive but not a recording of predictions")
        self._names = set(self._archive.namelist())

    def predict(self, window: Window) -> Prediction:
        """Return what was recorded for these views; see the base protocol."""
        name = _name(window)
        if name not in self._names:
            raise PredictorError(
                f"the recording has no window of {len(window.frames)} views ending at {window.frames[-1].stamp_ns} ns; "
                "replay it with the configuration and the source that it was recorded with"
            )
        try:
            with np.load(io.BytesIO(self._archive.read(name)), allow_pickle=False) as data:
                arrays = {key: data[key] for key in data.files}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise PredictorError(f"the recorded window {name} is damaged; record it again") from error
        cameras = arrays.get("cameras")
        sigma = float(arrays["scale_sigma"])
        return Prediction(
            window,
            arrays["depth"],
            arrays["confidence"],
            rays=Rays(arrays["rays"], arrays["ray_confidence"]) if "rays" in arrays else None,
            T_window_cam=arrays.get("T_window_cam"),
            cameras=None if cameras is None else tuple(Pinhole(int(c[0]), int(c[1]), *c[2:]) for c in cameras),
            tokens=arrays.get("tokens"),
            scale_sigma=None if np.isnan(sigma) else sigma,
        )

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()


class RecordingPredictor:
    """Passes windows to another predictor and saves what it says."""

    def __init__(self, inner: Predictor, path: str | Path) -> None:
        """Start a recording at ``path``; it appears there when ``close`` is called."""
        self.name = inner.name
        self.needs_truth = inner.needs_truth
        self._inner = inner
        self._path = Path(path)
        self._partial = self._path.with_name(self._path.name + ".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._archive: zipfile.ZipFile | None = zipfile.ZipFile(self._partial, "w", zipfile.ZIP_STORED)
        except OSError as error:
            raise OutputError(f"cannot write the recording {path}: {reason(error)}") from error
        self._archive.comment = _FORMAT.encode()

    def predict(self, window: Window) -> Prediction:
        """Predict and save."""
        prediction = self._inner.predict(window)
        arrays = {
            "depth": prediction.depth,
            "confidence": prediction.confidence,
            "scale_sigma": np.array(np.nan if prediction.scale_sigma is None else prediction.scale_sigma),
        }
        if prediction.rays is not None:
            arrays["rays"], arrays["ray_confidence"] = prediction.rays.rays, prediction.rays.confidence
        if prediction.T_window_cam is not None:
            arrays["T_window_cam"] = prediction.T_window_cam
        if prediction.tokens is not None:
            arrays["tokens"] = prediction.tokens
        if prediction.cameras is not None:
            arrays["cameras"] = np.array(
                [[c.width, c.height, c.fx, c.fy, c.cx, c.cy] for c in prediction.cameras], float
            )
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        assert self._archive is not None, "the recording is closed"
        name = _name(window)
        if name not in self._archive.NameToInfo:
            try:
                self._archive.writestr(name, buffer.getvalue())
            except OSError as error:
                raise OutputError(f"cannot write the recording {self._path}: {reason(error)}") from error
        return prediction

    def close(self) -> None:
        """Complete the recording and close the inner predictor."""
        if self._archive is not None:
            try:
                self._archive.close()
                self._partial.replace(self._path)
            except OSError as error:
                raise OutputError(f"cannot finish the recording {self._path}: {reason(error)}") from error
            finally:
                self._archive = None
        self._inner.close()


def _name(window: Window) -> str:
    """File name of a window: a digest of the stamps of its views and of the views whose depth was asked for."""
    key = ",".join(str(f.stamp_ns) for f in window.frames) + "|" + ",".join(map(str, window.depth_views))
    return f"{window.frames[-1].stamp_ns}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
