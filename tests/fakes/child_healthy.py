"""A child that does what it should, without models: `child_healthy.py serve --port N ...`, stdlib only.

Answers like opencode where the sidecar's mechanics need it. Tests drive it over HTTP: `POST /test/emit` sends
the body as a frame to all event streams, `/test/drop` ends those streams, `/test/mute` stops heartbeats,
`/test/hang` stops health answers, `/test/exit` exits with 7, `/test/refuse` makes loads answer 400, and
`GET /test/calls` lists `"METHOD path directory"` of all other requests.
"""

import json
import os
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HEARTBEAT_SECONDS = 0.1


class Behaviour:
    """What the tests may change."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.streams: list[queue.Queue[bytes | None]] = []
        self.is_mute = False
        self.is_hanging = False
        self.is_refusing = False


class Handler(BaseHTTPRequestHandler):
    """One request. `behaviour` is set by `serve`."""

    protocol_version = "HTTP/1.1"
    behaviour: Behaviour

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def answer(self, body: object, status: int = 200) -> None:
        """Send JSON."""
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        """Health, events, loads."""
        self.route()

    def do_POST(self) -> None:
        """Dispose and the tests' switches."""
        self.route()

    def route(self) -> None:
        """Answer anything."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url, state = urlsplit(self.path), self.behaviour
        if "authorization" not in self.headers:
            return self.answer({"message": "who are you?"}, 401)
        if url.path.startswith("/test/"):
            return self.switch(url.path.removeprefix("/test/"), body)
        directory = parse_qs(url.query).get("directory", [""])[0]
        if url.path != "/global/health":
            state.calls.append(" ".join(filter(None, (self.command, url.path, directory))))
        if url.path == "/global/health":
            if state.is_hanging:
                threading.Event().wait()
            return self.answer({"healthy": True, "version": "fake"})
        if url.path == "/global/event":
            return self.stream()
        if url.path == "/mcp" and state.is_refusing:
            return self.answer({"name": "ConfigJsonError", "data": {"path": "x"}}, 400)
        return self.answer({} if self.command == "GET" else True)

    def switch(self, name: str, body: bytes) -> None:
        """Do what a test asks for."""
        state = self.behaviour
        if name == "calls":
            return self.answer(state.calls)
        if name == "emit":
            for stream in state.streams:
                stream.put(body)
        elif name == "drop":
            for stream in state.streams:
                stream.put(None)
        elif name == "mute":
            state.is_mute = True
        elif name == "hang":
            state.is_hanging = True
        elif name == "refuse":
            state.is_refusing = True
        self.answer(True)
        if name == "exit":
            self.wfile.flush()
            os._exit(7)
        return None

    def stream(self) -> None:
        """Send frames until dropped or disconnected."""
        mine: queue.Queue[bytes | None] = queue.Queue()
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.behaviour.streams.append(mine)
        self.frame(b'{"payload":{"type":"server.connected","properties":{}}}')
        try:
            while True:
                try:
                    data = mine.get(timeout=HEARTBEAT_SECONDS)
                except queue.Empty:
                    if not self.behaviour.is_mute:
                        self.frame(b'{"payload":{"type":"server.heartbeat","properties":{}}}')
                    continue
                if data is None:
                    return
                self.frame(data)
        except OSError:
            return
        finally:
            self.behaviour.streams.remove(mine)

    def frame(self, data: bytes) -> None:
        """Write one frame."""
        self.wfile.write(b"data: " + data + b"\n\n")
        self.wfile.flush()


def port_of(arguments: list[str]) -> int:
    """Return the value of --port."""
    return int(arguments[arguments.index("--port") + 1])


def serve(arguments: list[str], handler: type[Handler] = Handler) -> None:
    """Serve until killed."""
    handler.behaviour = Behaviour()
    server = ThreadingHTTPServer(("127.0.0.1", port_of(arguments)), handler)
    server.daemon_threads = True
    print("listening", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv)
