"""A ROS domain that nobody else on this machine uses: tests that run side by side must not hear each other."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

# Fast DDS derives UDP ports from the domain; above 101 they meet Linux's ephemeral ports.
_DOMAINS = range(1, 101)
_PORT_BASE = 32768  # as domain_coordinator of ament does it, so that its users keep away as well


@contextmanager
def free_domain() -> Iterator[int]:
    """Reserve a domain, by holding a port that stands for it."""
    for domain in _DOMAINS:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as claim:
            try:
                claim.bind(("", _PORT_BASE + domain))
            except OSError:
                continue
            yield domain
            return
    raise RuntimeError("every ROS domain from 1 to 100 is in use on this machine")
