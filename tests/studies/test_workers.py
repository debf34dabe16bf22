"""test_workers.py: cells in processes of their own: whatever is killed, every cell is done once, and nobody is left."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from mixcli.cli import main
from mixcli.errors import UserError
from mixcli.runs import Run
from mixcli.studies import design, workers, written
from tests.studies import study_trials
from tests.studies.study import Here, digests, write
from tests.studies.study_trials import CELLS, STUDY, at_work, ended, finished, orphans, start, until

CRASH = """
import os, signal, sys
def crash(event, args):
    if event == "open" and str(args[0]).endswith("metrics.jsonl") and args[2] & os.O_APPEND:
        if "-mixup-s0-" in args[0]:
            print("the last words", file=sys.stderr, flush=True)
            os._exit(41)
        if "-mixup-s1-" in args[0]:
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
sys.addaudithook(crash)
"""


def test_a_study_killed_whole_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch) -> None:
    """The other one, left alone, runs in this process: the tables do not tell which engine made the runs."""

    def alone(folder: Path) -> None:
        folder.mkdir()
        monkeypatch.chdir(folder)
        monkeypatch.setattr(workers, "Local", Here)
        assert main(["ablate", write(STUDY), "--quiet"]) == 0

    study_trials.trial(tmp_path, kills=2, left_alone=alone)


def test_a_crash_or_kill_of_a_worker_costs_one_cell(tmp_path: Path) -> None:
    hook, folder = tmp_path / "hook", tmp_path / "study"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(CRASH)
    code, told = ended(start(folder, environment={"PYTHONPATH": str(hook)}))
    assert code == 5, told
    assert "mixup seed=0  failed (worker_died): worker: the process ended with exit code 41" in told
    assert "    the last words\n" in told
    assert "mixup seed=1  failed (worker_died): worker: the process was killed by SIGKILL" in told
    assert "2 of 6 cells failed" in told.splitlines()[-1] and len(finished(folder)) == CELLS - 2
    [failed] = (folder / "runs").glob("digits-small-mixup-s0-*")
    error = json.loads(Run(failed).error.read_text())
    assert error["kind"] == "worker_died" and error["last"] == ["the last words"]
    assert (folder / "studies/small/table.md").exists() and not orphans(folder)


def test_processes_share_a_study_and_take_over_from_one_that_was_killed(tmp_path: Path) -> None:
    processes = [start(tmp_path) for _ in range(3)]
    until(lambda: at_work(tmp_path), "no cell was begun")
    processes[0].kill()
    ended(processes[0])
    told = []
    for process in processes[1:]:
        code, lines = ended(process)
        assert code == 0, lines
        told += [line for line in lines.splitlines() if line.endswith((" s", " left")) and "another" not in line]
    assert len(finished(tmp_path)) == CELLS and not orphans(tmp_path)
    names = [line.split("  ")[1].strip() for line in told]
    assert len(names) == len(set(names)), "a cell was done twice"
    first = digests(tmp_path / "studies/small")
    assert ended(start(tmp_path, "--report"))[0] == 0 and digests(tmp_path / "studies/small") == first


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.stress), (signal.SIGUSR1, 75)],
)
def test_a_signal_saves_the_cells_at_work_and_the_same_command_goes_on(number, code, tmp_path: Path) -> None:
    process = start(tmp_path, "--set", "base.epochs=100000")
    until(lambda: at_work(tmp_path), "no cell was begun")
    process.send_signal(number)
    found, told = ended(process)
    assert found == code and "Continue: mixcli ablate small.toml" in told.splitlines()[-1], told
    [saved] = at_work(tmp_path)
    run = Run(saved.parent)
    assert not run.busy() and not run.error.exists() and not orphans(tmp_path)


def test_what_no_cell_could_start_with_is_refused_before_the_first_run(tmp_path: Path) -> None:
    code, told = ended(start(tmp_path, "--set", "arms.mixup.method=manifold", "--set", "arms.mixup.stages=layer9"))
    assert code == 2, told
    assert told.startswith("mixcli ablate: error: --set arms.mixup.stages: ") and len(told.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_ends_the_study_with_what_is_done_kept(tmp_path: Path) -> None:
    write(STUDY, str(tmp_path / "small.toml"))
    study = design.read(written.Typed(str(tmp_path / "small.toml")), {"runs": str(tmp_path / "runs")}, {})
    told: list[workers.Ended] = []
    queue, worker = workers.Queue(study.first_cells(), told.append), Stub()
    worker.cell = queue.take()
    event = {"state": "failed", "seconds": 1.0, "kind": "disk_full", "message": "run.ckpt: no space left", "last": []}
    with pytest.raises(UserError, match="no space left") as caught:
        workers.Local(("cpu",))._end(worker, queue, event)  # pyright: ignore[reportArgumentType]
    assert caught.value.exit_code == 1 and [ended.state for ended in told] == ["failed"]


class Stub:
    """As much of a worker as an event needs."""

    cell = None


NO_LOCKS = """
import errno, fcntl
def flock(descriptor, operation):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


@pytest.mark.stress
def test_processes_share_a_study_where_the_file_system_has_no_locks(tmp_path: Path) -> None:
    hook, folder = tmp_path / "hook", tmp_path / "study"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(NO_LOCKS)
    processes = [start(folder, environment={"PYTHONPATH": f"{hook}:{os.environ.get('PYTHONPATH', '')}"}) for _ in "ab"]
    done = []
    for process in processes:
        code, told = ended(process)
        assert code == 0 and "no kernel locks here, claim files used" in told, told
        done += [line for line in told.splitlines() if line.endswith((" s", " left")) and "another" not in line]
    assert len(done) == CELLS == len(finished(folder)) and not list(folder.rglob("claim"))


@pytest.mark.stress
def test_ten_kills_of_a_whole_study(tmp_path: Path) -> None:
    study_trials.trial(tmp_path, kills=10, seed=1)


@pytest.mark.stress
def test_ten_kills_of_one_of_three_processes(tmp_path: Path) -> None:
    study_trials.trial(tmp_path, kills=10, together=3, seed=2)
