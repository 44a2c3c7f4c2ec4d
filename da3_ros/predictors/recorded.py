"""Predictions on disk: save what a predictor said, replay it without the predictor.

A recording is a ZIP archive with one uncompressed ``.npz`` per window, named by the stamps of its views; nothing in
it is pickled.  Stamps of two sources may agree (folders of images start at the same second), so each window also keeps
a tiny picture of its newest view.  It is written under a temporary name and renamed when it is complete.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from da3_ros.errors import OutputError, PredictorError
from da3_ros.files import reason
from da3_ros.geometry.camera import Pinhole
from da3_ros.types import FloatArray, Prediction, Predictor, Rays, Window

_FORMAT = "da3_ros recording 1"
# What zipfile and NumPy raise on bytes that are not what they seem.
_DAMAGE = (OSError, EOFError, ValueError, LookupError, RuntimeError, OverflowError, TypeError, zipfile.BadZipFile)

_LOOK = (16, 12)  # width, height of the picture
_SAME_LOOK = 8.0  # mean difference in grey levels that another decoder or exposure of the same image stays below


class NotRecordedError(PredictorError):
    """A window that the recording lacks: it belongs to another source, configuration or version."""


class RecordedPredictor:
    """Replays a recording; a window that was not recorded is refused."""

    needs_truth = False

    def __init__(self, path: str | Path) -> None:
        """Open the archive and read its index.

        Raises:
            PredictorError: there is none, or it is damaged or something else.
        """
        self.name = f"recorded:{Path(path).name}"
        self._asked: Counter[str] = Counter()
        foreign = (
            f"{path} is not a recording of predictions, or is cut short; make one with da3 run SOURCE --record FILE"
        )
        try:
            self._archive = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise PredictorError(f"no recording at {path}; make one with da3 run SOURCE --record {path}") from None
        except OSError as error:
            raise PredictorError(f"cannot read the recording {path}: {reason(error)}") from error
        except _DAMAGE as error:
            raise PredictorError(foreign) from error
        if self._archive.comment != _FORMAT.encode():
            self._archive.close()
            raise PredictorError(foreign)
        self._recorded = set(self._archive.namelist())

    def prepare(self, width: int, height: int) -> None:
        """Nothing depends on the size."""

    def predict(self, window: Window) -> Prediction:
        """Return what was recorded for these views; what was refused then is refused again.

        Raises:
            NotRecordedError: the recording lacks this window.
            PredictorError: the window is damaged, or was refused when it was recorded.
        """
        name = self._name(window)
        try:
            with np.load(io.BytesIO(self._archive.read(name)), allow_pickle=False) as data:
                arrays = {key: data[key] for key in data.files}
            if np.abs(arrays["look"] - _look(window)).mean() < _SAME_LOOK:
                return _prediction(window, arrays)
        except _DAMAGE as error:
            raise PredictorError(f"the recorded window {name} is damaged; record it again") from error
        raise NotRecordedError(
            f"the recording has another image at {window.frames[-1].stamp_ns} ns: it was made with another source; "
            "replay it with that one, or make another with --record"
        )

    def close(self) -> None:
        """Close the archive."""
        self._archive.close()

    def _name(self, window: Window) -> str:
        """Where the window is: the same views may have been predicted again, after a break; then in this order."""
        key = _key(window)
        self._asked[key] += 1
        for turn in range(self._asked[key], 0, -1):
            if (name := f"{key}-{turn}.npz") in self._recorded:
                return name
        raise NotRecordedError(
            f"the recording has no window of {len(window.frames)} views ending at {window.frames[-1].stamp_ns} ns; "
            "replay it with the source, --frames and configuration that it was made with"
        )


class RecordingPredictor:
    """Passes windows to another predictor and saves what it says.

    What was recorded becomes the file only when the run was ``complete``: a run that is interrupted leaves an older
    recording alone.  A place that cannot be written costs the recording and not the run: it is reported by ``close``.
    """

    def __init__(self, inner: Predictor, path: str | Path) -> None:
        """Start a recording that ``complete`` will put at ``path``.

        Raises:
            OutputError: nothing can be written there.
        """
        self.name = inner.name
        self.needs_truth = inner.needs_truth
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".partial")
        self._inner = inner
        self._asked: Counter[str] = Counter()
        self._failure: OSError | None = None
        self._complete = False
        if self.path.is_dir():
            raise OutputError(f"cannot write the recording {path}: it is a folder; name a file")
        if self.path.exists():
            raise OutputError(f"cannot write the recording {path}: it exists already; remove it or choose another name")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._archive: zipfile.ZipFile | None = zipfile.ZipFile(self.partial, "w", zipfile.ZIP_STORED)
        except OSError as error:
            raise OutputError(f"cannot write the recording {path}: {reason(error)}; choose another place") from error
        self._archive.comment = _FORMAT.encode()

    def prepare(self, width: int, height: int) -> None:
        """Prepare the predictor inside."""
        self._inner.prepare(width, height)

    def predict(self, window: Window) -> Prediction:
        """Predict and save, a refusal too.

        Raises:
            PredictorError: of the inner predictor.
        """
        try:
            prediction = self._inner.predict(window)
        except PredictorError as error:
            self._save(window, {"refused": np.array(str(error))})
            raise
        self._save(window, _arrays(prediction))
        return prediction

    def complete(self) -> None:
        """The run has come to its end: ``close`` puts the recording into its place."""
        self._complete = True

    def close(self) -> None:
        """Put a complete recording into its place, leave another as ``partial``, and close the inner predictor.

        Raises:
            OutputError: the recording could not be written; an older one stays as it was.
        """
        self._inner.close()
        archive, self._archive = self._archive, None
        if archive is None:
            return
        try:
            archive.close()
            if self._complete and self._failure is None:
                self.partial.replace(self.path)
        except OSError as error:
            self._failure = self._failure or error
        if self._failure is not None:
            self.partial.unlink(missing_ok=True)
            raise OutputError(
                f"cannot write the recording {self.path}: {reason(self._failure)}; choose another place and run again"
            ) from self._failure

    def _save(self, window: Window, arrays: dict[str, NDArray[Any]]) -> None:
        assert self._archive is not None, "the recording is closed"
        key = _key(window)
        self._asked[key] += 1
        if self._failure is not None:
            return
        buffer = io.BytesIO()
        np.savez(buffer, look=_look(window), **arrays)  # type: ignore[arg-type]
        # A fixed date: the same predictions make the same bytes.
        entry = zipfile.ZipInfo(f"{key}-{self._asked[key]}.npz")
        try:
            self._archive.writestr(entry, buffer.getvalue())
        except OSError as error:
            self._failure = error


def _key(window: Window) -> str:
    """A window by the stamps of its views and by the views whose depth was asked for."""
    key = ",".join(str(f.stamp_ns) for f in window.frames) + "|" + ",".join(map(str, window.depth_views))
    return f"{window.frames[-1].stamp_ns}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _look(window: Window) -> FloatArray:
    """The newest view, tiny (12, 16, 3)."""
    return np.asarray(cv2.resize(window.frames[-1].image, _LOOK, interpolation=cv2.INTER_AREA), np.float32)


def _arrays(prediction: Prediction) -> dict[str, NDArray[Any]]:
    """A prediction as named arrays."""
    arrays: dict[str, NDArray[Any]] = {
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
        rows = [[c.width, c.height, c.fx, c.fy, c.cx, c.cy] for c in prediction.cameras]
        arrays["cameras"] = np.array(rows, float)
    return arrays


def _prediction(window: Window, arrays: dict[str, NDArray[Any]]) -> Prediction:
    """The prediction that ``_arrays`` took apart.

    Raises:
        PredictorError: it was refused.
        LookupError, TypeError, ValueError: these are not its arrays.
    """
    if "refused" in arrays:
        raise PredictorError(str(arrays["refused"]))
    cameras, sigma = arrays.get("cameras"), float(arrays["scale_sigma"])
    return Prediction(
        window,
        arrays["depth"],
        arrays["confidence"],
        rays=Rays(arrays["rays"], arrays["ray_confidence"]) if "rays" in arrays else None,
        T_window_cam=arrays.get("T_window_cam"),
        cameras=None if cameras is None else tuple(Pinhole(int(c[0]), int(c[1]), *c[2:].tolist()) for c in cameras),
        tokens=arrays.get("tokens"),
        scale_sigma=None if np.isnan(sigma) else sigma,
    )
