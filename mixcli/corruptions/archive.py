"""archive.py: a published tar beside the place of its folder, unpacked once: all of it or nothing.

Members are looked at one by one before they are written: regular files and folders below the archive's own place, not
more and not larger than the set can be; Python's `data` filter holds the same line a second time. What is unpacked gets
its name when it is complete, so neither a kill nor a full disk leaves a folder that looks whole.
"""

from __future__ import annotations

import fcntl
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import NoReturn

from mixcli.corruptions.published import Published
from mixcli.errors import UserError
from mixcli.files import told

UNREADABLE = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError)
BLOCK = 512  # bytes; a tar ends with blocks of zeros


def unpacked(tar: Path, known: Published) -> Path:
    """The folder of the set, made of `tar` unless another process has just made it.

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


def _unpack(tar: Path, place: Path, known: Published) -> None:
    _check_end(tar)
    count = size = 0
    try:
        with tarfile.open(tar, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # a million of them would fill the memory
                count, size = count + 1, size + member.size
                _check(tar, member)
                if count > known.members:
                    _refuse(tar, f"more than {known.members} members")
                if size > known.gib * 2**30:
                    _refuse(tar, f"unpacked size over {known.gib} GiB")
                archive.extract(member, place, filter="data")
    except tarfile.FilterError as error:
        _refuse(tar, f"member '{error.tarinfo.name}' leaves the folder")
    except UNREADABLE as error:
        _refuse(tar, f"not a readable tar file ({error})")


def _check(tar: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts:
        _refuse(tar, f"member '{member.name}' leaves the folder")
    if not (member.isreg() or member.isdir()):
        _refuse(tar, f"member '{member.name}' is a link or a device")
    if member.size < 0:
        _refuse(tar, f"member '{member.name}' has a negative size")


def _check_end(tar: Path) -> None:
    """A tar that was cut between two members would unpack without a word."""
    with tar.open("rb") as file:
        file.seek(max(0, tar.stat().st_size - BLOCK))
        if file.read() != bytes(BLOCK):
            _refuse(tar, "cut, or not a tar file")


def _refuse(tar: Path, problem: str) -> NoReturn:
    raise UserError("data_corrupt", tar.name, problem, hint="Fetch it again; nothing was unpacked")
