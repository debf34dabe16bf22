"""runs.py: the run store: names, kernel locks, the state of a run, its log, and finding one again.

A run is a folder `<dataset>-<net>-<method>-s<seed>-<id>` under one root. It is done once its `result.json`, written
last, validates. Whoever writes holds the folder's kernel lock, which vanishes with the process. Nothing here
follows a link or deletes a file it does not know.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mixcli import own_code
from mixcli.errors import UserError
from mixcli.files import FULL, append, as_json, plain, remove_temporaries, temporary, told, write_atomic
from mixcli.recipe import Train

RESULT_FORMAT = 1
METRICS_DIGEST = "metrics_sha256"  # of a finished run's log, in its result
LAST_LINES = 8  # of a trace, kept beside an error
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
HEARTBEAT, MISSED, SETTLE = 60.0, 3, 1.0  # seconds between beats, beats missed before a claim is taken over, seconds
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}-[0-9a-f]{12}")


# ---------------------------------------------------------------------------------------------------------- one run


class Run:
    """A run's folder. `open` locks it for writing and makes it if need be; reading needs no lock."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.settings = folder / "settings.toml"
        self.environment = folder / "environment.json"
        self.labelled = folder / "labelled.json"
        self.metrics = folder / "metrics.jsonl"
        self.checkpoint = folder / "run.ckpt"
        self.previous = folder / "previous.ckpt"
        self.best = folder / "best.ckpt"
        self.correct = folder / "test_correct.npz"
        self.result = folder / "result.json"
        self.log = folder / "error.log"
        self.error = folder / "error.json"
        self.lineage = folder / "parent"
        self.epochs = folder / "epochs"
        self.extends: Run | None = None  # the run whose training this one is to continue, before `begin` writes it down
        self._lock: int | None = None
        self._claim: Claim | None = None
        self._made: list[Path] = []  # folders that `open` had to make
        self._latest_before: bytes | None = None

    @property
    def id(self) -> str:
        """The 12 hex digits at the end of the folder's name."""
        return self.folder.name[-12:]

    @property
    def parent(self) -> str | None:
        """The id of the run that this one extends."""
        try:
            return self.lineage.read_text().strip() or None
        except OSError:
            return None if self.extends is None else self.extends.id

    @property
    def state(self) -> str:
        """absent, unfinished or finished."""
        if self.finished() is not None:
            return "finished"
        return "unfinished" if self.settings.is_file() else "absent"

    def finished(self) -> dict[str, Any] | None:
        """The result, if it is whole and belongs to this run."""
        try:
            result = json.loads(self.result.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        valid = isinstance(result, dict) and result.get("format") == RESULT_FORMAT and result.get("id") == self.id
        return result if valid else None

    def kept(self) -> dict[int, Path]:
        """The checkpoints that `--keep` left, by epoch, ascending."""
        found = [] if self.epochs.is_symlink() else sorted(self.epochs.glob("epoch-[0-9]*.ckpt"))
        return {int(path.stem.removeprefix("epoch-")): path for path in found}

    def edited(self) -> bool:
        """Whether the log of a finished run is whole, and another than the one that was there when it ended."""
        recorded, found = (self.finished() or {}).get(METRICS_DIGEST), _digest(self.metrics)
        cut = found is not None and not self.metrics.read_bytes().endswith(b"\n")
        return recorded is not None and found not in (None, recorded) and not cut

    def failure(self) -> dict[str, Any] | None:
        """What error.json says: kind, message, last lines. None where no error ended this run."""
        try:
            error = json.loads(self.error.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return error if isinstance(error, dict) and isinstance(error.get("kind"), str) else None

    # -- the lock -------------------------------------------------------------------------------------------------

    def open(self) -> Run:
        """Takes the lock, or raises UserError: run_locked at once where another process holds it."""
        self._made = _make_folders(self.folder)
        self._lock = _locked(self.folder / "lock", self.folder)
        if self._lock is None:
            self._claim = Claim.take(self.folder)
        _open_locks.add(self)
        for folder in (self.folder, self.epochs):
            remove_temporaries(folder)
        return self

    def close(self) -> None:
        """Gives the lock back. A run that left nothing but its settings behind is removed."""
        if self._lock is None and self._claim is None:
            return
        if self.folder.is_dir() and {p.name for p in self.folder.iterdir()} <= EMPTY:
            for name in EMPTY - {CLAIM}:
                (self.folder / name).unlink(missing_ok=True)
            if self._claim is not None:
                self._claim.drop()
            self._leave_latest()
            for folder in {self.folder: None, **dict.fromkeys(reversed(self._made))}:
                with suppress(OSError):  # somebody else put something there
                    folder.rmdir()
        if self._lock is not None:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
        if self._claim is not None:
            self._claim.drop()
        self._drop_lock()

    def _drop_lock(self) -> None:
        """Closes the descriptor; the lock itself stays with other processes that have it from us."""
        if self._lock is not None:
            os.close(self._lock)
        self._lock = self._claim = None

    @property
    def claimed(self) -> bool:
        """Whether a claim file stands in for a kernel lock, which this file system has not."""
        return self._claim is not None

    def busy(self) -> bool:
        """Whether another process holds this run at the moment; takes and makes nothing that lasts."""
        try:
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except OSError:
            return Claim.held(self.folder)
        finally:
            os.close(lock)

    def _still_ours(self) -> None:
        """Raises UserError where another process has taken this run over; looked at before each line of the log."""
        if self._claim is not None and self._claim.lost():
            raise UserError("run_locked", str(self.folder), "taken over by another process: its claim had no heartbeat")

    def __enter__(self) -> Run:
        return self if self._lock is not None or self._claim is not None else self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what a run writes ----------------------------------------------------------------------------------------

    def begin(self, settings: str) -> None:
        """Writes the settings as TOML; the run is `unfinished` from here on, and goes on with the log it extends."""
        if self.extends is not None:
            write_atomic(self.lineage, f"{self.extends.id}\n".encode())
            write_atomic(self.metrics, b"".join(as_json(row) for row in self.extends.rows()))
        write_atomic(self.settings, settings.encode())

    def become_latest(self) -> None:
        """Makes this the run that `latest` names: a text file of one line in the root, never a link."""
        marker = self.folder.parent / "latest"
        self._latest_before = marker.read_bytes() if marker.is_file() and not marker.is_symlink() else None
        write_atomic(marker, f"{self.folder.name}\n".encode())

    def _leave_latest(self) -> None:
        """Gives `latest` back to the run before, if it still names this one."""
        marker = self.folder.parent / "latest"
        if marker.is_symlink() or not marker.is_file() or marker.read_bytes().strip() != self.folder.name.encode():
            return
        if self._latest_before is None:
            marker.unlink()
        else:
            write_atomic(marker, self._latest_before)

    def describe(self, environment: dict[str, Any]) -> None:
        """Writes what the run's bits depend on beside its settings, and what guards its folder."""
        environment = {**environment, "lock": "claim file"} if self.claimed else environment
        write_atomic(self.environment, as_json(environment, indent=2))

    def record_labelled(self, images: list[int], split_seed: int) -> None:
        """Writes which training images, by their number in the split as published, are used with their labels."""
        write_atomic(self.labelled, as_json({"split_seed": split_seed, "labels": len(images), "images": images}))

    def finish(self, result: dict[str, Any]) -> dict[str, Any]:
        """Writes the result, whose presence says that the run is done, and returns it as written."""
        digest = _digest(self.metrics)
        log = {} if digest is None else {METRICS_DIGEST: digest}
        content = plain({"format": RESULT_FORMAT, "id": self.id, **result, **log})
        write_atomic(self.result, as_json(content, indent=2))
        self.error.unlink(missing_ok=True)
        return content

    def fail(self, error: UserError, trace: str = "") -> None:
        """Writes down the error that ended the run, and the last lines of its trace or output."""
        last = trace.rstrip().splitlines()[-LAST_LINES:]
        content = {"format": RESULT_FORMAT, "id": self.id, "kind": error.kind, "message": str(error), "last": last}
        write_atomic(self.error, as_json(content, indent=2))

    def append(self, row: dict[str, Any]) -> None:
        """Adds a line to the log."""
        self._still_ours()
        append(self.metrics, as_json(row))

    def rows(self) -> list[dict[str, Any]]:
        """The log; see `rows`."""
        return rows(self.metrics)

    def truncate_metrics(self, step: int) -> None:
        """Drops the log's rows beyond `step`, and a last line that was cut."""
        if self.metrics.exists():
            kept = [row for row in self.rows() if row.get("step", 0) <= step]
            write_atomic(self.metrics, b"".join(as_json(row) for row in kept))

    def clear(self) -> None:
        """Deletes what a run is known to write, and only beside its settings.toml, which goes last."""
        if not self.settings.is_file() or self.settings.is_symlink():
            return
        known = [self.result, self.correct, self.metrics, self.checkpoint, self.previous, self.best, self.environment,
                 self.labelled, self.log, self.error]  # fmt: skip
        for path in (*known, *self.kept().values(), self.lineage, self.settings):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # not there, or not empty
            self.epochs.rmdir()


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


CLAIM = "claim"
EMPTY = {CLAIM, "lock", "settings.toml", "environment.json", "labelled.json", "parent"}


def name(train: Train, id: str) -> str:
    """The name of a run's folder; a path in the settings leaves its last part."""
    method = train.method.name
    return f"{_word(train.dataset)}-{_word(own_code.short(train.net or 'net'))}-{_word(method)}-s{train.seed}-{id}"


def locate(train: Train, id: str) -> Run:
    """The run of these settings and id, whether it is there or not."""
    return Run(Path(train.runs) / name(train, id))


def _word(text: str) -> str:
    last = Path(text.replace("\0", "")).name.removesuffix(".npz")
    return re.sub(r"[^A-Za-z0-9._-]+", "_", last).strip("._-")[:60] or "data"


# -------------------------------------------------------------------------------------------------------------- locks

_open_locks: weakref.WeakSet[Run] = weakref.WeakSet()


def _leave_locks_to_parent() -> None:
    for run in list(_open_locks):
        run._drop_lock()


# A forked data worker that outlives the run would keep it locked.
os.register_at_fork(after_in_child=_leave_locks_to_parent)


def _locked(path: Path, folder: Path) -> int | None:
    """A descriptor that holds the kernel lock on `path`; close-on-exec, as all of Python's are. None: no locks here."""
    while True:
        with told(path):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed the file, an empty run, between our opening and our locking.
            if os.path.samestat(os.fstat(lock), os.stat(path, follow_symlinks=False)):
                return lock
            os.close(lock)
        except BlockingIOError:
            os.close(lock)
            raise UserError("run_locked", str(folder), "in use by another process") from None
        except FileNotFoundError:
            os.close(lock)
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            os.close(lock)
            if error.errno in NO_LOCKS:
                return None
            problem = f"cannot be locked ({error.strerror})"
            raise UserError("io", str(folder), problem, hint="Give --runs on a local disk") from error


class Claim:
    """A file that says who works in a folder, where the file system has no kernel locks.

    Made exclusively; its time of change is the heartbeat. After three missed beats another process takes it over by
    renaming its own file onto it, and the holder that lost it gives way. A run made twice is harmless: equal bits.
    """

    def __init__(self, path: Path, content: bytes):
        self._path, self._content = path, content
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    @classmethod
    def take(cls, folder: Path) -> Claim:
        """The claim of this process on `folder`. Raises UserError: run_locked where another's heart beats."""
        path, content = folder / CLAIM, _claimant()
        with told(path):
            try:
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
                    file.write(content)
                return cls(path, content)
            except FileExistsError:
                pass
        if cls.held(folder):
            raise UserError("run_locked", str(folder), "in use by another process")
        write_atomic(path, content)
        time.sleep(SETTLE)  # of several that take it over at once, the last one has it
        claim = cls(path, content)
        if claim.lost():
            claim._ended.set()
            raise UserError("run_locked", str(folder), "in use by another process")
        return claim

    @classmethod
    def held(cls, folder: Path) -> bool:
        """Whether a claim's heart beats; both times are the file system's own, for clocks differ between machines."""
        probe = temporary(folder / CLAIM)
        try:
            beat = os.stat(folder / CLAIM, follow_symlinks=False).st_mtime
            probe.touch(exist_ok=False)
            return probe.stat().st_mtime - beat < MISSED * HEARTBEAT
        except OSError:
            return False
        finally:
            probe.unlink(missing_ok=True)

    def lost(self) -> bool:
        """Whether another process has the claim now."""
        try:
            return self._path.read_bytes() != self._content
        except OSError:
            return True

    def drop(self) -> None:
        """Gives the claim back, if it is still ours."""
        if not self._ended.is_set() and not self.lost():
            self._path.unlink(missing_ok=True)
        self._ended.set()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            with suppress(OSError):
                if not self.lost():
                    os.utime(self._path)


def _claimant() -> bytes:
    """Who claims: host and process for people, and a word that no other claim has."""
    return as_json({"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)})


def _make_folders(folder: Path) -> list[Path]:
    """Makes the run folder and its root; returns what was made, the root first."""
    made = []
    for path in (folder.parent, folder):
        if path.is_symlink() and path is folder:
            raise UserError("refused_unsafe", str(path), "is a link; a run folder lies under its root")
        try:
            path.mkdir()
            made.append(path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno in FULL:
                raise UserError("disk_full", str(path), "no space left") from error
            raise not_writable(folder.parent) from error
        if not path.is_dir():
            raise not_writable(path)
    settings = folder / "settings.toml"
    if settings.is_symlink():
        raise UserError("refused_unsafe", str(settings), "is a link")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise not_writable(folder)
    return made


def not_writable(path: Path) -> UserError:
    return UserError("config", str(path), "not a writable directory", hint="Give another --runs")


def check_root(root: Path) -> None:
    """Raises UserError where runs could not be made under `root`; makes nothing."""
    if "\0" in str(root):
        raise not_writable(root)
    nearest_existing = root if root.exists() else root.absolute().parent
    if not nearest_existing.is_dir() or not os.access(nearest_existing, os.W_OK | os.X_OK):
        raise not_writable(root)


# ---------------------------------------------------------------------------------------------------------------- log


def rows(metrics: Path) -> list[dict[str, Any]]:
    """The rows of a log. A last line cut by a kill is dropped; a damaged line before it raises journal_corrupt."""
    try:
        lines = metrics.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    *whole, _cut = lines  # what follows the last newline: nothing, or a line that was not finished
    found = []
    for number, line in enumerate(whole, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError("journal_corrupt", f"{metrics} line {number}", "not valid")
        found.append(row)
    return found


# ------------------------------------------------------------------------------------------------------- finding a run


def find(text: str, root: Path) -> Path:
    """The checkpoint meant by `text`: a run folder, a file, a run's name or the start of its id, or `latest`.

    Raises UserError: checkpoint_missing where there is none, usage where several runs match.
    """
    if not text or "\0" in text:
        expected = "a run folder, a checkpoint, the start of an id, or latest"
        raise UserError("usage", text, "not a run", expected=expected)
    path = Path(text)
    if text == "latest":
        return checkpoint_in(_latest(root))
    if path.suffix == ".ckpt" or path.is_file():
        return _checkpoint_file(path)
    if path.is_dir():
        return checkpoint_in(path)
    return checkpoint_in(_by_prefix(text, root))


def checkpoint_in(folder: Path) -> Path:
    """The newest checkpoint of a run folder."""
    checkpoint = Run(folder).checkpoint
    if not checkpoint.is_file():
        raise UserError("checkpoint_missing", str(folder), "no run.ckpt in it")
    return checkpoint


def _checkpoint_file(path: Path) -> Path:
    if not path.is_file():
        raise UserError("checkpoint_missing", str(path), "is a directory" if path.is_dir() else "not found")
    return path


def _by_prefix(text: str, root: Path) -> Path:
    folders = list(all_runs(root))
    found = [f for f in folders if f.name == text] or [f for f in folders if f.name[-12:].startswith(text)]
    if len(found) > 1:
        raise UserError("usage", text, f"{len(found)} runs match", expected="more of the id",
                        hint=f"{', '.join(f.name for f in found[:3])}{', …' if len(found) > 3 else ''}")  # fmt: skip
    if not found:
        raise UserError("checkpoint_missing", text, f"no such file, folder or run under {root}")
    return found[0]


def _latest(root: Path) -> Path:
    marker = root / "latest"
    if marker.is_symlink():
        raise UserError("refused_unsafe", str(marker), "is a link")
    try:
        line = marker.read_text(errors="replace").strip()
    except OSError:
        raise UserError("checkpoint_missing", "latest", f"no run was trained under {root}") from None
    if not NAME.fullmatch(line) or not (root / line).is_dir():
        raise UserError("checkpoint_missing", "latest", "names no run here", got=line)
    return root / line


def all_runs(root: Path) -> Iterator[Path]:
    """The run folders under `root`, by name; links are not followed."""
    if root.is_dir():
        for folder in sorted(root.iterdir()):
            if NAME.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                yield folder
