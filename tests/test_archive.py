"""A published tar: unpacked once, all of it or nothing, and never beside its own place (E19, E20; X05, X06)."""

from __future__ import annotations

import io
import multiprocessing
import resource
import tarfile
import time
from dataclasses import replace

import pytest

from mixcli import archive
from mixcli.corruptions.published import PUBLISHED
from mixcli.errors import UserError

KNOWN = PUBLISHED["cifar100"]


def member(name, content=b"x", **changes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, content


def written(path, *members):
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def tar(tmp_path):
    return tmp_path / "data" / "CIFAR-100-C.tar"


@pytest.fixture(autouse=True)
def place(tar):
    tar.parent.mkdir()


def refused(tar, known=KNOWN):
    """The one line; nothing is there beside the tar, nor above it, but what was before."""
    before = sorted(tar.parent.parent.rglob("*"))
    with pytest.raises(UserError) as error:
        archive.unpacked(tar, known)
    assert error.value.exit_code == 3 and "\n" not in str(error.value)
    assert str(error.value).startswith("CIFAR-100-C.tar: ")
    assert sorted(tar.parent.parent.rglob("*")) == before
    return str(error.value)


def test_a_tar_is_unpacked_beside_itself_and_once(tar, monkeypatch):
    written(tar, member("CIFAR-100-C/fog.npy", b"fog"), member("CIFAR-100-C/labels.npy", b"labels", mode=0))
    folder = archive.unpacked(tar, KNOWN)
    assert folder == tar.parent / "CIFAR-100-C"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"fog.npy": b"fog", "labels.npy": b"labels"}
    assert sorted(p.name for p in tar.parent.iterdir()) == ["CIFAR-100-C", "CIFAR-100-C.tar"]
    monkeypatch.setattr(tarfile, "open", None)
    assert archive.unpacked(tar, KNOWN) == folder


HOSTILE = {
    "member '../x' leaves the folder": member("../x"),
    "member 'CIFAR-100-C/../../x' leaves the folder": member("CIFAR-100-C/../../x"),
    "member '/tmp/x' leaves the folder": member("/tmp/x"),
    "member 'CIFAR-100-C/s' is a link or a device": member("CIFAR-100-C/s", b"", type=tarfile.SYMTYPE, linkname="/etc"),
    "member 'CIFAR-100-C/h' is a link or a device": member("CIFAR-100-C/h", b"", type=tarfile.LNKTYPE, linkname="../y"),
    "member 'CIFAR-100-C/d' is a link or a device": member("CIFAR-100-C/d", b"", type=tarfile.CHRTYPE),
    "member 'CIFAR-100-C/p' is a link or a device": member("CIFAR-100-C/p", b"", type=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("told", HOSTILE)
def test_e19_x05_a_member_that_escapes_or_is_no_file_is_refused(tar, told):
    written(tar, member("CIFAR-100-C/fog.npy"), HOSTILE[told])
    assert told in refused(tar)


def bomb(path, claimed):
    """A tar of a kilobyte whose one member claims a length."""
    info = tarfile.TarInfo("CIFAR-100-C/fog.npy")
    info.size = claimed
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2 * tarfile.BLOCKSIZE))


def test_e20_more_than_the_set_can_hold_is_refused(tar):
    bomb(tar, 5 * 2**30)
    assert "unpacked size over 4 GiB" in refused(tar)
    written(tar, *(member(f"CIFAR-100-C/{k}.npy", b"") for k in range(5)))
    assert "more than 4 members" in refused(tar, replace(KNOWN, members=4))
    assert archive.unpacked(tar, replace(KNOWN, members=5)).is_dir()


def _refuse_many(path, told):
    """In a process of its own, so that its peak of memory is its own."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(UserError):
        archive.unpacked(path, KNOWN)
    told.put((time.perf_counter() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def test_x06_a_bomb_of_many_members_is_refused_at_once_and_in_little_memory(tar):
    block = tarfile.TarInfo("CIFAR-100-C/a").tobuf(tarfile.GNU_FORMAT)
    tar.write_bytes(block * 100_000 + bytes(2 * tarfile.BLOCKSIZE))
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=_refuse_many, args=(tar, told))
    process.start()
    seconds, megabytes = told.get(timeout=60)
    process.join()
    assert megabytes < 200 and seconds < 10


@pytest.mark.parametrize("kept", [0, 100, 1024, 1536])
def test_a_cut_or_foreign_file_is_refused(tar, kept):
    written(tar, member("CIFAR-100-C/fog.npy", b"f" * 600), member("CIFAR-100-C/labels.npy"))
    tar.write_bytes(tar.read_bytes()[:kept])
    assert "cut, or not a tar file" in refused(tar)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_file_is_not_the_published_one(tar, mode):
    with tarfile.open(tar, mode) as compressed:
        info, content = member("CIFAR-100-C/fog.npy")
        compressed.addfile(info, io.BytesIO(content))
    refused(tar)
    tar.write_bytes(tar.read_bytes() + bytes(1024))
    assert "not a readable tar file" in refused(tar)


def test_a_tar_of_another_set_is_told_and_leaves_nothing(tar):
    written(tar, member("CIFAR-10-C/fog.npy"))
    assert "holds no folder CIFAR-100-C" in refused(tar)


def test_what_a_kill_has_left_is_cleared_away(tar):
    written(tar, member("CIFAR-100-C/fog.npy", b"fog"))
    (tar.parent / ".CIFAR-100-C.unpacking" / "CIFAR-100-C").mkdir(parents=True)
    (tar.parent / ".CIFAR-100-C.unpacking" / "CIFAR-100-C" / "half.npy").write_bytes(b"half")
    assert [p.name for p in archive.unpacked(tar, KNOWN).iterdir()] == ["fog.npy"]
    assert sorted(p.name for p in tar.parent.iterdir()) == ["CIFAR-100-C", "CIFAR-100-C.tar"]


def test_a_full_disk_leaves_the_tar_and_nothing_else(tar, monkeypatch):
    written(tar, member("CIFAR-100-C/fog.npy", b"f" * 2**20))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, limit[1]))
    try:
        with pytest.raises(UserError) as error:
            archive.unpacked(tar, KNOWN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.kind == "disk_full" and [p.name for p in tar.parent.iterdir()] == ["CIFAR-100-C.tar"]
