"""test_cli.py: every call ends in an exit code, at most one line of error, and nothing that was not announced."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import mixcli.data
import mixcli.engine
import mixcli.studies
from mixcli import cli, options, toml
from mixcli.cli import main
from mixcli.errors import EXIT_CODES, UserError
from mixcli.recipe import Facts, Train
from mixcli.report import tables
from mixcli.runs import Run

FACTS = Facts("digits", images=100, test_images=36, classes=10, channels=1, size=(8, 8))
HOSTILE = "[/]\x1b[31m\u202e[bold]x"


class Library:
    """A stand-in for data and engine: `behave` is what training does."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.facts = FACTS
        self.refuse: Callable[[], None] = lambda: None  # before anything is written
        self.behave: Callable[[Run], None] = lambda run: None

    def look(self, train: Train) -> Facts:
        return self.facts

    def ready(self, settings: Train, run: Run, reporter: Any, stop: Any) -> None:
        self.refuse()

    def train(
        self, settings: Train, run: Run, reporter: Any, stop: Any, *, resume_from: Path | None, begin: Callable
    ) -> dict[str, Any]:
        call = {"settings": settings, "run": run, "resume_from": resume_from, "deadline": stop.deadline}
        self.calls.append(call)
        self.refuse()
        begin()
        self.behave(run)
        reporter.step(1, 2)
        reporter.epoch({"epoch": 1, "step": 2, "lr": 0.1, "train": {"loss": 0.5}, "test": {"accuracy": 0.9},
                        "seconds": 1.0})  # fmt: skip
        run.checkpoint.write_bytes(b"weights")
        return run.finish({
            "accuracy": 0.9, "accuracy_median_last10": 0.875, "evaluations": 10, "nll": 0.25, "split": "test",
            "dataset": settings.dataset, "test_images": 36, "train_images": 100, "epochs": settings.epochs, "steps": 2,
            "seconds": 75.0, "net": settings.net, "parameters": 1234567, "method": settings.method.label(), "seed": 0,
            "weights": "EMA", "precision": "fp32", "train": {"loss": 0.5, "accuracy": 0.9, "intra": float("nan")},
            "val": {"accuracy": 0.8, "images": 12}, "checkpoint": str(run.checkpoint),
        })  # fmt: skip


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Library:
    fake = Library()
    for package, name in ((mixcli.data, "sources"), (mixcli.engine, "training")):
        module: Any = types.ModuleType(f"{package.__name__}.{name}")
        module.look, module.train, module.ready = fake.look, fake.train, fake.ready
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(package, name, module, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return fake


def files() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def line_of(capsys: pytest.CaptureFixture[str], code: int, argv: list[str]) -> str:
    """The one line of an error, with nothing created."""
    before = files()
    assert main(argv) == code
    out, err = capsys.readouterr()
    assert out == "" or "--json" in argv
    assert err.endswith("\n") and len(err.splitlines()) == 1, err
    assert re.match(r"mixcli( \w+)?: ", err) and "Traceback" not in err
    assert files() == before
    return err.rstrip("\n")


def run_of(*argv: str) -> Run:
    """The run that these options name."""
    typed = dict(zip([a[2:].replace("-", "_") for a in argv[::2]], argv[1::2], strict=True))
    train = options.gather(typed, None, {}).train
    from mixcli import recipe, runs

    train = recipe.complete(train, FACTS)
    return runs.locate(train, options.identity(train, FACTS))


def unfinished(run: Run, checkpoint: bool = True) -> Run:
    with run.open():
        run.begin("seed = 0\n")
        run.append({"step": 1})
        run.become_latest()
        if checkpoint:
            run.checkpoint.write_bytes(b"weights")
    return run


# -- mistakes -----------------------------------------------------------------------------------------------------

MISTAKES: list[tuple[str, str]] = [
    ("train --epoch 3", "mixcli train: error: --epoch: no such option. Did you mean --epochs?"),
    ("train --xyzzy", "mixcli train: error: --xyzzy: no such option. See --help"),
    ("train -e", "mixcli train: error: -e: no such option. See --help"),
    ("train --lr", "mixcli train: error: --lr: needs a value"),
    ("train --resume=yes", "mixcli train: error: --resume: takes no value"),
    ("train extra", "mixcli train: error: arguments: Got unexpected extra argument(s) (extra)"),
    ("tarin", "mixcli: error: tarin: no such command. Did you mean train?"),
    ("--verion", "mixcli: error: --verion: no such option. Did you mean --version?"),
    ("list methodz", "mixcli list: error: list: unknown; got methodz. Did you mean methods?"),
    ("bench", "mixcli bench: error: arguments: Missing argument"),
    ("bench dat", "mixcli bench: error: bench: unknown; got dat. Did you mean data?"),
    ("train --seed 1.5", "mixcli train: error: --seed: not an integer; got 1.5, expected integer 0"),
    ("train --seed -1", "mixcli train: error: --seed: out of range; got -1"),
    ("train --batch-size 0", "mixcli train: error: --batch-size: out of range; got 0, expected integer ≥ 1"),
    ("train --batch-size 101", "mixcli train: error: --batch-size: the training set has 100 images; got 101"),
    ("train --per-class 11", "mixcli train: error: --per-class: more images than a class has; got 11, expected 1 … 10"),
    ("train --per-class 0", "mixcli train: error: --per-class: out of range"),
    ("train --keep 0", "mixcli train: error: --keep: no such epochs; got 0"),
    ("train --keep every:0", "mixcli train: error: --keep: no such epochs"),
    ("train --keep 21", "mixcli train: error: --keep: no such epochs"),
    ("train --precision fp16", "mixcli train: error: --precision: unknown; got fp16, expected one of fp32, bf16"),
    ("train --lr 1e400", "mixcli train: error: --lr: must be finite; got 1e400"),
    ("train --method mixupp", "mixcli train: error: --method: unknown; got mixupp. Did you mean mixup?"),
    ("train --method mixup --beta 0.1", "mixcli train: error: --beta: method mixup has no such option; it takes: per"),
    ("train --config no.toml", "mixcli train: error: no.toml: not found"),
    ("train --config .", "mixcli train: error: .: is a directory"),
    ("train --stop-after 3x", "mixcli train: error: --stop-after: not a duration; got 3x"),
    ("train --runs a/b", "mixcli train: error: a/b: not a writable directory"),
    ("train --overwrite --resume", "mixcli train: error: --overwrite: starts again"),
    ("train --overwrite --resume-from latest", "mixcli train: error: --overwrite: starts again"),
    ("train --resume-from latest --config c.toml", "mixcli train: error: --config: the settings come from the run"),
    ("train --extend-to 20", "mixcli train: error: --extend-to: the run has 20 epochs; got 20, expected more"),
    ("train --extend-to x", "mixcli train: error: --extend-to: not an integer"),
]


@pytest.mark.parametrize(("typed", "line"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_is_one_line_and_exit_code_2(typed: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert line_of(capsys, 2, typed.split()).startswith(line)


@pytest.mark.parametrize(("typed", "line"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_is_one_document_with_json(typed: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*typed.split(), "--json"]) == 2
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert document.keys() == {"schema", "command", "ok", "exit_code", "result", "error", "warnings"}
    assert (document["schema"], document["ok"], document["exit_code"], document["result"]) == (1, False, 2, None)
    assert document["error"].keys() == {"kind", "subject", "problem", "got", "expected", "hint"}
    assert EXIT_CODES[document["error"]["kind"]] == 2


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("train --resume-from latest", "mixcli train: error: latest: no run was trained under runs"),
        ("train --resume-from abc", "mixcli train: error: abc: no such file, folder or run under runs"),
        ("train --resume-from no.ckpt", "mixcli train: error: no.ckpt: not found"),
        ("train --resume-from .", "mixcli train: error: .: no run.ckpt in it"),
        ("train --extend-to 30", "no run.ckpt in it"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_exit_code_3(
    typed: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line in line_of(capsys, 3, typed.split())


def test_a_mistake_in_file_or_environment_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("cfg.toml").write_text("batch = 101\n")
    line = line_of(capsys, 2, ["train", "--config", "cfg.toml"])
    assert line.startswith("mixcli train: error: cfg.toml field batch: the training set has 100 images")
    monkeypatch.setenv("MIXCLI_KEEP", "99")
    assert "MIXCLI_KEEP: no such epochs" in line_of(capsys, 2, ["train"])
    monkeypatch.setenv("MIXCLI_METHDO", "mixup")
    assert "MIXCLI_METHDO: no such setting. Did you mean MIXCLI_METHOD?" in line_of(capsys, 2, ["train"])


def test_a_root_of_runs_that_is_a_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("mine")
    for root in ("file", "file/runs"):
        assert f"{root}: not a writable directory" in line_of(capsys, 2, ["train", "--runs", root])
        assert f"{root}: not a writable directory" in line_of(capsys, 2, ["train", "--runs", root, "--dry-run"])


# -- training -----------------------------------------------------------------------------------------------------


def test_training_prints_its_table_on_stdout_and_the_rest_on_stderr(
    capsys: pytest.CaptureFixture[str], library: Library
) -> None:
    assert main(["train", "--method", "mixup", "--alpha", "0.2", "--stop-after", "2m"]) == 0
    out, err = capsys.readouterr()
    for words in ("mixup(alpha=0.2) on digits", "100 training images", "1 234 567 parameters", "90.00 %", "87.50 %",
                  "test split, 36 images", "median of the last 10", "0.2500", "(EMA)", "1 min 15 s", "run.ckpt",
                  "80.00 %", "validation split, 12 images", "intra –"):  # fmt: skip
        assert words in out, words
    assert max(map(len, out.splitlines())) <= 80 and "\x1b" not in out
    run = run_of("--method", "mixup", "--alpha", "0.2")
    assert err.splitlines() == [f"run {run.folder}", "epoch  1/20  loss 0.500  test accuracy  90.00%  lr 0.1  1.0 s"]
    assert library.calls[0]["deadline"] == pytest.approx(time.monotonic() + 120, abs=10)
    assert library.calls[0]["resume_from"] is None
    assert options.from_flat(toml.read(run.settings)) == library.calls[0]["settings"]
    assert Path("runs/latest").read_text().strip() == run.folder.name


def test_quiet_leaves_the_result_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_json_is_one_document_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    Path("cfg.toml").write_text('method = "synermix"\nbeta = 0.3\n')
    assert main(["train", "--config", "cfg.toml", "--method", "mixup", "--json"]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out, parse_constant=pytest.fail)
    assert (document["command"], document["ok"], document["error"]) == ("train", True, None)
    assert document["result"]["accuracy"] == 0.9 and document["result"]["train"]["intra"] is None
    warning = "cfg.toml field method: mixup is used instead; the keys of synermix are dropped"
    assert document["warnings"] == [warning]
    assert f"mixcli train: warning: {warning}" in err


@pytest.mark.parametrize("json_too", [False, True])
def test_a_dry_run_tells_everything_and_makes_nothing(json_too: bool, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "--method", "cutmix", "--per-class", "8", "--batch", "16", "--dry-run", "--no-measure"]
    assert main(argv + ["--json"] * json_too) == 0
    out, err = capsys.readouterr()
    assert err == "" and files() == set()
    run = run_of("--method", "cutmix", "--per-class", "8", "--batch", "16")
    if json_too:
        plan = json.loads(out)["result"]
        assert (plan["run"], plan["images"], plan["steps_per_epoch"], plan["steps"]) == (str(run.folder), 80, 5, 100)
        assert plan["settings"]["method"] == "cutmix" and plan["settings"]["lr"] == 0.2
    else:
        assert str(run.folder) in out and 'method = "cutmix"' in out and "lr = 0.2" in out


def test_one_epoch_is_told_in_the_singular() -> None:
    written = io.StringIO()
    console = Console(file=written, width=80)
    console.print(tables.training({"epochs": 1, "evaluations": 1}))
    shown = written.getvalue()
    assert "1 epoch," in shown and "last 1 evaluation" in shown and "evaluations" not in shown


def test_a_finished_run_is_reported_and_not_repeated(capsys: pytest.CaptureFixture[str], library: Library) -> None:
    assert main(["train"]) == 0
    first = capsys.readouterr()
    for argv in (["train"], ["train", "--resume"], ["train", "--resume-from", "latest"]):
        assert main(argv) == 0
        again = capsys.readouterr()
        assert again.out == first.out
        assert "finished at epoch 20; nothing to do" in again.err
    assert len(library.calls) == 1
    assert main(["train", "--overwrite"]) == 0
    assert len(library.calls) == 2 and library.calls[1]["resume_from"] is None


def test_an_unfinished_run_needs_a_word(capsys: pytest.CaptureFixture[str], library: Library) -> None:
    run = unfinished(run_of())
    line = line_of(capsys, 2, ["train"])
    assert line == f"mixcli train: error: {run.folder}: unfinished. Use --resume or --overwrite"
    assert main(["train", "--resume"]) == 0
    assert library.calls[0]["resume_from"] == run.checkpoint


def test_a_run_before_its_first_checkpoint_resumes_from_the_start(
    capsys: pytest.CaptureFixture[str], library: Library
) -> None:
    unfinished(run_of(), checkpoint=False)
    assert main(["train", "--resume"]) == 0
    assert library.calls[0]["resume_from"] is None
    assert "starts at step 0" in capsys.readouterr().err


def test_overwriting_deletes_the_old_files(library: Library) -> None:
    run = unfinished(run_of())
    seen: list[bool] = []
    library.behave = lambda run: seen.append(run.checkpoint.exists() or run.metrics.exists())
    assert main(["train", "--overwrite"]) == 0
    assert seen == [False] and run.state == "finished"


def test_a_run_in_use_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    hold = "import sys, time; from pathlib import Path; from mixcli.runs import Run\n"
    hold += "run = Run(Path(sys.argv[1])).open(); run.begin(''); print(flush=True); time.sleep(60)"
    Path("runs").mkdir()
    holder = subprocess.Popen([sys.executable, "-c", hold, str(run_of().folder)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        start = time.monotonic()
        for argv in (["train"], ["train", "--resume"], ["train", "--overwrite"]):
            assert "in use by another process" in line_of(capsys, 2, argv)
        assert time.monotonic() - start < 30  # a second on an idle machine; that it ends at all is the claim
    finally:
        holder.kill()
        holder.communicate()


def test_another_run_is_continued_with_its_own_settings(capsys: pytest.CaptureFixture[str], library: Library) -> None:
    argv = ["--method", "mixup", "--epochs", "7"]
    run = run_of(*argv)
    library.behave = lambda run: (_ for _ in ()).throw(UserError("requeue", "run", "stopped at step 1"))
    with run.open():
        run.append({"step": 1})
    assert main(["train", *argv]) == 75
    assert capsys.readouterr().err.endswith("mixcli train: run: stopped at step 1\n")
    run.checkpoint.write_bytes(b"weights")
    library.behave = lambda run: None
    line = line_of(capsys, 2, ["train", "--resume-from", run.id[:5], "--epochs", "30"])
    assert line == "mixcli train: error: --epochs: run has 7; got 30. Use --extend-to"
    assert "--precision: run has fp32; got bf16" in line_of(
        capsys, 2, ["train", "--resume-from", "latest", "--precision", "bf16"]
    )
    assert main(["train", "--resume-from", str(run.folder), "--threads", "3", "--epochs", "7"]) == 0
    call = library.calls[-1]
    assert (call["run"].folder, call["resume_from"]) == (run.folder, run.checkpoint)
    assert (call["settings"].epochs, call["settings"].threads, call["settings"].method.name) == (7, 3, "mixup")


def test_weights_alone_are_no_resume_source(capsys: pytest.CaptureFixture[str]) -> None:
    run = unfinished(run_of())
    run.epochs.mkdir()
    (run.epochs / "epoch-0010.ckpt").write_text("x")
    line = line_of(capsys, 2, ["train", "--resume-from", str(run.epochs / "epoch-0010.ckpt")])
    assert "epoch-0010.ckpt: weights only, not a resume source" in line


def test_a_prefix_of_two_runs_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for run_id in ("abc000000000", "abd000000000"):
        folder = Path("runs") / f"digits-small-none-s0-{run_id}"
        folder.mkdir(parents=True)
        (folder / "run.ckpt").write_text("x")
    assert "ab: 2 runs match" in line_of(capsys, 2, ["train", "--resume-from", "ab"])


def test_changed_data_is_noticed(capsys: pytest.CaptureFixture[str], library: Library) -> None:
    assert main(["train"]) == 0
    capsys.readouterr()
    library.facts = Facts("other", 100, 36, 10, 1, (8, 8))
    assert "settings or data differ" in line_of(capsys, 3, ["train", "--resume-from", "latest"])


def test_extending_makes_a_new_run_that_names_its_parent(capsys: pytest.CaptureFixture[str], library: Library) -> None:
    assert main(["train"]) == 0
    parent = run_of()
    capsys.readouterr()
    assert main(["train", "--extend-to", "30"]) == 0
    err = capsys.readouterr().err
    assert f"extends run {parent.id} of 20 epochs; the learning-rate schedule is computed anew for 30 epochs" in err
    child: Run = library.calls[1]["run"]
    assert library.calls[1]["resume_from"] == parent.checkpoint and library.calls[1]["settings"].epochs == 30
    assert child.folder not in (parent.folder, run_of("--epochs", "30").folder) and child.parent == parent.id
    assert main(["train", "--resume-from", parent.id, "--extend-to", "30"]) == 0
    assert len(library.calls) == 2
    child.result.unlink()
    assert main(["train", "--extend-to", "30", "--resume"]) == 0
    assert library.calls[2]["resume_from"] == child.checkpoint
    child.result.unlink()
    assert main(["train", "--resume-from", child.id]) == 0
    assert library.calls[3]["run"].folder == child.folder and library.calls[3]["resume_from"] == child.checkpoint


def test_a_damaged_checkpoint_gives_way_to_the_one_before_only_on_request(
    capsys: pytest.CaptureFixture[str], library: Library
) -> None:
    run = unfinished(run_of())
    run.previous.write_bytes(b"older")

    def damaged(run: Run) -> None:
        if library.calls[-1]["resume_from"] == run.checkpoint:
            raise UserError("checkpoint_corrupt", str(run.checkpoint), "damaged")

    library.behave = damaged
    assert "damaged" in line_of(capsys, 3, ["train", "--resume"])
    assert main(["train", "--resume", "--allow-previous"]) == 0
    assert library.calls[-1]["resume_from"] == run.previous
    assert "going on from previous.ckpt" in capsys.readouterr().err


# -- failures -----------------------------------------------------------------------------------------------------


def raising(error: BaseException) -> Callable[[Run], None]:
    def behave(run: Run) -> None:
        raise error

    return behave


@pytest.mark.parametrize("kind", [k for k in EXIT_CODES if k != "internal"])
def test_every_kind_of_error_has_its_code_and_one_line(
    kind: str, capsys: pytest.CaptureFixture[str], library: Library
) -> None:
    library.behave = raising(UserError(kind, "batch", "went wrong"))
    line = line_of(capsys, EXIT_CODES[kind], ["train"])
    assert line.removeprefix("mixcli train: ").removeprefix("error: ") == "--batch: went wrong"
    assert main(["train", "--json"]) == EXIT_CODES[kind]
    document = json.loads(capsys.readouterr().out)
    assert (document["exit_code"], document["error"]["kind"]) == (EXIT_CODES[kind], kind)


def test_an_unknown_exception_is_one_line_and_its_trace_is_kept(
    capsys: pytest.CaptureFixture[str], library: Library
) -> None:
    library.behave = raising(ZeroDivisionError(f"by zero\n{HOSTILE}"))
    assert main(["train"]) == 1
    out, err = capsys.readouterr()
    log = run_of().log
    assert err.startswith("mixcli train: error: ZeroDivisionError: by zero") and err.endswith(f"Trace: {log}\n")
    assert len(err.splitlines()) == 1 and "\x1b" not in err and "\u202e" not in err
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(28, "No space left on device", "x/metrics.csv"), "disk_full", "x/metrics.csv: no space left"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory", "--batch-size: out of memory"),
        (MemoryError(), "out_of_memory", "--batch-size: out of memory"),
        (RecursionError("too deep"), "internal", "RecursionError: too deep"),
    ],
)
def test_what_the_machine_lacks_is_told(
    error: Exception, kind: str, words: str, capsys: pytest.CaptureFixture[str], library: Library
) -> None:
    library.behave = raising(error)
    assert main(["train", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["kind"] == kind
    assert err.startswith(f"mixcli train: error: {words}") and len(err.splitlines()) == 1


@pytest.mark.parametrize(("typed", "value"), [("--flip", True), ("--no-flip", False)])
def test_ledger_27_a_flag_and_its_no(
    typed: str, value: bool, library: Library, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", typed, "--dry-run", "--no-measure", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["settings"]["flip"] is value


def test_a_run_is_resumed_from_inside_its_folder(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["train"]) == 0
    run = run_of()
    run.result.unlink()
    monkeypatch.chdir(run.folder)
    assert main(["train", "--resume-from", "."]) == 0
    assert library.calls[1]["run"].id == run.id


def test_debug_shows_the_trace(capsys: pytest.CaptureFixture[str], library: Library) -> None:
    library.behave = raising(UserError("diverged", "step 3", "loss not finite"))
    assert main(["train", "--debug"]) == 4
    err = capsys.readouterr().err
    assert "Traceback" in err and err.splitlines()[-1] == "mixcli train: error: step 3: loss not finite"


def test_an_exception_without_a_run_points_to_debug(
    capsys: pytest.CaptureFixture[str], library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["mixcli.data.sources"], "look", raising(RuntimeError()))
    assert line_of(capsys, 1, ["train"]).endswith("RuntimeError: no message. Type --debug for the trace")


def test_ctrl_c_prints_its_line(capsys: pytest.CaptureFixture[str], library: Library) -> None:
    library.behave = raising(KeyboardInterrupt())
    assert line_of(capsys, 130, ["train"]) == "mixcli train: Ctrl-C: stopped"
    assert main(["train", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "interrupted"


def test_no_secret_of_the_environment_reaches_output_or_files(
    capsys: pytest.CaptureFixture[str], library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_TOKEN", "planted-secret")

    def behave(run: Run) -> None:
        token = os.environ["API_TOKEN"]
        raise RuntimeError(f"token of {len(token)} characters")

    library.behave = behave
    assert main(["train", "--debug"]) == 1
    out, err = capsys.readouterr()
    written = "".join(path.read_text() for path in Path("runs").rglob("*") if path.is_file())
    assert "planted-secret" not in out + err + written


def test_hostile_names_are_shown_as_text(capsys: pytest.CaptureFixture[str], library: Library) -> None:
    assert main(["train", "--dataset", HOSTILE, "--net", HOSTILE, "--epochs", "1"]) == 0
    out, err = capsys.readouterr()
    assert "[/]\\x1b[31m\\u202e[bold]x" in out and "\x1b" not in out + err and "\u202e" not in out + err
    [folder] = [path for path in Path("runs").iterdir() if path.is_dir()]
    assert re.fullmatch(r"[A-Za-z0-9._-]+", folder.name)
    assert main(["train", "--dataset", HOSTILE, "--dry-run", "--no-measure"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert "\x1b" not in line_of(capsys, 2, ["train", "--method", HOSTILE])
    assert "\x1b" not in line_of(capsys, 2, ["train", f"--{HOSTILE}"])
    assert "\x1b" not in line_of(capsys, 2, [HOSTILE])


# -- streams ------------------------------------------------------------------------------------------------------


class Broken:
    """A stream whose device refuses everything."""

    encoding = "utf-8"

    def __init__(self, error: type[OSError], number: int):
        self.error, self.number = error, number

    def write(self, text: str) -> int:
        raise self.error(self.number, os.strerror(self.number))

    def flush(self) -> None:
        self.write("")

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        raise OSError("not a real file")


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_closed_stdout_does_not_undo_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, json_too: list[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Broken(BrokenPipeError, 32))
        assert main(["train", "--quiet", *json_too]) == 0
    assert capsys.readouterr().err == "" and run_of().state == "finished"


def test_a_full_stdout_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Broken(OSError, 28))
        assert main(["list"]) == 1
    assert capsys.readouterr().err == "mixcli list: error: stdout: No space left on device\n"


def test_a_broken_stderr_stops_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Broken(BrokenPipeError, 32))
        assert main(["train"]) == 0
        assert main(["train", "--lr", "0"]) == 2
    assert "90.00 %" in capsys.readouterr().out


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_a_bar_and_colour_unless_refused(
    variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    from mixcli.report.progress import Reporter

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", **variables}.items():
        monkeypatch.setenv(name, value)
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with Reporter("mixcli train") as reporter:
        reporter.warn("x", HOSTILE)
        for done in range(5):
            reporter.step(done, 4)
    written = stderr.getvalue()
    assert ("\x1b[33m" in written) is coloured
    assert ("step 4/4" in written) is ("TERM" not in variables)


def test_real_pipes_and_devices(library: Library) -> None:
    def shell(command: str) -> tuple[int, str]:
        script = f'set -o pipefail; mixcli() {{ {sys.executable} -m mixcli.cli "$@"; }}; {command}'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stderr

    assert shell("mixcli --help | head -1") == (0, "")
    for command in ("list", "list --json", "--help", "train --help", "--version"):
        assert shell(f"(sleep 0.2; mixcli {command}) | true") == (0, "")
    assert shell("mixcli list --json >&-")[1] == ""
    assert shell("mixcli list > /dev/full") == (1, "mixcli list: error: stdout: No space left on device\n")
    assert shell("mixcli nope 2>&-; exit $?")[0] == 2


# -- the rest -----------------------------------------------------------------------------------------------------


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mixcli {cli.__version__}\n"
    for argv in ([], ["--help"], ["train", "--help"], ["train", "--method", "synermix", "--inter", "cutmix", "--help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines())) <= 80
    assert "--inter-box" in out and "--beta" in out and "MIXCLI_DATA" in out


def test_lists_hold_what_exists(capsys: pytest.CaptureFixture[str]) -> None:
    from mixcli.catalogue import BORROWED, DATASETS, NETS
    from mixcli.settings import METHODS

    assert main(["list", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result.keys() == {"methods", "mixings", "datasets", "nets", "corruptions", "studies", "probes"}
    assert (set(result["methods"]), set(result["datasets"]), set(result["nets"])) == (
        set(METHODS),
        set(DATASETS),
        {*NETS, *BORROWED},
    )
    assert main(["list", "nets"]) == 0
    assert "resnet18" in capsys.readouterr().out


def test_a_benchmark_is_called_and_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("mixcli.studies.bench.benchmark")
    module.data = lambda: {"ratio": {"median": 3.25, "lowest": float("nan")}, "rounds": 5, "cpu_seconds": [0.5, 0.25]}
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(mixcli.studies, "benchmark", module, raising=False)
    assert main(["bench", "data"]) == 0
    out = capsys.readouterr().out
    assert "ratio median" in out and "3.2500" in out and "0.5000, 0.2500" in out
    assert main(["bench", "data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["ratio"] == {"median": 3.25, "lowest": None}


# -- what a review found ------------------------------------------------------------------------------------------


def test_overwrite_loses_nothing_where_the_new_run_is_refused(
    capsys: pytest.CaptureFixture[str], library: Library
) -> None:
    assert main(["train"]) == 0
    before, result = files(), run_of().result.read_bytes()

    def refuse() -> None:
        raise UserError("config", "device", "CUDA not available", got="cuda")

    library.refuse = refuse
    capsys.readouterr()
    assert "--device: CUDA not available" in line_of(capsys, 2, ["train", "--overwrite"])
    assert files() == before and run_of().result.read_bytes() == result
    assert "--device: CUDA not available" in line_of(capsys, 2, ["train", "--seed", "1", "--dry-run"])


def test_no_run_is_named_by_nothing(capsys: pytest.CaptureFixture[str], library: Library) -> None:
    line_of(capsys, 2, ["train", "--resume-from", ""])
    assert not library.calls


def test_a_run_under_another_root_is_resumed_from_anywhere(
    capsys: pytest.CaptureFixture[str], library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Path("sub").mkdir()
    assert main(["train", "--runs", "sub/r"]) == 0
    folder = library.calls[0]["run"].folder.absolute()
    (folder / "result.json").unlink()
    Path("elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", "--resume-from", str(folder)]) == 0
    assert library.calls[1]["run"].folder == folder and not Path("sub").exists()


def test_the_checkpoint_that_is_typed_is_used_inside_the_folder_too(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train"]) == 0
    folder = library.calls[0]["run"].folder.absolute()
    (folder / "result.json").unlink()
    (folder / "previous.ckpt").write_bytes(b"weights")
    monkeypatch.chdir(folder)
    assert main(["train", "--resume-from", "previous.ckpt"]) == 0
    assert library.calls[1]["resume_from"].name == "previous.ckpt"


def test_kept_epochs_are_those_of_the_longer_run(capsys: pytest.CaptureFixture[str], library: Library) -> None:
    assert main(["train", "--epochs", "2"]) == 0
    assert main(["train", "--epochs", "2", "--extend-to", "3", "--keep", "3"]) == 0
    capsys.readouterr()
    assert "--keep" in line_of(capsys, 2, ["train", "--epochs", "2", "--extend-to", "4", "--keep", "5"])


def test_a_signal_while_torch_is_imported_ends_in_its_line_and_leaves_nothing(tmp_path: Path) -> None:
    started = subprocess.Popen([sys.executable, "-m", "mixcli.cli", "train"], cwd=tmp_path, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/*/lock")) and time.monotonic() < deadline:
        time.sleep(0.005)
    started.send_signal(signal.SIGTERM)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 143
    assert len(err.splitlines()) == 1 and b"before the first step. Nothing was saved" in err
    assert not list(tmp_path.glob("runs/*/*"))
