"""The Depth Anything 3 network: plain torch, ours, equal to the official one."""
