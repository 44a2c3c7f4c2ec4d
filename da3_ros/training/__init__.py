"""Training small networks on synthetic worlds: data, losses, trainer, evaluation.  ROS-free; torch."""
