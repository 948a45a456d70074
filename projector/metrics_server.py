"""Serves the metrics of the worker to Prometheus, if the settings name a port.

The worker has no API keys, so everybody who reaches the port can read the metrics. They name ledgers and nothing else of anybody.
The server is the standard library's, in threads of its own. The metrics are made in the worker's event loop, so they need no
lock. A scrape that the event loop does not answer in time gets a 503.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIEnvironment

from shared.errors import SettingsInvalid
from shared.metrics_text import CONTENT_TYPE
from shared.settings import Settings

SCRAPE_SECONDS: Final = 8.0
CLIENT_SECONDS: Final = 5.0
"""A client that sends or takes nothing for this long is disconnected."""

MakeText = Callable[[], Coroutine[Any, Any, bytes]]


class MetricsServer(ThreadingMixIn, WSGIServer):
    """A server whose port is open. It answers from `start` to `stop`."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        """Opens the port.

        Raises:
            OSError: the address is taken, or is none of this machine.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self._serving: threading.Thread | None = None

    def server_bind(self) -> None:
        """Opens the port as `HTTPServer` does, but does not ask a name server for the name of this machine."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def start(self, make_text: MakeText) -> None:
        """Begins to answer. `make_text` runs in the event loop that runs now."""
        loop = asyncio.get_running_loop()

        def answer(environment: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            if environment["PATH_INFO"] != "/metrics":
                return _plain(start_response, "404 Not Found", "The metrics are at /metrics.\n")
            try:
                text = asyncio.run_coroutine_threadsafe(make_text(), loop).result(SCRAPE_SECONDS)
            except (TimeoutError, RuntimeError):
                return _plain(start_response, "503 Service Unavailable", "The worker is too busy, or ends.\n")
            start_response("200 OK", [("Content-Type", CONTENT_TYPE), ("Server", "daybook")])
            return [text]

        self.set_app(answer)
        self._serving = threading.Thread(target=self.serve_forever, name="metrics", daemon=True)
        self._serving.start()

    def stop(self) -> None:
        """Closes the port. Does not wait for clients."""
        if self._serving:
            self.shutdown()
        self.socket.close()


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, *_: Any) -> None:
        """Logs nothing. The standard library would write each request to stderr."""


def open_metrics_server(settings: Settings) -> MetricsServer | None:
    """Returns a server on the port of the settings, or None if they name none.

    Raises:
        SettingsInvalid: the port cannot be opened.
    """
    host, port = settings.worker_metrics_host, settings.worker_metrics_port
    if port is None:
        return None
    try:
        return MetricsServer(host, port)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsInvalid([f"DAYBOOK_WORKER_METRICS_PORT: {host}:{port} cannot be opened: {reason}"]) from None


def _plain(start_response: StartResponse, status: str, text: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), ("Server", "daybook")])
    return [text.encode()]
