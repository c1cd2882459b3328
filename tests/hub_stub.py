"""A hub on loopback: the endpoints through which huggingface_hub makes, fills, lists and reads repositories.

Repositories hold commits, and commits all their files. Large files (*.safetensors) go through LFS, as on the
real one: stored by their hash first, named in the commit afterwards, and read elsewhere through a redirect.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

WRITER, READER = "hf_writer", "hf_reader"
FRONT = re.compile(r"---\n(.*?)\n---\n", re.S)


def is_large(path: str) -> bool:
    return path.endswith(".safetensors")


@dataclass
class Repo:
    """A repository: its commits in order, each with all files."""

    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)

    def commit(self, files: dict[str, bytes]) -> str:
        said = [len(self.commits), *((name, hashlib.sha1(data).hexdigest()) for name, data in files.items())]
        sha = hashlib.sha1(json.dumps(said).encode()).hexdigest()
        self.commits.append((sha, dict(files)))
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((one for one in self.commits if one[0] == revision), None)


@dataclass
class Hub:
    """What the stub holds and does.

    Attributes:
        repos: by name.
        stored: bytes of large files by their SHA-256, and of every other that was committed.
        serve: changes the bytes that are served of a path; a test tears files with it.
        asked: method and path of every request.
        before_commit: called before a commit is looked at.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    serve: Callable[[str, bytes], bytes] = lambda path, data: data
    asked: list[str] = field(default_factory=list)
    before_commit: Callable[[], None] = lambda: None
    endpoint: str = ""

    def add(self, name: str, files: dict[str, bytes], **said: bool) -> str:
        """A repository with one commit."""
        self.repos[name] = Repo(**said)
        return self.repos[name].commit(files)

    @property
    def elsewhere(self) -> str:
        """The same server by another name: large files lie on another host than the hub."""
        return self.endpoint.replace("127.0.0.1", "localhost")

    def files(self, name: str) -> dict[str, bytes]:
        """The newest files of a repository."""
        return self.repos[name].commits[-1][1]


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    """The hub, listening."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


class Refused(Exception):
    """An answer that is an error, as the hub gives it."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(((r"/api/models/(.+)/tree/([^/]+)", self._tree), (r"/cdn/(\w+)/(.+)", self._cdn),
                      (r"/api/models/(.+?/.+?)(?:/revision/([^/]+))?", self._info),
                      (r"/(.+?/.+?)/resolve/([^/]+)/(.+)", self._resolve)))  # fmt: skip

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        self._answer((("/api/repos/create", self._create),
                      ("/api/validate-yaml", self._validate),
                      (r"/api/models/(.+)/preupload/main", self._preupload),
                      (r"/api/models/(.+)/commit/main", self._commit),
                      (r"/(.+)\.git/info/lfs/objects/batch", self._batch),
                      (r"/verify", self._verify)))  # fmt: skip

    def do_PUT(self) -> None:
        self._answer(((r"/lfs/(\w+)", self._store),))

    def _answer(self, routes: tuple[tuple[str, Callable[..., None]], ...]) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            for pattern, act in routes:
                if found := re.fullmatch(pattern, path):
                    return act(*found.groups())
            raise Refused(404)
        except Refused as no:
            said = {"X-Error-Code": no.code, "X-Error-Message": no.message}
            self._send({"error": no.message}, no.status, {name: text for name, text in said.items() if text})

    def _send(
        self, value: Any, status: int = 200, headers: dict[str, str] | None = None, size: int | None = None
    ) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(data) if size is None else size))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _may_write(self) -> None:
        if self._token != WRITER:
            raise Refused(403 if self._token == READER else 401, "", "not with this token")

    def _repo(self, name: str) -> Repo:
        found = self.hub.repos.get(name)
        if found is None or (found.private and self._token not in (WRITER, READER)):
            raise Refused(404 if self._token else 401, "RepoNotFound", "Repository not found")
        return found

    def _at(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        found = self._repo(name).at(revision)
        if found is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def _create(self) -> None:
        self._may_write()
        said = json.loads(self.body)
        name = f"{said['organization']}/{said['name']}"
        there = name in self.hub.repos
        if not there:
            self.hub.add(name, {".gitattributes": b""}, private=said.get("visibility") == "private")
        self._send({"url": f"{self.hub.endpoint}/{name}", "name": name}, 409 if there else 200)

    def _validate(self) -> None:
        """Refuse a card whose front matter lacks what the hub asks of it."""
        found = FRONT.match(json.loads(self.body)["content"])
        said = yaml.safe_load(found[1]) if found else None
        faults = [] if isinstance(said, dict) else ["no front matter"]
        for model in said.get("model-index", []) if isinstance(said, dict) else []:
            for one in model["results"]:
                whole = one["task"]["type"] and one["dataset"]["type"] and one["dataset"]["name"]
                if not whole or not all(isinstance(m["value"], float) and m["type"] for m in one["metrics"]):
                    faults.append(f"model-index: {one}")
        self._send({"errors": [{"message": text} for text in faults], "warnings": []}, 400 if faults else 200)

    def _preupload(self, name: str) -> None:
        self._may_write()
        self._repo(name)
        asked = [one["path"] for one in json.loads(self.body)["files"]]
        said = {path: "lfs" if is_large(path) else "regular" for path in asked}
        rest = {"shouldIgnore": False, "oid": None}
        self._send({"files": [{"path": path, "uploadMode": kind, **rest} for path, kind in said.items()]})

    def _batch(self, name: str) -> None:
        self._may_write()
        put = [{**one, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}"},
                                   "verify": {"href": f"{self.hub.endpoint}/verify"}}}
               for one in json.loads(self.body)["objects"]]  # fmt: skip
        self._send({"transfer": "basic", "objects": put})

    def _store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "", "these bytes have another hash")
        self.hub.stored[oid] = self.body
        self._send({})

    def _verify(self) -> None:
        said = json.loads(self.body)
        if len(self.hub.stored.get(said["oid"], b"")) != said["size"]:
            raise Refused(404, "", "no such object")
        self._send({})

    def _commit(self, name: str) -> None:
        self._may_write()
        self.hub.before_commit()
        repo, lines = self._repo(name), [json.loads(line) for line in self.body.splitlines()]
        sha, files = repo.commits[-1][0], dict(repo.commits[-1][1])
        for line in lines:
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit", sha) != sha:
                raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
                self.hub.stored[hashlib.sha256(files[value["path"]]).hexdigest()] = files[value["path"]]
            if line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            if line["key"] == "deletedFile":
                del files[value["path"]]
        oid = repo.commit(files)
        self._send(
            {
                "commitUrl": f"{self.hub.endpoint}/{name}/commit/{oid}",
                "commitOid": oid,
                "pullRequestUrl": None,
            }
        )

    def _info(self, name: str, revision: str | None) -> None:
        sha, files = self._at(name, revision or "main")
        repo = self.hub.repos[name]
        siblings = [{"rfilename": path} for path in files]
        self._send(
            {
                "id": name,
                "modelId": name,
                "sha": sha,
                "private": repo.private,
                "siblings": siblings,
                "tags": [],
            }
        )

    def _tree(self, name: str, revision: str) -> None:
        _, files = self._at(name, revision)
        self._send([self._entry(path, data) for path, data in files.items()])

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        own = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if is_large(path):
            own["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return own

    def _resolve(self, name: str, revision: str, path: str) -> None:
        sha, files = self._at(name, revision)
        if self.hub.repos[name].gated and self._token != WRITER:
            raise Refused(403, "GatedRepo", "Access to this model is restricted")
        if path not in files:
            raise Refused(404, "EntryNotFound", "Entry not found")
        data = files[path]
        if is_large(path):
            oid = hashlib.sha256(data).hexdigest()
            self.hub.stored[oid] = data
            linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(data))}
            where = {"Location": f"{self.hub.elsewhere}/cdn/{oid}/{path}"}
            return self._send(b"", 302, {"X-Repo-Commit": sha, **linked, **where})
        tag = {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        self._part(path, data, tag)
        return None

    def _cdn(self, oid: str, path: str) -> None:
        data = self.hub.stored[oid]
        self._part(path, data, {"ETag": f'"{oid}"'})

    def _part(self, path: str, whole: bytes, headers: dict[str, str]) -> None:
        """What is left of a file that was begun; fewer bytes than are said end the connection."""
        data, size = self.hub.serve(path, whole) if self.command == "GET" else whole, len(whole)
        begun = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(begun[1]) if begun else 0
        if begun:
            headers = {**headers, "Content-Range": f"bytes {start}-{size - 1}/{size}"}
        self.close_connection = len(data) < size
        self._send(data[start:], 206 if begun else 200, headers, size - start)
