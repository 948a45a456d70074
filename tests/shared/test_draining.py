"""From SIGTERM on, an API tells everybody to go elsewhere, and goes on serving until it is told to end at once."""

import os
import signal
import socket
from types import SimpleNamespace

import pytest
from uvicorn import Config, Server

from shared.web.draining import draining, refuse_new_connections
from shared.web.health import Readiness
from tests.harness.connections import RecordingApp, listening

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LONG_SECONDS = 3_600


async def test_after_sigterm_the_process_is_not_ready_and_each_answer_ends_its_connection() -> None:
    app, readiness = RecordingApp(), Readiness({})
    await readiness.look()
    server = Server(Config(app, log_config=None))
    before = signal.signal(signal.SIGTERM, server.handle_exit)
    state = {"settings": SimpleNamespace(read_timeout_ms=10_000), "readiness": readiness}
    try:
        async with listening(app, state=state) as listener, listener.connected() as kept:
            with draining(readiness, LONG_SECONDS):
                await kept.send(REQUEST)
                [answer] = await kept.answers(1)
                assert (readiness.body()[0], "connection" in answer.headers) == (True, False)
                os.kill(os.getpid(), signal.SIGTERM)
                ready, body = readiness.body()
                assert (ready, body["status"], server.should_exit) == (False, "ending", False)
                await kept.send(REQUEST)
                [answer] = await kept.all_answers()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                async with listener.connected() as new:
                    await new.send(REQUEST)
                    assert [each.status for each in await new.all_answers()] == [200]
                os.kill(os.getpid(), signal.SIGTERM)
                assert server.should_exit, "a second signal does not wait"
            assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("sent_before", [b"", b"a request"])
def test_connections_that_have_come_in_are_accepted_and_no_further_one_comes_in(sent_before: bytes) -> None:
    """A listener that is closed at once resets the first of these two: the client loses a request that it has sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as early:
        early.send(sent_before)
        refuse_new_connections([listener])
        with socket.socket() as late:
            late.settimeout(0.05)
            with pytest.raises(TimeoutError):
                late.connect(listener.getsockname())
            accepted, _ = listener.accept()
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                listener.accept()
            with accepted:
                early.send(b"more")
                accepted.settimeout(10)
                assert accepted.recv(100) in {sent_before + b"more", sent_before}
                accepted.send(b"an answer")
                assert early.recv(100) == b"an answer"
