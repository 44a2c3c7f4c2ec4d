"""SE3, Sim3, pinhole cameras, cameras from rays and robust statistics.  NumPy only."""
