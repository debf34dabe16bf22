"""test_runs.py: a run has one writer, whole files, and is found again; nothing foreign is touched."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mixcli import files, runs
from mixcli.errors import UserError
from mixcli.recipe import Train
from mixcli.runs import Run

ID = "0123456789ab"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "runs" / f"digits-small-none-s0-{ID}")


def begun(run: Run) -> Run:
    run.open()
    run.begin("seed = 0\n")
    return run


def refused(kind: str, call: Any, *words: str) -> UserError:
    with pytest.raises(UserError) as caught:
        call()
    assert caught.value.kind == kind
    assert all(word in str(caught.value) for word in words), str(caught.value)
    return caught.value


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "word"),
    [
        ("cifar10", "cifar10"),
        ("/home/me/my set.npz", "my_set"),
        ("../../etc/passwd", "passwd"),
        ("..", "data"),
        ("/", "data"),
        ("a\0b\n[/]\x1b", "ab"),
        ("é", "data"),
        ("-x", "x"),
        ("x" * 300, "x" * 60),
    ],
)
def test_a_hostile_name_stays_one_folder_under_the_root(dataset: str, word: str, tmp_path: Path) -> None:
    train = Train(dataset=dataset, net="small", seed=3, runs=str(tmp_path))
    name = runs.name(train, ID)
    assert runs.NAME.fullmatch(name)
    assert name == f"{word}-small-none-s3-{ID}" or dataset.startswith("a\0b")
    folder = runs.locate(train, ID).folder
    assert folder.resolve().parent == tmp_path.resolve()
    assert Run(folder).id == ID


# -- state --------------------------------------------------------------------------------------------------------


def test_a_run_is_absent_then_unfinished_then_finished(run: Run) -> None:
    assert run.state == "absent"
    with begun(run):
        assert run.state == "unfinished"
        written = run.finish({"accuracy": 0.5, "nll": float("nan"), "pair": (1, 2)})
        assert run.state == "finished"
    assert run.finished() == written == {"format": 1, "id": ID, "accuracy": 0.5, "nll": None, "pair": [1, 2]}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"{}", b'{"format": 1, "id": "x"}', b'{"format": 2, "id": "0123456789ab"}',
                b"\xff", b"[" * 100_000]
)  # fmt: skip
def test_a_result_that_does_not_validate_is_no_result(run: Run, content: bytes) -> None:
    with begun(run):
        run.result.write_bytes(content)
        assert run.state == "unfinished"


def test_a_run_that_left_nothing_is_removed_and_gives_latest_back(run: Run, tmp_path: Path) -> None:
    with begun(run):
        run.become_latest()
    assert not list(tmp_path.iterdir())
    other = Run(run.folder.with_name(f"other-{ID}"))
    with begun(other):
        other.become_latest()
        other.append({"step": 1})
    with begun(run):
        run.become_latest()
        assert (run.folder.parent / "latest").read_text() == f"{run.folder.name}\n"
    assert not run.folder.exists()
    assert (run.folder.parent / "latest").read_text() == f"{other.folder.name}\n"


def test_the_parent_is_remembered(run: Run) -> None:
    with run.open():
        assert run.parent is None
        other = Run(run.folder.parent / "digits-small-none-s0-ba9876543210")
        with other.open():
            other.begin("")
            other.append({"step": 7})
        run.extends = other
        run.begin("")
        assert run.parent == Run(run.folder).parent == "ba9876543210" and run.rows() == [{"step": 7}]
        run.clear()
        assert Run(run.folder).parent is None


# -- the lock -----------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from mixcli.runs import Run
run = Run(Path(sys.argv[1])).open()
run.begin("")
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_process_is_refused_at_once_and_the_lock_dies_with_its_holder(run: Run) -> None:
    run.folder.parent.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(run.folder)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        start = time.monotonic()
        refused("run_locked", run.open, str(run.folder), "in use by another process")
        assert time.monotonic() - start < 10  # at once; that it does not wait for the holder is the claim
    finally:
        holder.kill()
        holder.communicate()
    with run.open():
        assert run.state == "unfinished"


FORK = """
import os, sys, time
from pathlib import Path
from mixcli.runs import Run
run = Run(Path(sys.argv[1])).open()
run.begin("")
if os.fork() == 0:
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_an_orphaned_worker_does_not_keep_the_lock(run: Run) -> None:
    run.folder.parent.mkdir()
    holder = subprocess.Popen([sys.executable, "-c", FORK, str(run.folder)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    worker = int(holder.stdout.readline())
    try:
        refused("run_locked", run.open)
        holder.kill()
        holder.wait()
        run.open().close()
    finally:
        os.kill(worker, signal.SIGKILL)
        holder.communicate()


def test_a_child_leaves_the_lock_with_its_parent_and_closing_frees_it_at_once(run: Run) -> None:
    with begun(run):
        run.append({"step": 1})
        child = multiprocessing.get_context("fork").Process(target=run.close)
        child.start()
        child.join()
        refused("run_locked", Run(run.folder).open)
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    try:
        Run(run.folder).open().close()
    finally:
        sleeper.kill()
        sleeper.wait()


def test_opening_again_in_the_same_process_is_refused(run: Run) -> None:
    with begun(run):
        refused("run_locked", Run(run.folder).open)


@pytest.mark.parametrize("make", ["file", "missing parent", "file as parent"])
def test_a_root_that_cannot_hold_runs_is_refused(tmp_path: Path, make: str) -> None:
    (tmp_path / "file").write_text("mine")
    root = {
        "file": tmp_path / "file",
        "missing parent": tmp_path / "a" / "b",
        "file as parent": tmp_path / "file" / "r",
    }
    refused("config", Run(root[make] / f"x-{ID}").open, "not a writable directory")
    refused("config", lambda: runs.check_root(root[make]), "not a writable directory")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# -- files --------------------------------------------------------------------------------------------------------


def test_a_whole_file_has_the_usual_mode_and_leaves_no_temporary(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = tmp_path / "x"
        files.write_atomic(path, b"1")
        files.write_atomic(path, b"2")
    finally:
        os.umask(before)
    assert path.read_bytes() == b"2"
    assert path.stat().st_mode & 0o777 == 0o666 & ~files.UMASK
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, "disk_full", "no space left; previous files kept"),
        (errno.EDQUOT, "disk_full", "no space left"),
        (errno.EFBIG, "disk_full", "no space left"),
        (errno.EIO, "io", "cannot be written"),
    ],
)
def test_a_write_that_fails_keeps_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: str, words: str
) -> None:
    path = tmp_path / "run.ckpt"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for call in ("fsync", "replace", "fchmod"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            refused(kind, lambda: files.write_atomic(path, b"new"), str(path), words)
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]


def test_a_log_that_cannot_grow_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with begun(run):
        run.append({"step": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda file, line: len(line) - 1)
            refused("disk_full", lambda: run.append({"step": 2}), "metrics.jsonl")


def test_a_link_planted_at_a_name_is_replaced_or_refused_and_its_target_survives(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    with begun(run):
        run.checkpoint.symlink_to(target)
        files.write_atomic(run.checkpoint, b"ours")
        run.metrics.symlink_to(target)
        refused("io", lambda: run.append({"step": 1}), "metrics.jsonl")
    assert target.read_text() == "mine"


def test_leftover_temporaries_are_removed_and_nothing_else(run: Run, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    run.epochs.mkdir(parents=True)
    ours = [files.temporary(run.checkpoint), files.temporary(run.epochs / "epoch-0001.ckpt")]
    link, foreign = run.folder / f".{'0' * 16}.mixcli-tmp", run.folder / ".0123.mixcli-tmp"
    for path in (*ours, foreign):
        path.write_text("x")
    link.symlink_to(target)
    with run.open():
        assert not any(path.exists() for path in ours)
        assert foreign.exists() and link.is_symlink() and target.read_text() == "mine"


def test_overwriting_deletes_what_a_run_writes_and_nothing_else(run: Run, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "epoch-0001.ckpt").write_text("mine")
    with begun(run):
        run.epochs.mkdir()
        known = [run.metrics, run.checkpoint, run.previous, run.best, run.result, run.environment, run.log,
                 run.epochs / "epoch-0010.ckpt"]  # fmt: skip
        foreign = [run.folder / "notes.txt", run.epochs / "notes.txt", run.folder / "other.ckpt"]
        for path in (*known, *foreign):
            path.write_text("x")
        run.clear()
        assert not any(path.exists() for path in known) and not run.settings.exists()
        assert all(path.exists() for path in foreign)

        for path in foreign:
            path.unlink()
        run.epochs.rmdir()
        run.epochs.symlink_to(outside)
        run.begin("")
        run.clear()
        assert (outside / "epoch-0001.ckpt").exists()

        run.checkpoint.write_text("not beside settings")
        run.clear()
        assert run.checkpoint.exists()


def test_a_run_folder_or_settings_that_is_a_link_is_refused(run: Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run.folder.parent.mkdir()
    run.folder.symlink_to(elsewhere)
    refused("refused_unsafe", run.open, "is a link")
    run.folder.unlink()
    run.folder.mkdir()
    run.settings.symlink_to(elsewhere / "settings.toml")
    refused("refused_unsafe", run.open, "is a link")
    assert not list(elsewhere.iterdir())


# -- the log ------------------------------------------------------------------------------------------------------


def test_the_log_survives_a_cut_at_every_byte(run: Run) -> None:
    with begun(run):
        rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("inf")}]
        for row in rows:
            run.append(row)
        whole = run.metrics.read_bytes()
        first = whole.index(b"\n") + 1
        assert run.rows() == [rows[0], {"step": 2, "loss": None}]
        for cut in range(first, len(whole)):
            run.metrics.write_bytes(whole[:cut])
            assert run.rows() == rows[:1]
        run.truncate_metrics(1)
        run.append({"step": 3})
        assert [r["step"] for r in run.rows()] == [1, 3]


def test_a_damaged_line_before_the_last_is_named(run: Run) -> None:
    with begun(run):
        run.metrics.write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
        refused("journal_corrupt", run.rows, "metrics.jsonl line 2: not valid")


def test_rows_beyond_the_step_are_dropped(run: Run) -> None:
    with begun(run):
        run.truncate_metrics(3)
        assert not run.metrics.exists()
        for step in (10, 20, 30):
            run.append({"step": step})
        run.truncate_metrics(20)
        assert [r["step"] for r in run.rows()] == [10, 20]
        run.truncate_metrics(0)
        assert run.rows() == []


def test_json_has_no_nan(run: Run) -> None:
    with begun(run):
        run.describe({"a": [float("nan"), {"b": float("-inf")}]})
        assert json.loads(run.environment.read_text(), parse_constant=pytest.fail) == {"a": [None, {"b": None}]}


# -- finding ------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    for name in ("digits-small-none-s0-aaa000000000", "digits-small-none-s1-aab000000000", "x-y-z-s0-bbb000000000"):
        (root / name).mkdir(parents=True)
        (root / name / "run.ckpt").write_text("x")
    return root


def test_a_run_is_found_by_folder_file_name_prefix_and_latest(store: Path) -> None:
    name = "x-y-z-s0-bbb000000000"
    checkpoint = store / name / "run.ckpt"
    with Run(store / name).open() as run:
        run.become_latest()
    for text in (str(store / name), str(checkpoint), name, "b", "bbb0", "latest"):
        assert runs.find(text, store) == checkpoint
    assert [p.name for p in runs.all_runs(store)][-1] == name
    previous = store / name / "previous.ckpt"
    previous.write_text("x")
    assert runs.find(str(previous), store) == previous


def test_what_cannot_be_found_is_told(store: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.ckpt").mkdir()

    def find(text: str) -> Any:
        return lambda: runs.find(text, store)

    refused("usage", find("aa"), "aa: 2 runs match", "digits-small-none-s0-aaa000000000")
    refused("checkpoint_missing", find("c"), "c: no such")
    refused("checkpoint_missing", find(str(tmp_path / "no.ckpt")), "no.ckpt: not found")
    refused("checkpoint_missing", find(str(tmp_path / "folder.ckpt")), "is a directory")
    refused("checkpoint_missing", find(str(tmp_path / "empty")), "no run.ckpt in it")
    refused("checkpoint_missing", find("latest"), "latest")
    refused("usage", find(""), "not a run")
    refused("usage", find("a\0"), "not a run")
    refused("checkpoint_missing", lambda: runs.find("a", tmp_path / "nowhere"), "no such")


@pytest.mark.parametrize("line", ["../outside-aaa000000000", "/etc", "", "a\0", "x-y-z-s0-ccc000000000", "[/]"])
def test_latest_leads_nowhere_else(store: Path, line: str) -> None:
    (store.parent / "outside-aaa000000000").mkdir()
    (store / "latest").write_text(line)
    refused("checkpoint_missing", lambda: runs.find("latest", store), "latest: names no run here")


def test_a_linked_latest_or_run_is_not_followed(store: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "run.ckpt").write_text("x")
    (store / "q-r-s-s0-ddd000000000").symlink_to(outside)
    refused("checkpoint_missing", lambda: runs.find("ddd", store))
    (tmp_path / "line").write_text("x-y-z-s0-bbb000000000\n")
    (store / "latest").symlink_to(tmp_path / "line")
    refused("refused_unsafe", lambda: runs.find("latest", store), "is a link")
    with Run(store / "x-y-z-s0-bbb000000000").open() as run:
        run.become_latest()
    assert (tmp_path / "line").read_text() == "x-y-z-s0-bbb000000000\n"
    assert not (store / "latest").is_symlink()


# -- what a finished or failed run tells -------------------------------------------------------------------------


def test_an_edited_log_is_noticed_and_a_cut_or_absent_one_is_not_called_edited(run: Run) -> None:
    with begun(run):
        run.append({"step": 1, "loss": 0.5})
        run.append({"step": 2, "loss": 0.25})
        run.finish({"accuracy": 0.5})
    whole = run.metrics.read_bytes()
    assert not run.edited()
    run.metrics.write_bytes(whole.replace(b"0.25", b"0.35"))
    assert run.edited()
    run.metrics.write_bytes(whole[:-4])
    assert not run.edited()
    run.metrics.unlink()
    assert not run.edited()


def test_a_failure_is_kept_with_its_last_lines_until_the_run_ends_well(run: Run) -> None:
    with begun(run):
        run.fail(UserError("diverged", "step 3", "loss not finite"), "\n".join(map(str, range(20))))
    failure = Run(run.folder).failure()
    assert failure is not None and failure["last"] == [str(n) for n in range(12, 20)]
    assert (failure["kind"], failure["message"]) == ("diverged", "step 3: loss not finite")
    with run:
        run.finish({})
    assert run.failure() is None
    run.error.write_text("{")
    assert run.failure() is None


def test_a_look_whether_a_run_is_busy_leaves_nothing(run: Run) -> None:
    assert not run.busy() and not run.folder.parent.exists()
    with begun(run):
        assert Run(run.folder).busy()
        run.append({"step": 1})
    assert not run.busy()


# -- claims, where the file system has no locks --------------------------------------------------------------------


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(runs.fcntl, "flock", refuse)
    monkeypatch.setattr(runs, "SETTLE", 0.0)


def test_a_claim_stands_in_for_a_lock(run: Run, no_locks: None) -> None:
    with begun(run):
        claim = json.loads((run.folder / "claim").read_bytes())
        assert claim["pid"] == os.getpid() and claim["host"] and run.claimed
        refused("run_locked", Run(run.folder).open, "in use by another process")
        assert Run(run.folder).busy()
        run.append({"step": 1})
        run.describe({})
        assert json.loads(run.environment.read_bytes()) == {"lock": "claim file"}
    assert not (run.folder / "claim").exists() and not run.busy()
    with run.open():
        run.append({"step": 2})


def test_an_empty_run_goes_with_its_claim(run: Run, no_locks: None, tmp_path: Path) -> None:
    with begun(run):
        pass
    assert not list(tmp_path.iterdir())


def test_a_claim_without_heartbeat_is_taken_over_and_its_holder_gives_way(run: Run, no_locks: None) -> None:
    first = begun(run)
    first.append({"step": 1})
    long_ago = time.time() - runs.MISSED * runs.HEARTBEAT - 60
    os.utime(run.folder / "claim", (long_ago, long_ago))
    with Run(run.folder).open() as second:
        assert second.claimed
        refused("run_locked", lambda: first.append({"step": 2}), "taken over by another process")
        first.close()
        second.append({"step": 2})
        assert (run.folder / "claim").exists()
    assert [row["step"] for row in run.rows()] == [1, 2] and not (run.folder / "claim").exists()


def test_a_heart_beats(run: Run, no_locks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "HEARTBEAT", 0.01)
    with begun(run):
        os.utime(run.folder / "claim", (0, 0))
        deadline = time.monotonic() + 30
        while (run.folder / "claim").stat().st_mtime < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        run.append({"step": 1})


def test_a_lock_that_fails_for_another_reason_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(runs.fcntl, "flock", refuse)
    refused("io", run.open, "cannot be locked")
