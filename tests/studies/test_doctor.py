"""doctor: a healthy machine is found healthy, and each thing that is broken is told with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mixcli import own_code
from mixcli.cli import main
from mixcli.data import folders
from mixcli.errors import UserError
from mixcli.recipe import Train
from mixcli.studies import doctor
from tests.image_folders import food_101


def looked(part: str, **settings) -> dict[str, doctor.Finding]:
    return {found.name: found for found in doctor.PARTS[part](Train(**settings))}


def test_this_machine_is_healthy_and_nothing_is_left_behind(folder, capsys):
    assert main(["doctor", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    states = {found["name"]: found["state"] for found in result["findings"]}
    assert result["healthy"] and {f["part"] for f in result["findings"]} >= set(doctor.PARTS) - {"packages"}
    assert {states[name] for name in ("python", "torch", "digits", "runs", "smoke train", "determinism")} == {"fine"}
    assert states["cifar10"] == "note" and not list(folder.iterdir())


def test_data_sets_that_are_not_here_share_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "PARTS", {"data": doctor.PARTS["data"]})
    assert main(["doctor"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("not found") == 1 and "not found: cifar10, cifar100, svhn," in out
    assert "mixcli data fetch NAME" in out and "data digits ok" in out


def test_what_is_broken_is_told_with_what_to_do_and_exit_code_1(folder, capsys, monkeypatch):
    (folder / "cifar10.npz").write_bytes(b"no archive")
    (folder / "file").write_text("")
    monkeypatch.setattr(doctor, "PARTS", {name: doctor.PARTS[name] for name in ("data", "writing")})
    assert main(["doctor", "--data-dir", ".", "--runs", "file/runs"]) == 1
    out, err = capsys.readouterr()
    assert "BROKEN" in out and "cifar10.npz" in out
    assert err.startswith("mixcli doctor: error: doctor: 2 broken: cifar10, runs. ") and err.count("\n") == 1


def test_settings_of_training_and_a_small_memory_break_no_data(folder, monkeypatch):
    food_101(folder)
    monkeypatch.setattr(folders.os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 2**10)
    found = looked("data", resize=32, normalise="imagenet", data_dir=str(folder))
    assert found["digits"].state == "fine"
    assert found["food-101"].state == "warning" and "GiB of memory" in found["food-101"].told
    assert {f.state for name, f in found.items() if name not in ("digits", "food-101")} == {"note"}


def test_a_folder_that_cannot_be_written_to_is_told_once(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(doctor, "write_atomic", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    monkeypatch.setattr(doctor, "PARTS", {"writing": doctor.PARTS["writing"]})
    [found] = doctor.examine(Train())
    assert found.state == "broken" and found.advice == "Give --runs a folder that can be written to"


def test_the_trainings_are_as_deterministic_as_the_setting_promises(monkeypatch):
    made, settings = doctor.job.new, []
    monkeypatch.setattr(doctor.job, "new", lambda gathered: settings.append(gathered.train) or made(gathered))
    looked("training", device="cpu", deterministic=False)
    assert [train.deterministic for train in settings] == [False, False]


def test_a_part_that_fails_is_a_finding_and_the_others_go_on(folder, monkeypatch):
    def fails(train):
        raise RuntimeError("first line\nsecond")

    monkeypatch.setattr(doctor, "PARTS", {"machine": fails, "writing": doctor.PARTS["writing"]})
    found = doctor.examine(Train())
    assert found[0].state == "broken" and found[0].told.startswith("RuntimeError: first line (test_doctor.py line ")
    assert found[1].name == "runs" and found[1].state == "fine"


def test_the_home_folder_is_not_told(folder, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: folder)
    monkeypatch.setattr(doctor, "PARTS", {"data": doctor.PARTS["data"]})
    told = json.dumps(doctor.document(doctor.examine(Train(data_dir=str(folder / "sets")))))
    assert str(folder) not in told and "~/sets/cifar10.npz" in told


def test_an_old_python_and_a_package_that_is_old_or_missing_are_broken(monkeypatch):
    monkeypatch.setattr(doctor, "OLDEST", (99, 0, 0))
    monkeypatch.setattr(
        doctor, "requires", lambda name: ["torch>=99", "no-such-package-at-all>=1", 'ruff>=99; extra == "test"']
    )
    found = looked("versions")
    assert {name: found[name].state for name in ("python", "torch", "no-such-package-at-all", "ruff")} == {
        "python": "broken", "torch": "broken", "no-such-package-at-all": "broken", "ruff": "warning"}  # fmt: skip
    assert found["torch"].advice == "pip install 'torch>=99'"


def test_more_threads_than_cores_are_a_warning(monkeypatch):
    assert looked("machine", threads=1000)["threads"].state == "warning"
    assert looked("machine", threads=1)["threads"].state == "fine"


def test_a_file_system_without_locks_is_a_warning(folder, monkeypatch):
    def refuse(*_):
        raise OSError("no locks")

    monkeypatch.setattr(doctor.fcntl, "flock", refuse)
    assert looked("writing")["locks"].state == "warning"


def test_trainings_that_end_with_other_bits_are_broken_on_a_cpu(monkeypatch):
    smoke, calls = doctor._smoke, []

    def differing(train):
        made = smoke(train) if not calls else calls[0]
        calls.append(made)
        return {**made, "net": {key: value + (len(calls) - 1) for key, value in made["net"].items()}}

    monkeypatch.setattr(doctor, "_smoke", differing)
    found = looked("training", device="cpu")
    assert found["smoke train"].state == "fine" and found["determinism"].state == "broken"


def test_a_training_that_learns_nothing_is_broken(monkeypatch):
    rows = [{"train": {"loss": loss}} for loss in (1.0, 2.0)]
    made = {"rows": rows, "net": {"w": torch.zeros(1)}, "steps": 24, "seconds": 1.0}
    monkeypatch.setattr(doctor, "_smoke", lambda train: made)
    assert looked("training")["smoke train"].state == "broken"


def test_a_package_that_cannot_be_imported_is_broken(monkeypatch):
    def failing(name, option):
        raise UserError("config", option, "striped of stripes 1.0 fails: ImportError: no")

    class Point:
        name, module, dist = "striped", "json", None

    monkeypatch.setattr(own_code, "offered", lambda kind: {"striped": (Point(),)} if kind == "mixings" else {})
    monkeypatch.setattr(own_code, "method", failing)
    found = looked("packages")["striped"]
    assert found.state == "broken" and "ImportError" in found.told and "a package" in found.advice
