"""Writing what a run produced, and telling where."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from da3_ros.errors import OutputError

if TYPE_CHECKING:
    from da3_ros.config import Config
    from da3_ros.evaluation.record import Record
    from da3_ros.evaluation.summary import Summary


def write_results(out: Path, record: Record, config: Config, *, html: bool) -> None:
    """Write the files of a run into ``out`` and print the table.

    Raises:
        OutputError: a file cannot be written; the results of an earlier run are then still there.
    """
    from da3_ros.evaluation.summary import summarise, table
    from da3_ros.files import reason

    summary = summarise(record)
    try:
        # Written beside their places and then moved there together, so that results of two runs do not mix.
        with tempfile.TemporaryDirectory(prefix=".results-", dir=out) as folder:
            _write(Path(folder), record, config, summary)
            written = sorted(Path(folder).iterdir())
            for name in [*(path.name for path in written), "report.html"]:
                if (out / name).is_dir():
                    raise IsADirectoryError(f"{name} is a folder there")
            for path in written:
                path.replace(out / path.name)
        page = out / "report.html"
        page.unlink(missing_ok=True)  # of an earlier run: it would contradict the figures beside it
    except (OSError, OutputError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise OutputError(
            f"cannot write the results into {out}: {reason(cause)}; choose another folder with --out"
        ) from error
    if html:
        from da3_ros.evaluation.report import write_report

        write_report(page, record, summary)
    else:
        page = out / "report.json"
    sys.stdout.write(f"{table(summary)}\nreport: {page.resolve()}\n")


def _write(folder: Path, record: Record, config: Config, summary: Summary) -> None:
    from da3_ros import config as configuration
    from da3_ros.evaluation.summary import write_json
    from da3_ros.mapping import ply
    from da3_ros.sources.tum import write_tum

    write_tum(folder / "trajectory.tum", record.trajectory)
    write_tum(folder / "trajectory_causal.tum", record.causal)
    ply.write(folder / "map.ply", record.map_points, record.map_colors)
    configuration.save(config, folder / "config.yaml")
    write_json(folder / "report.json", summary)
