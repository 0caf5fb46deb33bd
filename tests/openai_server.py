"""A server that speaks the OpenAI protocol, with the faults that real ones have, for tests.

    with OpenAiServer() as server:
        server.answers += [fails(500), says("Once ", "more.")]

Each request gets the next answer; the last one stays.
"""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Answer = Callable[["Handler"], None]
LONGEST_WAIT = 60  # seconds


class Handler(BaseHTTPRequestHandler):
    """Answers one client."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ours = self.server.ours
        ours.requests.append({"path": self.path, "key": self.headers["Authorization"]} | request)
        (ours.answers.pop(0) if len(ours.answers) > 1 else ours.answers[0])(self)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def send_status(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(raw))} | headers
        ).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def event(self, data: str) -> None:
        raw = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")
        self.wfile.flush()

    def piece(self, text: str | None, finish: str | None = None) -> None:
        delta = {} if text is None else {"content": text}
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self.event(
            json.dumps(
                {
                    "id": "x",
                    "object": "chat.completion.chunk",
                    "created": 0,
                    "model": "m",
                    "choices": [choice],
                }
            )
        )

    def end(self) -> None:
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


def says(*pieces: str) -> Answer:
    """Answer with a whole text."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for piece in pieces:
            handler.piece(piece)
        handler.piece(None, "stop")
        handler.event("[DONE]")
        handler.end()

    return answer


def fails(status: int, code: str | None = None, **headers: str) -> Answer:
    """Answer with an error. `headers` are written with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"error": {"message": f"this is error {status}", "type": "error", "code": code}}
    return lambda handler: handler.send_status(status, body, named)


def cuts(*pieces: str) -> Answer:
    """Begin to answer, and hang up in the middle."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for piece in pieces:
            handler.piece(piece)
        handler.close_connection = True

    return answer


def forgets_its_end(*pieces: str) -> Answer:
    """Answer with a text that ends without saying so, as a proxy does that has lost its server."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for piece in pieces:
            handler.piece(piece)
        handler.end()

    return answer


def breaks(data: str) -> Answer:
    """Answer with one piece, and then with this."""

    def answer(handler: Handler) -> None:
        handler.begin()
        handler.piece("Once ")
        handler.event(data)
        handler.end()

    return answer


def waits(gate: threading.Event, *pieces: str) -> Answer:
    """Begin to answer, and go on when the gate opens."""

    def answer(handler: Handler) -> None:
        handler.begin()
        for piece in pieces:
            handler.piece(piece)
        gate.wait(LONGEST_WAIT)
        try:
            handler.piece("end.", "stop")
            handler.event("[DONE]")
            handler.end()
        except OSError:  # the client has hung up
            handler.server.ours.hung_up.set()
            handler.close_connection = True

    return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    ours: "OpenAiServer"

    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that hang up."""


class OpenAiServer:
    """The server. It listens on this machine only, at `url`."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[dict[str, Any]] = []
        self.hung_up = threading.Event()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.ours = self
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
