"""The exception tree: one root, one subclass per kind of failure.

Every message is one sentence that says what is wrong and what to do next.  The command line turns a
``Da3Error`` into that sentence and exit code 2; the node turns it into a status and a counted drop.
"""


class Da3Error(Exception):
    """Root of every failure this package raises on purpose."""


class ConfigError(Da3Error):
    """A configuration file, key or value that cannot be used."""


class SourceError(Da3Error):
    """A recording, dataset, video or world that cannot be read."""


class PredictorError(Da3Error):
    """A predictor that cannot be opened or cannot predict this window."""


class OutputError(Da3Error):
    """A place that cannot be written."""


class EvaluationError(Da3Error):
    """Metrics that are not defined for this data (no ground truth, no overlap in time)."""


class MissingDependencyError(Da3Error):
    """Something this machine lacks (ROS 2, a message build, a system library)."""


class ModelError(Da3Error):
    """A model or checkpoint cannot be used."""


class EngineError(Da3Error):
    """An exported graph or a compiled engine cannot be used; it can be made anew."""
