"""Downloads against a server on this machine: resume, checksum, faults."""

import errno
import hashlib
import http.server
import multiprocessing
import re
import threading

import numpy as np
import pytest

from attnnet.data import cifar
from attnnet.data import download as module
from attnnet.data.download import download
from attnnet.errors import DataError

from . import mini
from .mini import MINI10

CONTENT = np.random.default_rng(1).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``; ``faults`` are used up one a request."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.faults, self.requests = files, [], []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        fault = self.server.faults.pop(0) if self.server.faults else ""
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        content = self.server.files.get(self.path.lstrip("/"))
        if fault.isdigit() or content is None:
            self.send_error(int(fault or 404))
            return
        start = 0
        if asked and fault != "no range":
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(content):
                self.send_error(416)
                return
        shown = start + 7 if fault == "wrong range" else start
        self.send_response(206 if asked and fault != "no range" else 200)
        if asked and fault != "no range":
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        if fault != "no length":
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + 100_000 if fault == "drop" else len(content)
        self.wfile.write(content[start:end])


@pytest.fixture
def server():
    with Server({"file": CONTENT}) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server, target, md5=MD5, max_size=1 << 20, name="file"):
    return download(f"{server.url}/{name}", target, md5, max_size, progress=False, wait=0.0)


def left_in(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_downloads_whole(server, tmp_path):
    target = tmp_path / "new" / "folder" / "file"
    assert fetch(server, target) == target
    assert target.read_bytes() == CONTENT
    assert left_in(target.parent) == ["file"]
    fetch(server, target)
    assert len(server.requests) == 1, "what is there is not fetched again"


def test_shows_its_progress(server, tmp_path, capsys):
    download(f"{server.url}/file", tmp_path / "file", MD5, 1 << 20)
    assert "file: 100%" in capsys.readouterr().err


def test_goes_on_after_each_dropped_connection(server, tmp_path):
    server.faults = ["drop", "drop"]
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=200000-"]


def test_goes_on_in_a_later_call(server, tmp_path):
    server.faults = ["drop"] + ["503"] * 3
    with pytest.raises(DataError, match=r"4 attempts.*100,000 bytes are kept .* goes on"):
        fetch(server, tmp_path / "file")
    assert left_in(tmp_path) == ["file.part"]
    fetch(server, tmp_path / "file")
    assert server.requests[-1] == "bytes=100000-"
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert left_in(tmp_path) == ["file"]


@pytest.mark.parametrize("fault", ["no range", "no length", "416"])
def test_other_servers(server, tmp_path, fault):
    (tmp_path / "file.part").write_bytes(CONTENT[:1234])
    server.faults = [fault]
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", bytes(1000), b""])
def test_whatever_was_left_before(server, tmp_path, part):
    (tmp_path / "file.part").write_bytes(part)
    fetch(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_nothing_kept(server, tmp_path):
    with pytest.raises(DataError, match=f"wrong checksum: md5 {MD5}, expected 00"):
        fetch(server, tmp_path / "file", md5="0" * 32)
    assert left_in(tmp_path) == []


def test_a_wrong_answer_to_a_range(server, tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:1234])
    server.faults = ["wrong range"]
    with pytest.raises(DataError, match="asked for bytes from 1,234, got 'bytes 1241-"):
        fetch(server, tmp_path / "file")


@pytest.mark.parametrize("fault", ["", "no length"])
def test_too_large_is_refused(server, tmp_path, fault):
    server.faults = [fault]
    with pytest.raises(DataError, match=r"(300,000 bytes, expected at most|more than) 200,000"):
        fetch(server, tmp_path / "file", max_size=200_000)
    assert not (tmp_path / "file").exists()


def test_errors_of_the_server(server, tmp_path):
    with pytest.raises(DataError, match="answers 404"):
        fetch(server, tmp_path / "file", name="other")
    assert len(server.requests) == 1, "what is not there is not asked for again"
    server.faults = ["503"]
    fetch(server, tmp_path / "file")


def test_no_server_and_no_address(tmp_path):
    with Server({}) as closed:
        url = closed.url
    with pytest.raises(DataError, match=r"cannot download .*refused"):
        download(f"{url}/file", tmp_path / "file", MD5, 10, progress=False, wait=0.0)
    with pytest.raises(DataError, match="not an address"):
        download("file:///etc/passwd", tmp_path / "file", MD5, 10, progress=False)


def test_no_space(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage",
                        lambda p: type("Usage", (), {"free": 1000}))
    with pytest.raises(DataError, match=r"no space in .*300,000 bytes needed, 1,000 free"):
        fetch(server, tmp_path / "file")
    monkeypatch.undo()

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(DataError, match=r"cannot write .*No space left"):
        fetch(server, tmp_path / "file")


def test_a_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with pytest.raises(DataError, match="cannot write"):
        fetch(server, tmp_path / "plain" / "file")


def _fetch_in_process(url, target):
    download(url, target, MD5, 1 << 20, progress=False)


def test_several_processes_fetch_it_once(server, tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_fetch_in_process,
                               args=(f"{server.url}/file", tmp_path / "file")) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(server.requests) == 1
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("by_environment", [False, True])
def test_cifar_comes_through_the_download(server, tmp_path, monkeypatch, by_environment):
    import dataclasses

    monkeypatch.delenv("ATTNNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = mini.pack(MINI10, mini.write(MINI10, tmp_path), tmp_path / "made.tar.gz")
    server.files = {f"sets/{MINI10.archive}": archive.read_bytes()}
    layout = dataclasses.replace(MINI10, md5=hashlib.md5(archive.read_bytes()).hexdigest())
    options = {"url": f"{server.url}/sets"}
    if by_environment:
        monkeypatch.setenv("ATTNNET_DATA_URL", f"{server.url}/sets/")
        options = {}
    for _ in range(2):
        train, test = cifar.load_cifar(layout, progress=False, **options)
        assert (len(train), len(test)) == (100, 20)
    assert len(server.requests) == 1
    assert (tmp_path / "cache" / "attnnet" / MINI10.archive).is_file()


def test_a_failed_download_says_where_it_looked_too(server, tmp_path, monkeypatch):
    monkeypatch.delenv("ATTNNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"Looked for .* The download failed: .*404"):
        cifar.load_cifar(cifar.CIFAR10, url=server.url, progress=False)
