"""test_ablation.py: cells are ordinary runs, done once; the plan is kept, and the report counts what failed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from mixcli.cli import main
from mixcli.engine import timing, training
from mixcli.errors import UserError
from mixcli.runs import Run
from mixcli.studies import ablation, budget, design, workers
from mixcli.studies.written import Typed
from tests.studies.study import ARMS, TINY, Here, digests, write

pytestmark = pytest.mark.usefixtures("here")

CHOOSE = TINY + ARMS + "[choose.mixup]\nalpha = [0.2, 1.0]\nval_fraction = 0.2\nseeds = [100]\n"
FOLDER = Path("studies/small")
WORDS = ["--per-class", "6", "--batch", "20", "--width", "2", "--epochs", "2", "--threads", "1", "--quiet"]


def failing(monkeypatch: pytest.MonkeyPatch, seed: int, error: Exception) -> None:
    """Runs of `mixup` with this seed end in `error` after the first epoch."""
    train = training.train

    def broken(settings: Any, run: Run, *args: Any, **others: Any) -> Any:
        if settings.method.name == "mixup" and settings.seed == seed:
            others["begin"]()
            run.append({"epoch": 1, "step": 1})
            raise error
        return train(settings, run, *args, **others)

    monkeypatch.setattr(training, "train", broken)


def study(text: str = TINY + ARMS, **typed: Any) -> design.Design:
    return design.read(Typed(write(text), **typed), {}, {})


def ablate(*words: str) -> int:
    return main(["ablate", write() if not Path("small.toml").exists() else "small.toml", *words])


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


# -- running ------------------------------------------------------------------------------------------------------


def test_a_study_runs_its_cells_once_and_reports_them(capsys) -> None:
    assert ablate() == 0
    out, err = capsys.readouterr()
    assert "mixup - none: pilot (n = 2)" in " ".join(out.split()) and "no claim" in " ".join(out.split())
    assert Here.ran == ["none seed=0", "mixup seed=0", "none seed=1", "mixup seed=1"]
    lines = err.splitlines()
    assert len(lines) == 4 and re.match(r"1/4  none seed=0  test [0-9.]+ %  [0-9.]+ s  about [0-9]+ s left", lines[0])
    before = digests(FOLDER)
    assert ablate() == 0
    assert capsys.readouterr().err == "4 of 4 cells were done before\n" and len(Here.ran) == 4
    assert digests(FOLDER) == before
    (FOLDER / "table.md").unlink()
    assert ablate("--report") == 0 and digests(FOLDER) == before


def test_a_study_leaves_latest_alone_and_shares_its_cells_with_train_and_other_studies() -> None:
    words = WORDS
    assert main(["train", *words]) == 0
    latest = Path("runs/latest").read_text()
    assert ablate() == 0 and Here.ran == ["mixup seed=0", "none seed=1", "mixup seed=1"]
    assert Path("runs/latest").read_text() == latest
    write(
        TINY.replace("small", "second") + '[arms.plain]\nmethod = "none"\n[arms.b]\nmethod = "cutmix"\n', "second.toml"
    )
    assert main(["ablate", "second.toml"]) == 0
    assert Here.ran[3:] == ["b seed=0", "b seed=1"]
    assert (
        main(["train", *words, "--seed", "1", "--method", "mixup"]) == 0
        and len(list(Path("runs").glob("digits*"))) == 6
    )


def test_a_cell_has_the_bits_of_the_same_run_alone(tmp_path) -> None:
    assert ablate() == 0
    assert main(["train", *WORDS, "--method", "mixup", "--seed", "1", "--runs", "alone"]) == 0
    [alone] = Path("alone").glob("digits*")
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in Run(folder).rows()]
            for folder in (alone, Path("runs") / alone.name)]  # fmt: skip
    assert rows[0] == rows[1]


def test_the_state_of_every_cell_is_told(capsys, monkeypatch) -> None:
    failing(monkeypatch, 1, UserError("diverged", "step 3", "loss not finite"))
    assert ablate() == 5
    capsys.readouterr()
    done, incomplete = sorted(Path("runs").glob("digits-small-none*"))
    Run(incomplete).result.unlink()
    Run(done).metrics.write_text(Run(done).metrics.read_text().replace("0.", "1.", 1))
    [mixed] = Path("runs").glob("digits-small-mixup-s0*")
    Run(mixed).result.unlink()
    with Run(mixed):
        states = {c.name: ablation.state(c) for c in study().first_cells()}
    assert states == {"none seed=0": "edited", "none seed=1": "incomplete", "mixup seed=0": "running",
                      "mixup seed=1": "failed"}  # fmt: skip
    assert ablate("--status", "--json") == 0
    found = result(capsys)["result"]
    assert found["states"] == {"done": 0, "running": 0, "incomplete": 2, "failed": 1, "missing": 0, "edited": 1}
    assert found["failed"][0]["kind"] == "diverged" and found["failed"][0]["cell"] == "mixup seed=1"
    assert ablate("--status") == 0
    out = capsys.readouterr().out
    assert "mixup seed=1: step 3: loss not finite" in out and "edited" in out


# -- failures -----------------------------------------------------------------------------------------------------


def test_a_diverged_cell_is_a_result_that_stays_until_it_is_retried(capsys, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        failing(patch, 1, UserError("diverged", "step 3", "loss not finite"))
        assert ablate() == 5
        out, err = capsys.readouterr()
        assert "1 of 2" in out and "mixup" in out
        assert "mixup seed=1  failed (diverged): step 3: loss not finite" in err
        last = "mixcli ablate: error: small: 1 of 4 cells failed: mixup seed=1 (diverged). --retry starts them again"
        assert err.splitlines()[-1] == last
        assert ablate("--json") == 5
        document = result(capsys)
        assert document["error"]["kind"] == "failed_cells" and not document["ok"] and document["exit_code"] == 5
        assert document["result"]["failed"][0]["cell"] == "mixup seed=1" and document["result"]["report"]["arms"]
        assert Here.ran.count("mixup seed=1") == 1
    assert ablate() == 5
    assert ablate("--retry") == 0 and Here.ran.count("mixup seed=1") == 2
    assert "failed" not in capsys.readouterr().err.splitlines()[-1]
    assert not list(Path("runs").glob("*/error.json"))


def test_an_unexpected_error_costs_one_cell_and_leaves_its_last_lines(capsys, monkeypatch) -> None:
    failing(monkeypatch, 0, ZeroDivisionError("by zero"))
    assert ablate() == 5
    err = capsys.readouterr().err
    assert (
        "mixup seed=0  failed (internal): ZeroDivisionError: by zero" in err and "    ZeroDivisionError: by zero" in err
    )
    [folder] = Path("runs").glob("digits-small-mixup-s0*")
    error = json.loads((folder / "error.json").read_text())
    assert error["kind"] == "internal" and error["last"][-1] == "ZeroDivisionError: by zero"


def test_a_cell_whose_every_run_fails_leaves_the_table_of_the_rest(capsys, monkeypatch) -> None:
    failing(monkeypatch, 0, MemoryError())
    assert ablate("--seeds", "1") == 5
    out, err = capsys.readouterr()
    assert "0 of 1" in out and "out of memory" in err
    monkeypatch.undo()


def test_an_edited_run_is_a_data_error(capsys) -> None:
    assert ablate() == 0
    [folder] = Path("runs").glob("digits-small-none-s0*")
    log = Run(folder).metrics
    log.write_text(log.read_text().replace('"lr": 0.', '"lr": 1.', 1))
    capsys.readouterr()
    assert ablate("--report") == 3
    assert f"run {folder.name[-12:]}: digest differs" in capsys.readouterr().err


def test_a_log_whose_last_line_was_cut_is_a_warning_and_a_deleted_run_is_done_again(capsys) -> None:
    assert ablate() == 0
    [folder] = Path("runs").glob("digits-small-none-s0*")
    log = Run(folder).metrics
    log.write_bytes(log.read_bytes()[:-5])
    capsys.readouterr()
    assert ablate("--report") == 0
    assert "incomplete, dropped" in capsys.readouterr().err
    before = digests(FOLDER)["runs.csv"]
    for path in sorted(folder.rglob("*")):
        path.unlink()
    folder.rmdir()
    assert ablate() == 0 and Here.ran[-1] == "none seed=0"
    assert before  # the run is there again, counted once
    assert len((FOLDER / "runs.csv").read_text().splitlines()) == 5


# -- stopping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR1", 75)])
def test_a_stop_ends_with_its_code_and_the_command_to_go_on(kind, code, capsys, monkeypatch) -> None:
    import signal

    def stop_at_the_third(cell: Any, stop: Any) -> None:
        if len(Here.ran) == 2:
            os.kill(os.getpid(), signal.Signals[kind])

    monkeypatch.setattr(Here, "before", staticmethod(stop_at_the_third))
    assert ablate() == code
    out, err = capsys.readouterr()
    line = f"mixcli ablate: small: stopped by {kind}; 2 of 4 cells done. Continue: mixcli ablate small.toml"
    assert out == "" and err.splitlines()[-1] == line
    monkeypatch.setattr(Here, "before", staticmethod(lambda cell, stop: None))
    assert ablate() == 0 and Here.ran.count("none seed=1") == 2


def test_the_clock_stops_a_study_for_requeueing(capsys, monkeypatch) -> None:
    monkeypatch.setattr(Here, "before", staticmethod(lambda cell, stop: setattr(stop, "deadline", 0.0)))
    assert ablate("--stop-after", "3h") == 75
    assert "stopped by --stop-after; 0 of 4 cells done" in capsys.readouterr().err


def test_a_cell_that_another_process_holds_is_told_skipped_and_looked_at_again(capsys, monkeypatch) -> None:
    held = study().first_cells()[0].job.run
    with held:  # as by another process
        Path(held.folder, "settings.toml").write_text("seed = 0\n")

        def before(cell: Any, stop: Any) -> None:
            if len(Here.ran) == 2:
                held.settings.unlink()
                held.close()

        monkeypatch.setattr(Here, "before", staticmethod(before))
        assert ablate() == 0
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "none seed=0  busy in another process, skipped, looked at again at the end"
    assert Here.ran == ["mixup seed=0", "none seed=1", "mixup seed=1", "none seed=0"] and len(err) == 5


def test_a_cell_that_another_process_ends_is_told_as_its_own(capsys) -> None:
    told: list[str] = []
    cell, tally = study().first_cells()[0], ablation.Tally(4, 1, told.append)
    with cell.job.run as run:
        run.begin("seed = 0\n")
        run.finish({"accuracy": 0.5})
    tally.end(workers.Ended(cell, "busy"))
    tally.end(workers.Ended(cell, "done", adopted=True))
    assert told[1] == "1/4  none seed=0  test 50.00 %  done by another process" and tally.ended == 1


# -- the plan -----------------------------------------------------------------------------------------------------


def test_another_plan_is_refused_unless_it_extends_the_first_and_says_so(capsys) -> None:
    assert ablate() == 0
    plan = (FOLDER / "plan.json").read_bytes()
    assert "post hoc" not in capsys.readouterr().out
    for words, difference in (
        (["--seeds", "3"], "seeds of none 0, 1 vs 0, 1, 2"),
        (["--set", "base.width=3"], "width of none 2 vs 3"),
        (["--baseline", "mixup"], "baseline none vs mixup"),
    ):
        for more in ([], ["--dry-run"], ["--status"], ["--report"]):
            assert ablate(*words, *more) == 2
            err = capsys.readouterr().err
            assert err.startswith(f"mixcli ablate: error: plan of small: {difference}. Use --extend")
    assert (FOLDER / "plan.json").read_bytes() == plan and len(Here.ran) == 4
    assert ablate("--seeds", "3", "--extend") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "post hoc: the plan was changed after runs had ended (seeds of none 0, 1 vs 0, 1, 2)" in out
    assert ablate("--seeds", "3", "--report") == 0
    assert "post hoc" in capsys.readouterr().out and "post hoc" in (FOLDER / "table.md").read_text()


def test_a_plan_changed_before_any_run_ended_is_not_post_hoc(capsys) -> None:
    ablation.keep_plan(study(), FOLDER)
    assert ablate("--seeds", "1", "--extend") == 0
    assert "post hoc" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "not a plan"), ("[]", "not a plan"), ('{"format": 2}', "of another format; got 2, expected 1"),
     ('{"format": 1}', "not a whole plan")],
)  # fmt: skip
def test_a_damaged_plan_or_one_of_another_format_is_a_data_error(content, words, capsys) -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / "plan.json").write_text(content)
    assert ablate() == 3
    assert words in capsys.readouterr().err and Here.ran == []


def test_the_plan_is_made_by_one_of_many() -> None:
    one, two = study(), study(seeds="3")
    assert ablation.keep_plan(one, FOLDER).post_hoc == ""
    with pytest.raises(UserError, match="seeds of none"):
        ablation.keep_plan(two, FOLDER)
    assert ablation._create(FOLDER / "plan.json", b"{}") is False
    assert json.loads((FOLDER / "plan.json").read_bytes())["digest"] == one.document()["digest"]
    assert [path.name for path in FOLDER.iterdir()] == ["plan.json"]


def test_a_dry_run_tells_cells_time_and_power_and_makes_nothing(capsys) -> None:
    assert ablate("--dry-run", "--json") == 0
    plan = result(capsys)["result"]
    assert (plan["cells"], plan["done"], plan["to_do"], plan["hours"]) == (4, 0, 4, None)
    assert [gap["gap"] for gap in plan["power"]["gaps"]] == [0.63, 0.5, 0.3] and not Path("runs").exists()
    assert ablate("--seeds", "1") == 0
    capsys.readouterr()
    assert ablate("--dry-run", "--json", "--extend") == 0
    plan = result(capsys)["result"]
    assert (plan["done"], plan["to_do"]) == (2, 2) and plan["hours"] is not None
    assert ablate("--dry-run", "--extend", "--devices", "cpu:1") == 0
    out = capsys.readouterr().out
    assert "each arm against none" in out and "2 runs per arm" in out and "nothing was started" in out


@pytest.mark.parametrize(
    ("seeds", "said", "unsaid"),
    [
        ("1", ["one run per arm shows that every arm trains", "cannot show which method is better",
               "in 80 % of cases, if the SD of each arm is 0.4 points: 8 for 0.63 points"], ["power with", "\u2013,"]),
        ("4", ["power with 4 runs per arm", "a pilot: no claim is made below 5 runs per arm"], ["one run per arm"]),
        ("5", ["power with 5 runs per arm"], ["one run per arm", "a pilot"]),
    ],
)  # fmt: skip
def test_a_dry_run_says_what_so_few_seeds_can_show(seeds, said, unsaid, capsys) -> None:
    assert ablate("--dry-run", "--seeds", seeds) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert all(words in out for words in said), out
    assert not any(words in out for words in unsaid), out


def test_time_and_disk_of_a_dry_run_are_measured_or_unknown_and_never_guessed(capsys) -> None:
    assert ablate("--dry-run", "--json") == 0
    plan = result(capsys)["result"]
    assert plan["hours"] is plan["bytes"] is None and plan["measured"] == []
    assert ablate("--dry-run") == 0
    assert "time and disk unknown: no finished runs" in " ".join(capsys.readouterr().out.split())
    assert ablate("--dry-run", "--measure", "--json") == 0
    measured = result(capsys)["result"]
    assert measured["measured"] == ["none seed=0", "mixup seed=0"] and 0 < measured["hours"] < 0.1
    assert [path.name for path in Path().iterdir()] == ["small.toml"]
    assert ablate("--seeds", "1") == 0
    kept = sum(path.stat().st_size for path in Path("runs").rglob("*.ckpt"))
    capsys.readouterr()
    assert ablate("--dry-run", "--seeds", "3", "--extend", "--measure", "--json") == 0
    after = result(capsys)["result"]
    assert after["measured"] == [] and after["bytes"] == 2 * kept  # two runs are done, four to do
    assert measured["bytes"] == pytest.approx(2 * kept, rel=0.02)


def test_what_is_measured_is_the_plain_step_of_the_cell_on_the_clock(monkeypatch) -> None:
    [cell] = [c for c in study().first_cells() if c.name == "mixup seed=1"]
    made: list[int] = []
    step = training.Training.step
    monkeypatch.setattr(training.Training, "step", lambda self, *a: (made.append(self.state.step), step(self, *a)))
    monkeypatch.setattr(timing, "wall_of", lambda device: lambda: float(len(made)))
    assert budget.measured(cell, "cpu")[0] == 1.0 and made == list(range(25))


# -- choices ------------------------------------------------------------------------------------------------------


def test_a_value_is_chosen_on_validation_with_seeds_of_its_own(capsys) -> None:
    write(CHOOSE)
    assert ablate("--dry-run") == 0
    assert "1 arms follow once their value is chosen: mixup, 2 cells" in capsys.readouterr().out
    assert ablate() == 0
    out, err = capsys.readouterr()
    assert sorted(Here.ran[:4]) == [
        "mixup alpha=0.2 seed=100",
        "mixup alpha=1.0 seed=100",
        "none seed=0",
        "none seed=1",
    ]
    assert Here.ran[4:] == ["mixup seed=0", "mixup seed=1"]
    choice = study(CHOOSE).choices[0]
    best = ablation.chosen(choice)
    means = {o.value: (o.trial.cells[0].job.run.finished() or {})["val"]["accuracy"] for o in choice.options}
    assert best is not None and means[best.value] == max(means.values())
    assert f"mixup: {best.value}, chosen among 2 on validation images, 1 runs each" in " ".join(out.split())
    assert "val " in err and ablate() == 0 and len(Here.ran) == 6


def test_an_option_that_diverged_is_not_chosen(capsys, monkeypatch) -> None:
    write(CHOOSE)
    train = training.train

    def broken(settings: Any, run: Run, *args: Any, **others: Any) -> Any:
        if settings.val_fraction and settings.method.alpha == 0.2:
            others["begin"]()
            run.append({"epoch": 1, "step": 1})
            raise UserError("diverged", "step 1", "loss not finite")
        return train(settings, run, *args, **others)

    monkeypatch.setattr(training, "train", broken)
    assert ablate() == 5
    assert "mixup: alpha=1.0, chosen among 2" in " ".join(capsys.readouterr().out.split())


def test_equal_options_go_to_the_first() -> None:
    choice = study(CHOOSE).choices[0]
    for option in choice.options:
        with option.trial.cells[0].job.run as run:
            run.begin("seed = 100\n")
            run.finish({"val": {"accuracy": 0.5}})
    best = ablation.chosen(choice)
    assert best is not None and best.value == "alpha=0.2"


# -- order --------------------------------------------------------------------------------------------------------


def test_the_longest_cells_come_first() -> None:
    text = TINY + ARMS + '[arms.long]\nmethod = "none"\nepochs = 4\n'
    cells = ablation.longest_first(study(text).first_cells(), Path("runs"))
    assert [c.name for c in cells[:2]] == ["long seed=0", "long seed=1"]
    assert [c.name for c in cells[2:]] == ["none seed=0", "mixup seed=0", "none seed=1", "mixup seed=1"]
