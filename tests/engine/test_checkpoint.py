"""A checkpoint is whole or refused, and there is one at every moment (G06 to G11, K01 to K04)."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import zipfile
from datetime import datetime
from pathlib import Path

import pytest
import torch

from mixcli import files
from mixcli.engine import checkpoint
from mixcli.errors import UserError
from mixcli.runs import Run
from tests.engine import harness


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return harness.run_through(tmp_path_factory.mktemp("made"), harness.settings(epochs=1, ema=0.9, keep="1"))


def refusal(path: Path, resume: bool = True) -> UserError:
    with pytest.raises(UserError) as caught:
        checkpoint.load(path, resume=resume)
    assert str(path) in str(caught.value)
    return caught.value


def test_k01_missing_and_a_directory(tmp_path):
    assert refusal(tmp_path / "no.ckpt").exit_code == 3
    assert "is a directory" in str(refusal(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"\x89PNG\r\n\x1a\n" + b"0" * 100, b'{"a": 1}', b"PK\x05\x06" + b"\0" * 18, b"PK\x03\x04garbage"],
    ids=["empty", "text", "png", "json", "empty zip", "broken zip"],
)
def test_k02_what_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "run.ckpt"
    path.write_bytes(content)
    error = refusal(path)
    assert error.kind == "checkpoint_corrupt" and "damaged" in str(error)


def test_k02_every_truncation_and_bit_flip_is_refused_or_harmless(tmp_path, made):
    data, rng = made.run.checkpoint.read_bytes(), random.Random(0)
    good = harness.tensors(checkpoint.read(made.run.checkpoint))
    path = tmp_path / "run.ckpt"
    for _ in range(60):
        path.write_bytes(data[: rng.randrange(len(data))])
        assert refusal(path).exit_code == 3
    refused = 0
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            found = harness.tensors(checkpoint.read(path))
            assert found.keys() == good.keys() and all(torch.equal(found[k], good[k]) for k in good)
        except UserError as error:
            assert error.exit_code == 3
            refused += 1
    assert refused > 40


def test_k02_a_damaged_file_names_the_intact_one_before_it(tmp_path):
    run = harness.run_through(tmp_path, harness.settings(epochs=2)).run
    run.checkpoint.write_bytes(run.checkpoint.read_bytes()[:-100])
    assert "previous.ckpt (step 6) is intact, use --allow-previous" in str(refusal(run.checkpoint))
    assert f"previous.ckpt (step 6) is intact, give {run.previous}" in str(refusal(run.checkpoint, resume=False))
    run.best.write_bytes(b"cut")
    assert f"previous.ckpt (step 6) is intact, give {run.previous}" in str(refusal(run.best))


def test_a_damaged_file_without_another_is_trained_again(tmp_path, made):
    shutil.copy(made.run.settings, tmp_path)
    run = Run(tmp_path)
    run.checkpoint.write_bytes(b"cut")
    advice = f"No other is intact; train it again: mixcli train --config {run.settings} --overwrite"
    for path in (run.checkpoint, run.epochs / "epoch-0001.ckpt"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"cut")
        for resume in (True, False):
            assert refusal(path, resume).hint == advice and refusal(path, resume).exit_code == 3
    run.lineage.write_text("0123456789ab\n")
    assert refusal(run.checkpoint).hint == "No other is intact; extend run 0123456789ab again, with --overwrite"
    run.settings.unlink()
    assert refusal(run.checkpoint).hint == "Give another checkpoint, or a whole copy of this one"


def test_k03_code_in_a_checkpoint_is_not_run(tmp_path):
    marker = tmp_path / "marker"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    path = tmp_path / "run.ckpt"
    torch.save({"format": 1, "net": Attack()}, path)
    error = refusal(path)
    assert error.kind == "refused_unsafe" and "posix.system" in str(error) and not marker.exists()
    path.write_bytes(pickle.dumps(Attack()))
    assert refusal(path).exit_code == 3 and not marker.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": checkpoint.FORMAT + 8}, "newer than"),
        ({"format": None}, "field format missing"),
        ({"optimizer": ...}, "field optimizer missing"),
        ({"net": ...}, "field net missing"),
        ({"data": {}}, "field normalisation missing"),
        ({"kind": "weights"}, "weights only, not a resume source"),
    ],
)
def test_k04_a_missing_or_newer_field_is_named(tmp_path, made, change, words):
    content = {**checkpoint.read(made.run.checkpoint), **change}
    path = tmp_path / "run.ckpt"
    path.write_bytes(checkpoint.serialise({k: v for k, v in content.items() if v is not ...}))
    assert words in str(refusal(path))


def test_every_file_written_reloads_and_holds_plain_types_only(made):
    for path in (made.run.checkpoint, made.run.epochs / "epoch-0001.ckpt"):
        content = checkpoint.load(path)

        def check(value):
            assert type(value) in (torch.Tensor, str, int, float, bool, type(None), list, dict), type(value)
            for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
                check(inner)

        check({k: dict(v) if hasattr(v, "items") else v for k, v in content.items()})


def test_foreign_types_would_not_survive_the_restricted_loader(tmp_path):
    """What the plain-types rule is for."""
    path = tmp_path / "x.ckpt"
    path.write_bytes(checkpoint.serialise({"format": 1, "when": datetime(2026, 1, 1)}))
    assert refusal(path).kind == "refused_unsafe"


def test_kept_epochs_hold_the_weights_of_their_epoch(tmp_path):
    run = harness.run_through(tmp_path, harness.settings(epochs=4, keep="every:2")).run
    assert sorted(p.name for p in run.epochs.iterdir()) == ["epoch-0002.ckpt", "epoch-0004.ckpt"]
    last, kept = checkpoint.load(run.checkpoint)["net"], checkpoint.load(run.epochs / "epoch-0004.ckpt")["net"]
    assert all(torch.equal(last[k], kept[k]) for k in last)


def test_previous_is_the_checkpoint_before_the_newest(tmp_path):
    run = harness.run_through(tmp_path, harness.settings(epochs=3)).run
    assert checkpoint.load(run.checkpoint)["step"] == 18 and checkpoint.load(run.previous)["step"] == 12


FAULTS = ["open", "write", "fsync", "link", "replace"]


@pytest.mark.parametrize("call", FAULTS)
@pytest.mark.parametrize("how", ["kill", "full", "io"])
def test_g07_a_fault_at_any_call_of_a_save_leaves_a_loadable_checkpoint(tmp_path, call, how):
    """Every n-th call of each system call in a child process; the parent then loads what is there."""
    run = harness.run_through(tmp_path, harness.settings(epochs=1)).run
    content = {**checkpoint.load(run.checkpoint), "step": 999}
    for nth in (1, 2):
        child = os.fork()
        if child == 0:
            _save_with_fault(run, content, call, how, nth)
        os.waitpid(child, 0)
        assert checkpoint.load(run.checkpoint, resume=True)["step"] in (6, 999)
    with run.open():
        assert not [p for p in run.folder.iterdir() if files.TEMPORARY.fullmatch(p.name)]


def _save_with_fault(run, content, call, how, nth):
    import errno

    real, count = getattr(os, call, None), 0

    def faulty(*args, **kwargs):
        nonlocal count
        count += 1
        if count == nth:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC if how == "full" else errno.EIO, "planted")
        return real(*args, **kwargs)

    setattr(os, call, faulty)
    try:
        checkpoint.save(run, content)
    except (UserError, OSError):
        pass
    finally:
        os._exit(0)


def test_g06_kill_9_at_random_moments_never_costs_the_newest_checkpoint(tmp_path):
    """The trials fork from a process of their own: autograd does not survive a fork of one that has used it."""
    done = subprocess.run([sys.executable, "-m", "tests.engine.kill_trials", str(tmp_path), "25"],
                          cwd=Path(__file__).parents[2], capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 25


def test_the_archive_really_has_the_checksums_that_are_checked(made):
    with zipfile.ZipFile(io.BytesIO(made.run.checkpoint.read_bytes())) as archive:
        assert all(info.CRC for info in archive.infolist() if info.file_size)
    json.dumps(checkpoint.load(made.run.checkpoint)["settings"])  # plain enough for JSON too


def test_a_save_after_a_kill_between_its_two_renames_leaves_no_temporary(tmp_path):
    """Until the new run.ckpt is there, it and previous.ckpt are two names of one file."""
    run = Run(tmp_path / "digits-small-none-s0-0123456789ab")
    run.folder.mkdir()
    run.checkpoint.write_bytes(b"one")
    os.link(run.checkpoint, run.previous)
    checkpoint.save(run, {"step": 2})
    assert run.previous.read_bytes() == b"one" and checkpoint.read(run.checkpoint)["step"] == 2
    assert {path.name for path in run.folder.iterdir()} == {"run.ckpt", "previous.ckpt"}
