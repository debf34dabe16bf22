"""archive.py: a published tar or zip beside the place of its folder, unpacked once: all of it or nothing.

Members are looked at one by one before they are written: regular files and folders below the archive's own place, not
more and not larger than the set can be; for a tar, Python's `data` filter holds the same line a second time. What is
unpacked gets its name when it is complete, so neither a kill nor a full disk leaves a folder that looks whole.
"""

from __future__ import annotations

import fcntl
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import NoReturn, Protocol

from mixcli.errors import UserError
from mixcli.files import told

UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError,
    RuntimeError,  # a zip's encryption
)  # fmt: skip
BLOCK = 512  # bytes; a tar ends with blocks of zeros


class Known(Protocol):
    """What an archive may hold: the folder that is looked for in it; members and GiB, at most."""

    @property
    def folder(self) -> str: ...
    @property
    def members(self) -> int: ...
    @property
    def gib(self) -> int: ...


def unpacked(tar: Path, known: Known) -> Path:
    """The folder of the set, made of `tar` (.tar, .tar.gz or .zip) unless another process has just made it.

    Raises UserError: data_corrupt for what is no such archive, is cut, or holds what it must not; disk_full, io.
    """
    folder, spare = tar.with_name(known.folder), tar.with_name(f".{known.folder}.unpacking")
    with told(folder), _held(tar):
        if folder.is_dir():
            return folder
        shutil.rmtree(spare, ignore_errors=True)  # what a kill has left
        try:
            spare.mkdir()
            _unpack(tar, spare, known)
            if not (spare / known.folder).is_dir():
                _refuse(tar, f"holds no folder {known.folder}")
            (spare / known.folder).rename(folder)
        finally:
            shutil.rmtree(spare, ignore_errors=True)
    return folder


@contextmanager
def _held(tar: Path) -> Iterator[None]:
    """One process at a time; the others wait, and then find the folder."""
    with tar.open("rb") as file:
        with suppress(OSError):  # where the file system has no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Count:
    """What has been unpacked so far; raises UserError where it is more than the set can hold."""

    def __init__(self, path: Path, known: Known):
        self.path, self.known, self.members, self.size = path, known, 0, 0

    def add(self, name: str, size: int, plain: bool) -> None:
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            _refuse(self.path, f"member '{name}' leaves the folder")
        if not plain:
            _refuse(self.path, f"member '{name}' is a link or a device")
        if size < 0:
            _refuse(self.path, f"member '{name}' has a negative size")
        self.members, self.size = self.members + 1, self.size + size
        if self.members > self.known.members:
            _refuse(self.path, f"more than {self.known.members} members")
        if self.size > self.known.gib * 2**30:
            _refuse(self.path, f"unpacked size over {self.known.gib} GiB")


def _unpack(path: Path, place: Path, known: Known) -> None:
    count = _Count(path, known)
    try:
        if path.suffix == ".zip":
            _unpack_zip(path, place, count)
        else:
            _unpack_tar(path, place, count)
    except tarfile.FilterError as error:
        _refuse(path, f"member '{error.tarinfo.name}' leaves the folder")
    except UNREADABLE as error:
        _refuse(path, f"not a readable {path.suffix[1:]} file ({error})")


def _unpack_tar(path: Path, place: Path, count: _Count) -> None:
    if path.suffix == ".tar":
        _check_end(path)
    with tarfile.open(path, "r:" if path.suffix == ".tar" else "r:gz") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # a million of them would fill the memory
            count.add(member.name, member.size, member.isreg() or member.isdir())
            archive.extract(member, place, filter="data")


def _unpack_zip(path: Path, place: Path, count: _Count) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            mode = member.external_attr >> 16  # 0 where the archive was not made on Unix
            plain = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
            # zipfile reads no more of a member than its header claims, so what is counted is what is written.
            count.add(member.filename, member.file_size, plain)
            archive.extract(member, place)


def _check_end(tar: Path) -> None:
    """A tar that was cut between two members would unpack without a word."""
    with tar.open("rb") as file:
        file.seek(max(0, tar.stat().st_size - BLOCK))
        if file.read() != bytes(BLOCK):
            _refuse(tar, "cut, or not a tar file")


def _refuse(tar: Path, problem: str) -> NoReturn:
    raise UserError("data_corrupt", tar.name, problem, hint="Fetch it again; nothing was unpacked")
