"""Predictors: what turns a window of frames into depth and cameras."""

from __future__ import annotations

from da3_ros.config import Config
from da3_ros.errors import PredictorError
from da3_ros.model import hub
from da3_ros.model.presets import KNOWN
from da3_ros.types import Predictor, Tell


def open_predictor(config: Config, tell: Tell | None = None) -> Predictor:
    """Open the predictor that ``config.predictor`` names.

    Args:
        config: the whole configuration.
        tell: told what takes long: downloading, exporting, compiling.

    Raises:
        PredictorError: the name is unknown or its file cannot be used.
        ModelError: there is no such network, or it cannot be used as a predictor.
        MissingDependencyError: a network cannot run here.
    """
    name, _, argument = config.predictor.partition(":")
    if name == "simulated" and not argument:
        from da3_ros.predictors.simulated import SimulatedPredictor

        return SimulatedPredictor(config.simulated, config.seed)
    if name == "recorded" and argument:
        from da3_ros.predictors.recorded import RecordedPredictor

        return RecordedPredictor(argument)
    name = config.predictor
    if hub.is_name(name):
        from da3_ros.engine.loader import silent
        from da3_ros.predictors.network import NetworkPredictor

        return NetworkPredictor(name, config, tell or silent)
    known = ", ".join(KNOWN)
    raise PredictorError(
        f"unknown predictor '{name}'; use simulated, recorded:FILE, a network ({known}, or owner/name of the hub), or "
        "a folder with a model"
    )
