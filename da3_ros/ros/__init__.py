"""The ROS 2 side: node, parameters, conversions, publishers, player, live evaluation.  The only home of rclpy."""
