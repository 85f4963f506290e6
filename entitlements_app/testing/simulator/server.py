"""The HTTP part: HTTP/1.1 with connections that stay open, a thread each, all of them gone after `stop`."""

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

POLL = 0.02
LARGEST_BODY = 1 << 20


@dataclass(frozen=True)
class HttpRequest:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


Respond = Callable[[HttpRequest], HttpAnswer | None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Without these two an answer costs a delayed acknowledgement, some 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1
    server: "Server"

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > LARGEST_BODY:
            self.close_connection = True
            self.send_answer(HttpAnswer(413))
            return
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = HttpRequest(self.command, parts.path, parts.query, headers, self.rfile.read(length))
        answer = self.server.respond(request)
        if answer is None:
            self.close_connection = True
        else:
            self.send_answer(answer)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = answer  # noqa: N815 http.server's names

    def send_answer(self, answer: HttpAnswer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: Any) -> None:
        """Quiet: the simulator keeps its own log of requests."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, host: str, port: int, respond: Respond) -> None:
        self.respond = respond
        self._guard = threading.Lock()
        self._connections: dict[Any, threading.Thread] = {}
        super().__init__((host, port), Handler)
        self._accepting = threading.Thread(
            target=self.serve_forever, args=(POLL,), name="stripe-simulator", daemon=True
        )

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of the host's full name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def start(self) -> None:
        self._accepting.start()

    def stop(self) -> None:
        """Afterwards no socket is open and no thread is left."""
        self.shutdown()
        self._accepting.join()
        self.server_close()
        with self._guard:
            connections = dict(self._connections)
        for connection, thread in connections.items():
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="stripe-simulator-connection",
            daemon=True,
        )
        with self._guard:
            self._connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._guard:
            self._connections.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is its own affair; what the simulator does wrong is caught before this."""
