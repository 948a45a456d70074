"""Finds free ports on 127.0.0.1, and ports at which a program listens."""

import random
import socket
from collections import deque
from typing import Final

PORTS: Final = range(20_000, 32_000)
"""Below the ports that Linux gives to outgoing connections: one of those could take a port before its server has started."""
TRIES: Final = 100
RETURNED_MAX: Final = 1_000
CONNECT_SECONDS: Final = 0.2

_returned: Final = deque[int](maxlen=RETURNED_MAX)
"""The ports that this process got last. Their servers may not have started yet."""


def free_port() -> int:
    """Returns a port that no program uses now, and another one each time. Another program may take it before you do.

    Raises:
        OSError: none of the ports that were tried is free.
    """
    for port in random.SystemRandom().sample(PORTS, TRIES):
        if port not in _returned and port_is_free(port):
            _returned.append(port)
            return port
    raise OSError(f"none of {TRIES} ports from {PORTS.start} to {PORTS.stop} is free")


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def is_listening(host: str, port: int) -> bool:
    """True if a program of this machine accepts connections at the port."""
    try:
        socket.create_connection((host, port), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
