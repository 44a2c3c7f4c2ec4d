"""SLAM: tracker, keyframes, windows, seams, scale and the trajectory; ``slam.py`` reads as the algorithm."""
