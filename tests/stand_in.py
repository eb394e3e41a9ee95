"""A server that speaks the OpenAI dialect as vLLM does, and misbehaves on demand."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, dict[str, Any]], Any]  # path and body in; JSON, or (status, headers, bytes), out


class Server:
    """`asked` has path and body of every POST; `faults` are answers that come before those of `answer`."""

    def __init__(self, answer: Answer, **card: Any) -> None:
        self.answer, self.card = answer, {"id": "served", "max_model_len": 4096, **card}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[Any] = []
        self.url = ""
        self.lock = threading.Lock()

    def __call__(self, path: str, body: dict[str, Any] | None) -> Any:
        if body is None:
            return {"data": [self.card]} if path == "/v1/models" else (404, {}, b'{"error": {"message": "not found"}}')
        with self.lock:
            self.asked.append((path, body))
            fault = self.faults.pop(0) if self.faults else None
        return self.answer(path, body) if fault is None else fault() if callable(fault) else fault


@contextmanager
def serve(server: Server) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def _reply(self, body: dict[str, Any] | None) -> None:
            server.headers.append(dict(self.headers))
            answer = server(self.path, body)
            status, headers, content = answer if isinstance(answer, tuple) else (200, {}, json.dumps(answer).encode())
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self._reply(None)

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
