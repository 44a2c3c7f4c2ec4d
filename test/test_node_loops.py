"""Loops through the live node: a walk to and fro, and what subscribers hear of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from da3_ros.msg import MapUpdate, PoseGraph, PoseGraphEdge
from ros_bench import LATCHED, Camera

# A short walk in small pictures: places are old soon, and few features are many.
SOON = {"loops.min_gap_s": 0.5, "loops.min_gap_keyframes": 5, "loops.min_inliers": 12, "loops.every": 1}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_loops_reach_status_graph_and_map(bench, walk):
    order = [*walk, *walk[-2::-1], *walk[1:]]
    begin, step = walk[0].stamp_ns, walk[1].stamp_ns - walk[0].stamp_ns
    frames = [dataclasses.replace(f, id=i, stamp_ns=begin + i * step) for i, f in enumerate(order)]
    bench.start(**SOON)
    camera = Camera(bench)
    graphs = bench.listen(PoseGraph, "pose_graph", LATCHED)
    updates = bench.listen(MapUpdate, "map/updates", LATCHED)
    camera.wait()
    camera.show(frames)
    status = bench.until_status(lambda s: s.loops >= 2 and s.frames_accepted > 150, "loops")
    assert status.graph_revision >= 2

    def loops() -> list[PoseGraphEdge]:
        return [e for e in graphs[-1].edges if e.type == PoseGraphEdge.TYPE_LOOP] if graphs else []

    edges = bench.until(loops, "a graph with loops")
    assert graphs[-1].revision >= 1
    known = set(graphs[-1].keyframe_ids)
    for edge in edges:
        assert {edge.from_keyframe_id, edge.to_keyframe_id} <= known
        assert edge.from_keyframe_id < edge.to_keyframe_id
        assert 0 <= edge.residual < 5
        assert 0 < edge.rotation_sigma_rad < 0.1
        assert 0 < edge.translation_sigma_m < 0.3
        assert np.isfinite(edge.log_scale)
    assert bench.until(lambda: [u for u in updates if u.graph_revision >= 1], "submaps that moved")
