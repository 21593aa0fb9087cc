"""A loopback server that speaks as much of W&B's API as one run needs, as slowly as a test likes."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Heard:
    """What the server was asked: the paths, the keys, and the steps of the history lines."""

    address: str = ""
    paths: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    steps: list[int] = field(default_factory=list)


@contextmanager
def wandb_server(delay_s: float) -> Iterator[Heard]:
    """Serve on a free loopback port; every answer comes `delay_s` after its request, or never when the test is over first."""
    heard, over = Heard(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            heard.paths.append(self.path)
            kind, _, word = (self.headers.get("Authorization") or "").partition(" ")
            if kind == "Basic":
                heard.keys.add(base64.b64decode(word).decode().partition(":")[2])
            elif word:
                heard.keys.add(word)
            if over.wait(delay_s):
                return
            told = json.dumps(_answer(self.path, body, heard)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    heard.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield heard
    finally:
        over.set()
        server.shutdown()
        server.server_close()


def _answer(path: str, body: bytes, heard: Heard) -> dict[str, Any]:
    if path.endswith("/file_stream"):
        lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        heard.steps += [json.loads(line)["step"] for line in lines]
        return {"limits": {}}
    asked = json.loads(body) if path.endswith("/graphql") else {}
    if "UpsertBucket" in asked.get("query", ""):
        name = asked["variables"].get("name") or "run"
        project = {"name": "corgi", "entity": {"name": "tests"}}
        bucket = {"id": "1", "name": name, "displayName": name, "sweepName": None, "historyLineCount": 0}
        return {"data": {"upsertBucket": {"bucket": {**bucket, "project": project}, "inserted": True}}}
    if "createRunFiles" in asked.get("query", ""):
        files = [
            {"name": name, "uploadUrl": f"{heard.address}/upload"} for name in asked["variables"]["files"]
        ]
        return {"data": {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}}
    viewer = {"id": "1", "entity": "tests", "username": "tests", "email": "", "flags": "{}", "admin": False, "apiKeys": {"edges": []}, "teams": {"edges": []}}  # fmt: skip
    return {"data": {"viewer": viewer, "serverInfo": {"features": [], "latestLocalVersionInfo": None}, "model": None, "project": None}}  # fmt: skip
