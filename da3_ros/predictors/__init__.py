"""Predictors: what turns a window of frames into depth and cameras."""

from __future__ import annotations

from da3_ros.config import Config
from da3_ros.errors import PredictorError
from da3_ros.types import Predictor


def open_predictor(config: Config) -> Predictor:
    """Open the predictor that ``config.predictor`` names.

    Raises:
        PredictorError: the name is unknown or its file cannot be used.
    """
    name, _, argument = config.predictor.partition(":")
    if name == "simulated" and not argument:
        from da3_ros.predictors.simulated import SimulatedPredictor

        return SimulatedPredictor(config.simulated, config.seed)
    if name == "recorded" and argument:
        from da3_ros.predictors.recorded import RecordedPredictor

        return RecordedPredictor(argument)
    raise PredictorError(f"unknown predictor '{config.predictor}'; use simulated or recorded:FILE")
