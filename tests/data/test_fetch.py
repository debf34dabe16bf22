"""`data fetch` against a server on this machine, and `data verify` of what lies there (D14 to D16, D19)."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mixcli.cli import main
from mixcli.corruptions import published
from mixcli.data import downloads, fetch, sources, verify
from mixcli.data.downloads import Download, Published
from mixcli.errors import UserError
from tests.image_folders import food_101, numbered_folders

CONTENT = np.random.default_rng(0).integers(0, 256, 1_000_000, dtype=np.uint8).tobytes()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """This machine alone may be connected to, in place of nothing at all."""
    connect = socket.socket.connect

    def loopback_alone(self, address):
        if self.family != socket.AF_UNIX and address[0] != "127.0.0.1":
            raise AssertionError(f"a test opened a connection to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", loopback_alone)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Server:
    """Files by path; `breaks` are the bytes after which answers end, one for each; `ranges` what was asked for.

    Between two parts of an answer, and before the answers after the first `ready` ones, it sleeps for `pause` seconds.
    """

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.breaks: list[int] = []
        self.ranges: list[str | None] = []
        self.knows_ranges, self.tells_length, self.pause, self.ready = True, True, 0.0, 10**6
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                with suppress(OSError):  # the client may leave
                    outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, handler):
        content, asked = self.files.get(handler.path), handler.headers.get("Range")
        self.ranges.append(asked)
        if len(self.ranges) > self.ready:
            time.sleep(self.pause)
        if content is None:
            return handler.send_error(404)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.knows_ranges else 0
        if start and start >= len(content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.tells_length:
            handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        rest = content[start:]
        rest = rest[: self.breaks.pop(0)] if self.breaks else rest
        for at in range(0, len(rest), 100_000):
            handler.wfile.write(rest[at : at + 100_000])
            time.sleep(self.pause)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


class Heard:
    """A listener that remembers."""

    def __init__(self):
        self.notes, self.moves = [], []

    def note(self, line):
        self.notes.append(line)

    def transfer(self, name, done, total):
        self.moves.append((name, done, total))


def one(server, content=CONTENT, **changes):
    server.files.setdefault("/set.bin", content)
    given = {"file": "set.bin", "md5": hashlib.md5(content).hexdigest(), "urls": (f"{server.address}/set.bin",)}
    return Download(**{**given, **changes})


def failed(download, data, mirrors=()):
    heard = Heard()
    with pytest.raises(UserError) as error:
        fetch.fetch(download, data, mirrors, heard)
    assert "\n" not in str(error.value)
    return error.value, heard


# Transfers


def test_a_file_is_fetched_whole_and_once(server, tmp_path):
    heard = Heard()
    assert fetch.fetch(one(server), tmp_path / "data", (), heard) == "fetched"
    assert (tmp_path / "data" / "set.bin").read_bytes() == CONTENT and os.listdir(tmp_path / "data") == ["set.bin"]
    assert heard.moves[-1] == ("set.bin", len(CONTENT), len(CONTENT)) and len(heard.moves) > 2
    assert (tmp_path / "data" / "set.bin").stat().st_mode & 0o777 == 0o666 & ~fetch.UMASK
    assert fetch.fetch(one(server), tmp_path / "data", (), Heard()) == "already there" and len(server.ranges) == 1


def test_an_answer_that_breaks_off_is_gone_on_with_at_its_byte(server, tmp_path):
    server.breaks = [300_000, 200_000]
    heard = Heard()
    fetch.fetch(one(server), tmp_path, (), heard)
    assert server.ranges == [None, "bytes=300000-", "bytes=500000-"]
    assert (tmp_path / "set.bin").read_bytes() == CONTENT
    assert "set.bin.part: goes on at byte 300000" in heard.notes


def test_d19_killed_half_way_and_typed_again_goes_on_at_its_byte(server, tmp_path):
    """By SIGKILL, in a process of its own."""
    server.pause = 0.05
    known = one(server)
    code = "import sys; from mixcli.data import fetch, downloads; from tests.data.test_fetch import Heard, Path\n"
    code += "fetch.fetch(downloads.Download('set.bin', sys.argv[1], (sys.argv[2],)), Path(sys.argv[3]), (), Heard())"
    words = [sys.executable, "-c", code, known.md5, known.urls[0], str(tmp_path)]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[2])
    part = tmp_path / "set.bin.part"
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size > 100_000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    assert 0 < kept < len(CONTENT) and not (tmp_path / "set.bin").exists()
    server.pause = 0.0
    fetch.fetch(known, tmp_path, (), Heard())
    assert server.ranges[-1] == f"bytes={kept}-" and (tmp_path / "set.bin").read_bytes() == CONTENT
    assert not part.exists()


def test_a_file_that_was_whole_but_not_yet_named_is_not_fetched_again(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT)
    heard = Heard()
    fetch.fetch(one(server), tmp_path, (), heard)
    assert not heard.moves and (tmp_path / "set.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("kept", [CONTENT[:1000], CONTENT + b"more"])
def test_a_server_without_ranges_or_with_another_length_starts_again(server, tmp_path, kept):
    server.knows_ranges = len(kept) > len(CONTENT)
    (tmp_path / "set.bin.part").write_bytes(kept)
    fetch.fetch(one(server), tmp_path, (), Heard())
    assert (tmp_path / "set.bin").read_bytes() == CONTENT


def test_a_page_in_place_of_the_file_does_not_cost_what_is_there(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(CONTENT[:5000])
    server.knows_ranges, server.files["/set.bin"] = False, b"<html>please log in</html>"
    error, _ = failed(one(server), tmp_path)
    assert error.exit_code == 1 and "answered 200 with 26 bytes, and 5000 are there" in str(error)
    assert (tmp_path / "set.bin.part").read_bytes() == CONTENT[:5000]


def test_an_answer_without_a_length_is_taken_to_its_end_and_checked(server, tmp_path):
    server.tells_length = False
    assert fetch.fetch(one(server), tmp_path, (), Heard()) == "fetched"
    server.breaks, server.files["/set.bin"] = [1000], CONTENT
    error, _ = failed(one(server, file="other/set.bin"), tmp_path)
    assert error.exit_code == 3 and "md5 differs, file removed" in str(error)


def test_mirrors_are_asked_in_order_and_the_next_goes_on_where_one_broke_off(server, tmp_path):
    known = one(server, urls=(f"{server.address}/gone.bin", f"{server.address}/set.bin"))
    server.files["/mirror/set.bin"] = CONTENT[:400_000]
    heard = Heard()
    server.tells_length = False  # so that a short file looks like a whole one
    fetch.fetch(known, tmp_path, (), heard)
    assert (tmp_path / "set.bin").read_bytes() == CONTENT and "gone.bin: 404 Not Found" in heard.notes[0]

    server.tells_length, server.ranges = True, []
    server.files["/cut/set.bin"] = CONTENT
    server.breaks = [400_000, 0]
    known = one(server, file="b/set.bin")
    fetch.fetch(known, tmp_path, [f"{server.address}/cut/"], heard)
    assert server.ranges == [None, "bytes=400000-", "bytes=400000-"]
    assert (tmp_path / "b" / "set.bin").read_bytes() == CONTENT


def test_d19_no_mirror_answers(server, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/set.bin"
    known = one(server, urls=(dead, f"{server.address}/a", f"{server.address}/b"))
    error, heard = failed(known, tmp_path)
    assert error.exit_code == 1 and "set.bin: 0 of 3 mirrors answered (404 Not Found)" in str(error)
    assert f"{dead}: no answer (Connection refused)" in heard.notes and not list(tmp_path.iterdir())
    server.breaks = [5000, 0]
    error, _ = failed(one(server), tmp_path)
    told = "0 of 1 mirror gave all of it (broke off at byte 5000). 5000 bytes are kept; type it again to go on"
    assert error.exit_code == 1 and told in str(error)
    fetch.fetch(one(server), tmp_path, (), Heard())
    assert server.ranges[-1] == "bytes=5000-"


def test_a_server_that_falls_silent_is_asked_again_until_it_gives_nothing_more(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "TIMEOUT", 0.3)
    server.pause, server.ready = 1.0, 2
    error, _ = failed(one(server), tmp_path)
    assert error.exit_code == 1 and "no answer (timed out)). 200000 bytes are kept" in str(error)
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert (tmp_path / "set.bin.part").read_bytes() == CONTENT[:200_000]


def test_d19_another_sum_removes_the_file(server, tmp_path):
    server.files["/set.bin"] = CONTENT[:-1] + b"?"
    error, heard = failed(one(server), tmp_path)
    assert error.exit_code == 3 and "set.bin: md5 differs, file removed; got" in str(error)
    assert hashlib.md5(CONTENT).hexdigest() in str(error) and os.listdir(tmp_path) == []
    server.files["/right.bin"] = CONTENT
    known = one(server, urls=(f"{server.address}/set.bin", f"{server.address}/right.bin"))
    assert fetch.fetch(known, tmp_path, (), heard) == "fetched"


def test_a_file_of_that_name_with_another_sum_is_told_and_stays(server, tmp_path):
    (tmp_path / "set.bin").write_bytes(b"mine")
    error, _ = failed(one(server), tmp_path)
    assert error.exit_code == 3 and "md5 differs from the published one" in str(error) and not server.ranges
    assert (tmp_path / "set.bin").read_bytes() == b"mine"


def test_more_bytes_than_announced_or_than_a_set_can_have_are_not_kept(server, tmp_path):
    error, _ = failed(one(server, gib=0), tmp_path)
    assert error.exit_code == 1 and "more bytes than the file has" in str(error)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_and_what_is_there_is_kept(server, tmp_path, monkeypatch):
    class Full(fetch.FileIO):
        def write(self, chunk):
            if self.tell() >= 500_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(chunk[:300_000])

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "FileIO", Full)
        error, _ = failed(one(server), tmp_path)
    assert error.kind == "disk_full" and error.exit_code == 1 and "no space left" in str(error)
    kept = (tmp_path / "set.bin.part").stat().st_size
    assert kept >= 500_000
    fetch.fetch(one(server), tmp_path, (), Heard())
    assert server.ranges[-1] == f"bytes={kept}-" and (tmp_path / "set.bin").read_bytes() == CONTENT


def test_a_disk_too_small_for_the_rest_is_told_before_a_byte_is_written(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    error, heard = failed(one(server), tmp_path)
    assert error.kind == "disk_full" and "no space left: 0.00 GB to come, 0.00 GB free" in str(error)
    assert not heard.moves


def test_two_fetches_of_one_file_do_not_write_into_each_other(server, tmp_path):
    with fetch._held(tmp_path / "set.bin.part"):
        error, _ = failed(one(server), tmp_path)
    assert error.exit_code == 2 and "another process is fetching it" in str(error)


def test_x14_a_link_at_the_growing_files_name_is_not_followed(server, tmp_path):
    (tmp_path / "victim").write_bytes(b"")
    (tmp_path / "set.bin.part").symlink_to(tmp_path / "victim")
    error, _ = failed(one(server), tmp_path)
    assert error.exit_code == 1 and (tmp_path / "victim").read_bytes() == b""


# Archives


def packed(kind, members):
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz" if kind == "tar.gz" else "w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_archive_is_unpacked_beside_itself(server, tmp_path, kind):
    content = packed(kind, {"inner/a/1.txt": b"one", "inner/2.txt": b"two"})
    server.files[f"/x.{kind}"] = content
    known = one(server, content, file=f"place/x.{kind}", urls=(f"{server.address}/x.{kind}",), folder="inner")
    assert fetch.fetch(known, tmp_path, (), Heard()) == "fetched and unpacked"
    assert (tmp_path / "place" / "inner" / "a" / "1.txt").read_bytes() == b"one"
    assert fetch.fetch(known, tmp_path, (), Heard()) == "already unpacked" and len(server.ranges) == 1
    (tmp_path / "place" / "inner").rename(tmp_path / "elsewhere")
    assert fetch.fetch(known, tmp_path, (), Heard()) == "unpacked" and len(server.ranges) == 1


def linked_zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("inner/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return stream.getvalue()


HOSTILE = {
    "member '../x' leaves the folder": {kind: packed(kind, {"../x": b"x"}) for kind in ("tar.gz", "zip")},
    "member '/tmp/x' leaves the folder": {kind: packed(kind, {"/tmp/x": b"x"}) for kind in ("tar.gz", "zip")},
    "member 'inner/link' is a link or a device": {"zip": linked_zip()},
    "more than 3 members": {kind: packed(kind, {f"inner/{k}": b"" for k in range(4)}) for kind in ("tar.gz", "zip")},
    "unpacked size over 1 GiB": {"zip": packed("zip", {"inner/0": b"x"}).replace(
        (1).to_bytes(4, "little") + (1).to_bytes(4, "little"), (1).to_bytes(4, "little") + b"\xff\xff\xff\x7f")},
    "not a readable": {"tar.gz": b"no archive", "zip": b"no archive"},
    "holds no folder inner": {kind: packed(kind, {"outer/0": b""}) for kind in ("tar.gz", "zip")},
}  # fmt: skip


@pytest.mark.parametrize(("told", "kind"), [(told, kind) for told, kinds in HOSTILE.items() for kind in kinds])
def test_d15_d16_an_archive_that_does_what_it_must_not_leaves_nothing(server, tmp_path, told, kind):
    content = HOSTILE[told][kind]
    server.files[f"/x.{kind}"] = content
    known = one(server, content, file=f"place/x.{kind}", urls=(f"{server.address}/x.{kind}",), folder="inner",
                members=3, gib=1)  # fmt: skip
    error, _ = failed(known, tmp_path)
    assert error.exit_code == 3 and told in str(error)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["place", f"x.{kind}"]


# The command


@pytest.fixture
def known(server, monkeypatch):
    """One known set, on the server."""
    content = packed("tar.gz", {"food-101/meta/train.txt": b"a/1"})
    server.files["/m/food-101.tar.gz"] = content
    real = downloads.PUBLISHED["food-101"].downloads[0]
    made = Download(real.file, hashlib.md5(content).hexdigest(), ("http://127.0.0.1:1/x",), real.folder)
    monkeypatch.setitem(downloads.PUBLISHED, "food-101", Published((made,)))
    return f"{server.address}/m"


def test_the_command_fetches_from_a_mirror_and_tells_how_it_goes(known, tmp_path, capsys):
    words = ["data", "fetch", "food-101", "--data-dir", str(tmp_path)]
    assert main([*words, "--mirror", known]) == 0
    out, err = capsys.readouterr()
    assert "food-101.tar.gz" in out and "fetched and unpacked" in out
    assert "100 %" in err and "unpacking" in err and (tmp_path / "food-101" / "meta").is_dir()
    assert main([*words, "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["result"]["rows"][0]["state"] == "already unpacked" and err == ""


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["fetch", "cifr10"], 2, "no such data set; got cifr10. Did you mean cifar10?"),
        (["verify", "cifar100c"], 2, "Did you mean cifar100-c?"),
        (["get", "cifar10"], 2, "unknown; got get"),
        (["fetch", "cifar10", "--mirror", "file:///etc"], 2, "--mirror: not an address"),
        (["verify", "cifar10", "--mirror", "http://x"], 2, "data verify has no such option"),
        (["fetch", "mini-imagenet"], 3, "each of the 100 classes in mini-imagenet/CLASS/"),
        (["fetch", "tiny-imagenet"], 3, "http://cs231n.stanford.edu/tiny-imagenet-200.zip, unpacked as"),
        (["fetch", "tiny-imagenet-c"], 3, "Zenodo 2536630"),
        (["verify", "cifar10"], 3, "mixcli data fetch cifar10"),
        (["verify", "cifar10-c"], 3, "cifar10-c: not found under data. mixcli data fetch cifar10-c"),
        (["fetch", "digits"], 0, ""),
    ],
)
def test_what_cannot_be_done_is_one_line(words, code, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["data", *words]) == code
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == (code > 0)


def test_every_address_stands_beside_a_sum_and_every_known_set_has_an_entry():
    assert set(downloads.PUBLISHED) == set(sources.KNOWN)
    for name, found in downloads.PUBLISHED.items():
        assert bool(found.downloads) != bool(found.where), name
        for download in found.downloads:
            assert len(bytes.fromhex(download.md5)) == 16 and download.urls
            assert all(url.startswith(("http://", "https://")) for url in download.urls)
            assert not Path(download.file).is_absolute()


# Verify


def test_a_folder_is_verified_file_by_file(tmp_path, monkeypatch, capsys):
    files = {"fog.npy": b"fog", "labels.npy": b"labels"}
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    made = published.PUBLISHED["cifar10"]
    monkeypatch.setitem(published.PUBLISHED, "cifar10", replace(made, sums=sums))
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    words = ["data", "verify", "cifar10-c", "--data-dir", str(tmp_path)]
    assert main(words) == 0 and capsys.readouterr().out.count("md5 ok") == 2
    (folder / "fog.npy").write_bytes(b"frog")
    (tmp_path / "CIFAR-10-C.tar").write_bytes(b"not it")
    assert main([*words, "--json"]) == 3
    out, err = capsys.readouterr()
    states = {row["file"]: row["state"] for row in json.loads(out)["result"]["rows"]}
    assert states == {"CIFAR-10-C.tar": "md5 differs", "CIFAR-10-C/fog.npy": "md5 differs",
                      "CIFAR-10-C/labels.npy": "md5 ok"}  # fmt: skip
    assert "CIFAR-10-C.tar: md5 differs, and 1 more. Remove it, and then: mixcli data fetch cifar10-c" in err
    (tmp_path / "CIFAR-10-C.tar").unlink()
    (folder / "fog.npy").unlink()
    assert main(words) == 3 and "CIFAR-10-C/fog.npy: missing" in capsys.readouterr().err


def test_a_set_without_sums_is_verified_by_its_images(tmp_path, monkeypatch):
    food_101(tmp_path)
    [check] = verify.verify("food-101", downloads.PUBLISHED["food-101"], tmp_path)
    assert check.failed and "202 training and 101 test images, published 75750 and 25250" in check.told
    numbered_folders(tmp_path / "256_ObjectCategories", [f"{k:03}.thing" for k in range(1, 258)], 80)
    [check] = verify.verify("caltech-256", downloads.PUBLISHED["caltech-256"], tmp_path)
    assert not check.failed and check.file == "256_ObjectCategories" and "complete" in check.state
    (tmp_path / "256_ObjectCategories.tar").write_bytes(b"not it")
    assert verify.verify("caltech-256", downloads.PUBLISHED["caltech-256"], tmp_path)[0].state == "md5 differs"


def test_cifar_is_verified_by_the_sums_that_its_reader_asks_for(tmp_path):
    known = downloads.PUBLISHED["cifar100"]
    assert set(known.sums) == {f"cifar-100-python/{name}" for name in ("train", "test", "meta")}
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "train").write_bytes(b"forged")
    states = {check.file.rpartition("/")[2]: check.state for check in verify.verify("cifar100", known, tmp_path)}
    assert states == {"train": "md5 differs", "test": "missing", "meta": "missing"}
