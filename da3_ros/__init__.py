"""Real-time monocular SLAM on Depth Anything 3, as a ROS 2 node and without ROS.

Importing the package costs next to nothing: every part imports what it needs, where it needs it.
"""

# The generated messages (da3_ros.msg, da3_ros.srv) live in a second folder of the same name, in colcon's
# install tree. Without this line, running from the repository would find the modules but no messages.
__path__ = __import__("pkgutil").extend_path(__path__, __name__)

__version__ = "0.1.0"
