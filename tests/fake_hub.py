"""A hub on loopback that speaks the real protocol for one gated model, in every state its gate can be in.

The routes and headers are those that huggingface_hub 2.4 asks for and reads.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

REPO_ID = "acme/tiny-flux"
SHA = "0123456789abcdef0123456789abcdef01234567"
GOOD_TOKEN = "hf_good"

Gate = Literal["open", "accepted", "never_requested", "pending", "rejected", "fine_grained"]

_REFUSALS = {
    "never_requested": "Access to model {id} is restricted and you are not in the authorized list. "
    "Visit https://huggingface.co/{id} to ask for access.",
    "pending": "Your request to access model {id} is awaiting a review from the repo authors.",
    "rejected": "Your request to access model {id} has been rejected by the repo's authors.",
}


@dataclass
class FakeHub:
    """The folder behind the gate, the state of the gate, and what was asked."""

    folder: Path
    gate: Gate = "accepted"
    endpoint: str = ""
    repo_id: str = REPO_ID
    downloads: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """The path of every one, of whatever repository."""
    public: dict[str, Path] = field(default_factory=dict)
    """Repositories beside the gated one: id -> folder."""
    breaks_off: bool = False
    """Whether the connection ends in the middle of every file."""
    claimed_sizes: dict[str, int] = field(default_factory=dict)
    """Path -> bytes that the hub says a file has, where it is not to tell the truth."""

    def refusal(self, authorization: str | None) -> tuple[int, dict[str, str]] | None:
        """Status and headers of the hub's refusal, or None if this token may read."""
        if self.gate == "open":
            return None
        if authorization is None:
            return 401, {
                "X-Error-Code": "GatedRepo",
                "X-Error-Message": f"Access to model {self.repo_id} is restricted. You must have access to it and be "
                "authenticated to access it. Please log in.",
            }
        if authorization != f"Bearer {GOOD_TOKEN}":
            return 401, {"X-Error-Message": "Invalid credentials in Authorization header"}
        if self.gate == "fine_grained":
            return 403, {
                "X-Error-Message": "Please enable access to public gated repositories in your fine-grained token "
                "settings to view this repository."
            }
        if self.gate in _REFUSALS:
            return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": _REFUSALS[self.gate].format(id=self.repo_id)}
        return None

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def info(self) -> dict[str, object]:
        siblings = [{"rfilename": self.name_of(path)} for path in self.files()]
        return {"id": self.repo_id, "sha": SHA, "private": False, "gated": "manual", "siblings": siblings}

    def tree(self) -> list[dict[str, object]]:
        return [
            {"type": "file", "path": self.name_of(path), "size": self.size(path), "oid": etag(path)}
            for path in self.files()
        ]

    def size(self, path: Path) -> int:
        return self.claimed_sizes.get(self.name_of(path), path.stat().st_size)

    def name_of(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def fake_hub(folder: Path, gate: Gate = "accepted", *, repo_id: str = REPO_ID) -> Iterator[FakeHub]:
    """Serve `folder` as `repo_id` on loopback until the block ends."""
    hub = FakeHub(folder, gate, repo_id=repo_id)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = hub
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    hub: FakeHub


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    hub: FakeHub
    """Of the repository that was asked for."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def beside(self, path: str) -> FakeHub | None:
        """The public repository that a path belongs to, as a hub of its own."""
        for repo_id, folder in self.server.hub.public.items():
            if path.startswith((f"/api/models/{repo_id}/", f"/{repo_id}/resolve/")):
                return FakeHub(folder, "open", repo_id=repo_id, downloads=self.server.hub.downloads)
        return None

    def do_HEAD(self) -> None:
        self.answer(unquote(urlsplit(self.path).path))

    def do_GET(self) -> None:
        self.answer(unquote(urlsplit(self.path).path))

    def answer(self, path: str) -> None:
        self.server.hub.requests.append(path)
        self.hub = self.beside(path) or self.server.hub
        repo_id = self.hub.repo_id
        api, files = f"/api/models/{repo_id}/", f"/{repo_id}/resolve/{SHA}/"
        if path in (f"{api}revision/main", f"{api}revision/{SHA}"):
            self.send_json(self.hub.info())
        elif path == f"{api}tree/{SHA}":
            self.send_json(self.hub.tree())
        elif path.startswith(files):
            self.send_file_behind_gate(path.removeprefix(files))
        elif path.startswith(f"{api}revision/"):
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})

    def send_file_behind_gate(self, name: str) -> None:
        path = self.hub.folder / name
        refusal = self.hub.refusal(self.headers.get("authorization"))
        if refusal is not None:
            self.send(refusal[0], b"", refusal[1])
        elif not path.is_file():
            self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        else:
            if self.command == "GET":
                self.hub.downloads.append(name)
            headers = {
                "ETag": f'"{etag(path)}"',
                "X-Repo-Commit": SHA,
                "X-Linked-Size": str(self.hub.size(path)),
            }
            self.send(200, path.read_bytes(), headers)

    def send_json(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if self.hub.breaks_off and "/resolve/" in self.path else body)
