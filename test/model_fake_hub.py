"""A hub on this machine: the few answers that the Hugging Face client wants, over real HTTP."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

LARGE = 1000  # bytes from which on the hub keeps a file outside Git, under its checksum


@dataclass
class Repository:
    """Commits of one repository and how it misbehaves."""

    commits: dict[str, dict[str, bytes]]  # commit -> name -> content
    branches: dict[str, str] = field(default_factory=dict)
    refused: tuple[int, str] | None = None  # status, code of the hub's error
    claimed_size: int | None = None  # of large files
    damaged: bool = False  # the content of large files is not what the checksum says
    cut_at: int | None = None  # the first answer with a large file breaks off here


@dataclass
class FakeHub:
    """What is there and what was asked for."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # "GET owner/name/file from BYTE"
    url: str = ""


class _Server(http.server.ThreadingHTTPServer):
    hub: FakeHub


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        owner, name, verb, revision, *path = (*self.path.strip("/").split("/"), "", "", "")
        file = "/".join(path).strip("/")
        repository = self.server.hub.repositories.get(f"{owner}/{name}")
        if verb != "resolve" or repository is None:
            return self._refuse(404, "RepoNotFound")
        if repository.refused is not None:
            return self._refuse(*repository.refused)
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return self._refuse(404, "RevisionNotFound")
        content = repository.commits[commit].get(file)
        if content is None:
            return self._refuse(404, "EntryNotFound", commit)
        begin = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        if body:
            self.server.hub.asked.append(f"{owner}/{name}/{file} from {begin}")
        return self._send(repository, commit, content, begin, body=body)

    def _send(self, repository: Repository, commit: str, content: bytes, begin: int, *, body: bool) -> None:
        large = len(content) >= LARGE
        checksum = hashlib.sha256(content).hexdigest()
        self.send_response(206 if begin else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{checksum if large else checksum[:40]}"')
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        if large and repository.claimed_size is not None:
            self.send_header("X-Linked-Size", str(repository.claimed_size))
        self.end_headers()
        if not body:
            return
        if large and repository.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if large and repository.cut_at is not None:
            self.wfile.write(content[begin : repository.cut_at])
            repository.cut_at = None
            self.close_connection = True
            return
        self.wfile.write(content[begin:])

    def _refuse(self, status: int, code: str, commit: str = "") -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.end_headers()


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = hub
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
