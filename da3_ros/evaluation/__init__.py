"""Metrics of trajectories and latencies, and the report of a run."""
