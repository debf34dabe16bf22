"""fetch.py: a published file over the network: mirror after mirror, resumed where it broke off, checked, unpacked.

The only code of mixcli that opens a connection. A file grows under the name FILE.part, which stays when a transfer ends
early, for whatever reason, and is gone on with by the next one through HTTP's Range. It gets its own name when its sum
is the published one, and is removed when it is not.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from io import FileIO
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from mixcli import __version__, archive
from mixcli.data.downloads import Download
from mixcli.errors import UserError
from mixcli.files import UMASK, make_folder, md5_of, told

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 2**18  # bytes
RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Listener(Protocol):
    """Who is told how a transfer goes on."""

    def note(self, line: str) -> None: ...
    def transfer(self, name: str, done: int, total: int | None) -> None: ...


def fetch(one: Download, data: Path, mirrors: Sequence[str], listener: Listener) -> str:
    """Makes the file, or the folder that it unpacks to, be there; returns in a word what was done.

    mirrors  addresses of folders that may hold the file too, asked first
    Raises UserError: data_corrupt for another sum; io where no mirror gives the whole file; disk_full; run_locked.
    """
    path = data / one.file
    if one.folder and path.with_name(one.folder).is_dir():
        return "already unpacked"
    fetched = not path.is_file()
    if fetched:
        make_folder(path.parent)
        _transfer(one, path, [f"{mirror.rstrip('/')}/{path.name}" for mirror in mirrors], listener)
    elif (got := sum_of(path)) != one.md5:
        raise UserError("data_corrupt", str(path), "md5 differs from the published one", got=got, expected=one.md5,
                        hint="Remove it and fetch again")  # fmt: skip
    if not one.folder:
        return "fetched" if fetched else "already there"
    listener.note(f"{path}: unpacking")
    archive.unpacked(path, one)
    return "fetched and unpacked" if fetched else "unpacked"


def sum_of(path: Path) -> str:
    """The md5 of a file, in hex. Raises UserError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return md5_of(stream)
    except OSError as error:
        raise UserError("data_missing", str(path), f"cannot be read ({error.strerror})") from None


# ----------------------------------------------------------------------------------------------------------- a transfer


def _transfer(one: Download, path: Path, mirrors: Sequence[str], listener: Listener) -> None:
    """Fetches the file from the first address that gives all of it with its published sum."""
    urls, reasons, differing = (*mirrors, *one.urls), [], ""
    part = path.with_name(f"{path.name}.part")
    with _held(part) as file:
        if path.is_file():  # another process has just fetched it
            return
        for url in urls:
            reason = _until_stuck(url, one, part, file, listener)
            if reason:
                listener.note(f"{url}: {reason}")
                reasons.append(reason)
            elif (got := sum_of(part)) == one.md5:
                return _named(file, part, path)
            else:
                listener.note(f"{url}: md5 {got} differs from the published one")
                differing = got
                _shortened(file, part)
        if differing:
            part.unlink()
            raise UserError("data_corrupt", path.name, "md5 differs, file removed", got=differing, expected=one.md5)
        kept = _size(file)
        if not kept:
            part.unlink()
        of = f"0 of {len(urls)} mirror{'s' * (len(urls) > 1)}"
        hint = f"{kept} bytes are kept; type it again to go on" if kept else "Try again later, or name a --mirror"
        problem = f"{of} {'gave all of it' if kept else 'answered'} ({reasons[-1]})"
        raise UserError("io", path.name, problem, hint=hint)


@contextmanager
def _held(part: Path) -> Iterator[FileIO]:
    """The growing file, opened by this process alone."""
    with told(part):
        file = FileIO(os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "r+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("run_locked", str(part), "another process is fetching it") from None
        except OSError:  # a file system without locks
            pass
        yield file


def _until_stuck(url: str, one: Download, part: Path, file: FileIO, listener: Listener) -> str:
    """Asks one address again for as long as it gives further bytes; returns why it stopped, empty when all is there."""
    while True:
        before = _size(file)
        try:
            if _request(url, one, part, file, listener):
                return ""
            reason = f"broke off at byte {_size(file)}"
        except HTTPError as error:
            reason = f"{error.code} {error.reason}"
        except (OSError, HTTPException, ValueError) as error:
            reason = f"no answer ({_words(error)})"
        if _size(file) <= before:
            return reason


def _words(error: Exception) -> str:
    """What went wrong on the way, without numbers of the operating system's."""
    inner = getattr(error, "reason", error)
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__


def _request(url: str, one: Download, part: Path, file: FileIO, listener: Listener) -> bool:
    """One answer, appended to the file; whether all is there then."""
    start = _size(file)
    headers = {"User-Agent": f"mixcli/{__version__}", "Accept-Encoding": "identity"}
    if start:
        listener.note(f"{part.name}: goes on at byte {start}")
        headers["Range"] = f"bytes={start}-"
    try:
        answer = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or not start:
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{start}"):  # all of it was there
            return True
        _shortened(file, part)
        return _request(url, one, part, file, listener)
    with answer:
        total = _begun(answer, start, file, part)
        _check_space(part, total, _size(file))
        done = _copied(answer, one, file, part, total, listener)
    return done == total if total is not None else done > 0


def _begun(answer: Any, start: int, file: FileIO, part: Path) -> int | None:
    """Bytes of the whole file, where told; the file is emptied where the answer does not begin at its end."""
    found = RANGE.fullmatch(answer.headers.get("Content-Range", ""))
    if answer.status == 206 and found and int(found[1]) == start:
        return None if found[2] == "*" else int(found[2])
    length = answer.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if answer.status != 200 or (total is not None and total < start):  # a page about an error, as likely as not
        raise ValueError(f"answered {answer.status} with {length or 'unknown'} bytes, and {start} are there")
    if start:
        _shortened(file, part)
    return total


def _copied(answer: Any, one: Download, file: FileIO, part: Path, total: int | None, listener: Listener) -> int:
    """Appends what the answer gives; returns the bytes that the file has then."""
    done = _size(file)
    while chunk := answer.read1(CHUNK):  # what has come, not a whole chunk: a break loses nothing
        done += len(chunk)
        if done > one.gib * 2**30 or (total is not None and done > total):
            _shortened(file, part)
            raise ValueError("more bytes than the file has")
        with told(part):
            while chunk:
                chunk = chunk[file.write(chunk) :]
        listener.transfer(part.stem, done, total)
    return done


def _check_space(part: Path, total: int | None, done: int) -> None:
    """Raises UserError where the disk cannot hold the rest; what an archive unpacks to comes on top."""
    needed, free = (total or 0) - done, shutil.disk_usage(part.parent).free
    if needed > free:
        problem = f"no space left: {needed / 1e9:.2f} GB to come, {free / 1e9:.2f} GB free"
        raise UserError("disk_full", str(part.parent), problem, hint="What is fetched so far is kept")


def _named(file: FileIO, part: Path, path: Path) -> None:
    with told(path):
        os.fchmod(file.fileno(), 0o666 & ~UMASK)
        os.fsync(file.fileno())
        os.replace(part, path)


def _shortened(file: FileIO, part: Path) -> None:
    """Makes the file empty."""
    with told(part):
        file.seek(0)
        file.truncate()


def _size(file: FileIO) -> int:
    """Bytes that the file has; the next ones are written behind them."""
    return file.seek(0, os.SEEK_END)
