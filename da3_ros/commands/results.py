"""Writing what a run produced, and telling where."""

from __future__ import annotations

import sys
from pathlib import Path

from da3_ros.config import Config
from da3_ros.evaluation.record import Record


def write_results(out: Path, record: Record, config: Config, *, html: bool) -> None:
    """Write the files of a run into ``out`` and print the table.

    Raises:
        OutputError: a file cannot be written; each file is either old or new, never half.
    """
    from da3_ros import config as configuration
    from da3_ros.evaluation.summary import summarise, table, write_json
    from da3_ros.mapping import ply
    from da3_ros.sources.tum import write_tum

    write_tum(out / "trajectory.tum", record.trajectory)
    write_tum(out / "trajectory_causal.tum", record.causal)
    ply.write(out / "map.ply", record.map_points, record.map_colors)
    configuration.save(config, out / "config.yaml")
    summary = summarise(record)
    write_json(out / "report.json", summary)
    page = out / "report.json"
    if html:
        from da3_ros.evaluation.report import write_report

        page = out / "report.html"
        write_report(page, record, summary)
    sys.stdout.write(f"{table(summary)}\nreport: {page.resolve()}\n")
