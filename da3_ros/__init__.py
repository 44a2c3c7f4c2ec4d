"""Real-time monocular SLAM on Depth Anything 3, as a ROS 2 node and without ROS.

Importing the package costs next to nothing: every part imports what it needs, where it needs it.
"""

# The generated messages (da3_ros.msg, da3_ros.srv) live in a second folder of the same name, in colcon's
# install tree. Without this line, running from the repository would find the modules but no messages.
__path__ = __import__("pkgutil").extend_path(__path__, __name__)

# OpenBLAS splits even small products among threads that spin while they wait for each other. On a machine whose
# cores are busy (camera driver, player, our own other threads) that makes joining a window ten times slower. It
# reads this when NumPy is first imported; whoever wants more threads sets the variable.
__import__("os").environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
