"""A small Hub: the part of the Hugging Face Hub's HTTP API that `huggingface_hub` calls to push and to load a model.

Written from the client's requests (huggingface_hub 2.4), so that our push is tested through the real client: create,
validate-yaml, preupload, LFS batch, PUT, verify, commit; then revision info, tree, and HEAD/GET of files. Everything
lives in memory; `requests` records each call for tests to assert on.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".npy")


@dataclass
class StoredFile:
    """One file of a repository."""

    content: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        """The git blob id, as the Hub reports it."""
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        """The LFS object id."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class HubState:
    """What the server stores, and what it was asked."""

    token: str
    repos: dict[str, dict[str, StoredFile]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)

    def commit_of(self, repo: str) -> str:
        """Return a commit id that changes with the repository's content."""
        listing = sorted((path, file.sha256) for path, file in self.repos[repo].items())
        return hashlib.sha1(json.dumps(listing).encode()).hexdigest()


class HubHandler(BaseHTTPRequestHandler):
    """Answers one request; `state` and `endpoint` are set on a subclass per server."""

    protocol_version = "HTTP/1.1"
    state: HubState

    ROUTES = [
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)", "info"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/[^/]+", "info"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/[^/]+(?P<folder>/.*)?", "tree"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/[^/]+", "preupload"),
        ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
        ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/verify", "lfs_verify"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/[^/]+", "commit"),
        ("HEAD", r"/(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<path>.+)", "resolve"),
        ("GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<path>.+)", "resolve"),
    ]

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_PUT = do_GET

    def _route(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.state.requests.append(f"{self.command} {path}")
        self.body = self._read_body()
        for method, pattern, name in self.ROUTES:
            match = re.fullmatch(pattern, path)
            if match and method == self.command:
                return self._dispatch(name, match.groupdict())
        return self._fail(404, "EntryNotFound", f"no route for {self.command} {path}")

    def _dispatch(self, name: str, parts: dict[str, str | None]) -> None:
        authorized = self.headers.get("authorization") == f"Bearer {self.state.token}"
        repo = parts.get("repo")
        needs_token = not name.startswith("lfs_put") and (self.command == "POST" or self.state.private.get(repo or ""))
        if needs_token and not authorized and name != "validate_yaml":
            return self._fail(401, "RepoNotFound", "Invalid username or password.")
        if repo is not None and repo not in self.state.repos:
            return self._fail(404, "RepoNotFound", "Repository not found")
        return getattr(self, name)(**parts)

    def _read_body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode())

    def _fail(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {"X-Error-Code": code, "X-Error-Message": message})

    def _url(self, path: str) -> str:
        host, port = self.server.server_address[:2]
        return f"http://{host}:{port}{path}"

    def create(self) -> None:
        """POST /api/repos/create."""
        asked = json.loads(self.body)
        repo = f"{asked['organization']}/{asked['name']}"
        if repo in self.state.repos:
            return self._fail(409, "", "You already created this model repo")
        self.state.repos[repo] = {}
        self.state.private[repo] = asked.get("visibility") == "private"
        return self._json({"url": self._url(f"/{repo}"), "name": repo})

    def validate_yaml(self) -> None:
        """POST /api/validate-yaml: the model card's front matter must be YAML with the fields the Hub insists on."""
        content = json.loads(self.body)["content"]
        match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        metadata = yaml.safe_load(match[1]) if match else {}
        errors = [] if isinstance(metadata, dict) else [{"message": "metadata must be a mapping"}]
        for entry in metadata.get("model-index", []):
            for result in entry["results"]:
                if not {"task", "dataset", "metrics"} <= set(result):
                    errors.append({"message": f"incomplete result in model-index: {sorted(result)}"})
        self._json({"errors": errors, "warnings": []})

    def info(self, repo: str) -> None:
        """GET /api/models/{repo}[/revision/{revision}]."""
        commit = self.state.commit_of(repo)
        siblings = [{"rfilename": path} for path in sorted(self.state.repos[repo])]
        self._json(
            {
                "_id": repo,
                "id": repo,
                "modelId": repo,
                "sha": commit,
                "private": False,
                "tags": [],
                "siblings": siblings,
            }
        )

    def tree(self, repo: str, folder: str | None) -> None:
        """GET /api/models/{repo}/tree/{revision}."""
        if folder:
            return self._fail(404, "EntryNotFound", "no such folder")
        return self._json([self._tree_entry(path, file) for path, file in sorted(self.state.repos[repo].items())])

    @staticmethod
    def _tree_entry(path: str, file: StoredFile) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "oid": file.oid, "size": len(file.content), "path": path}
        if file.is_lfs:
            entry["lfs"] = {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}
        return entry

    def preupload(self, repo: str) -> None:
        """POST /api/models/{repo}/preupload/{revision}: large and binary files must come as LFS."""
        answers = []
        for file in json.loads(self.body)["files"]:
            base64.b64decode(file["sample"], validate=True)
            mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
            stored = self.state.repos[repo].get(file["path"])
            answer = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            answers.append(answer | ({"oid": stored.sha256 if stored.is_lfs else stored.oid} if stored else {}))
        self._json({"files": answers})

    def lfs_batch(self, repo: str) -> None:
        """POST /{repo}.git/info/lfs/objects/batch."""
        asked = json.loads(self.body)
        assert (asked["operation"], asked["hash_algo"]) == ("upload", "sha256")
        objects = []
        for wanted in asked["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.state.objects:
                upload, verify = self._url(f"/lfs/{wanted['oid']}"), self._url(f"/lfs/{wanted['oid']}/verify")
                answer["actions"] = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        """PUT of one LFS object."""
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._fail(400, "", "the content does not match its object id")
        self.state.objects[oid] = self.body
        return self._send(200, b"")

    def lfs_verify(self, oid: str) -> None:
        """POST verify of one LFS object."""
        asked = json.loads(self.body)
        if asked["oid"] != oid or len(self.state.objects.get(oid, b"")) != asked["size"]:
            return self._fail(400, "", "the object is not stored as announced")
        self.state.verified.add(oid)
        return self._json({})

    def commit(self, repo: str) -> None:
        """POST /api/models/{repo}/commit/{revision}: newline-delimited JSON, a header and then operations."""
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        assert header["key"] == "header"
        assert header["value"]["summary"]
        files = self.state.repos[repo]
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = StoredFile(base64.b64decode(value["content"]), is_lfs=False)
            elif operation["key"] == "lfsFile" and value["oid"] in self.state.verified:
                files[value["path"]] = StoredFile(self.state.objects[value["oid"]], is_lfs=True)
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
            else:
                return self._fail(400, "", f"cannot commit {operation['key']} of {value}")
        commit = self.state.commit_of(repo)
        return self._json({"success": True, "commitOid": commit, "commitUrl": self._url(f"/{repo}/commit/{commit}")})

    def resolve(self, repo: str, path: str) -> None:
        """HEAD or GET of a file."""
        file = self.state.repos[repo].get(path)
        commit = {"X-Repo-Commit": self.state.commit_of(repo)}
        if file is None:
            body = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found", **commit}
            return self._send(404, b"", body)
        etag = file.sha256 if file.is_lfs else file.oid
        linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(file.content))} if file.is_lfs else {}
        headers = {"ETag": f'"{etag}"', "Content-Type": "application/octet-stream", **commit, **linked}
        return self._send(200, file.content, headers)


@contextmanager
def hub_server(token: str) -> Iterator[tuple[str, HubState]]:
    """Serve an empty Hub on a free local port; gives its endpoint and its state."""
    state = HubState(token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"state": state}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
