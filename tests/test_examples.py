"""Every example runs: each recipe is a complete plan, own_loop.py learns, row.py writes its row and resumes."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mixcli import cli, options, own_code
from mixcli.catalogue import NETS
from mixcli.data import sources
from mixcli.engine import checkpoint
from mixcli.recipe import Train
from mixcli.settings import SynerMix
from mixcli.studies import design
from mixcli.studies.written import Typed

EXAMPLES = Path(__file__).parents[1] / "examples"
RECIPES = sorted(EXAMPLES.glob("*.toml"))
each_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda p: p.stem)


def settings(recipe: Path) -> Train:
    return options.gather({}, recipe, {}).train


@each_recipe
def test_a_recipe_states_source_expectation_and_cost_and_is_read(recipe):
    head = recipe.read_text().split("\n\n")[0]
    assert all(word in head for word in ("# Source ", "# Expected ", "# Cost "))
    named = {"mini-imagenet", "food-101", "oxford-iiit-pet", "caltech-256"}
    assert settings(recipe).dataset in {"cifar10", "cifar100", "svhn", "tiny-imagenet", *named}


def rows_of(recipe: Path) -> list[list[str]]:
    """The words that a recipe's header gives for its other rows."""
    lines = re.findall(r"^#   (--method .*)$", recipe.read_text(), re.MULTILINE)
    return [[word for word in line.split() if not re.fullmatch(r"\d\d\.\d\d", word)] for line in lines]


@pytest.mark.parametrize(
    "words", [(r, w) for r in RECIPES for w in rows_of(r)], ids=lambda w: " ".join((w[0].stem, *w[1]))
)
def test_a_row_of_a_recipe_is_what_its_words_make_of_the_file(words):
    recipe, row = words
    typed = {flag.removeprefix("--").replace("-", "_"): value for flag, value in zip(row[::2], row[1::2], strict=True)}
    file, made = settings(recipe), options.gather(typed, recipe, {}).train
    assert made.method.name == typed["method"] and len(rows_of(recipe)) in (6, 8)
    assert {k: v for k, v in made if k not in (*typed, "method")} == {
        k: v for k, v in file if k not in (*typed, "method")
    }
    assert (made == file) == (made.method.label() == file.method.label())


@each_recipe
def test_a_recipe_trains_on_a_small_set_of_its_own_shape(recipe, tmp_path, monkeypatch):
    """Two steps of a narrow net, everything else as the file says; whitening alone is left out, which takes long.

    A net of another library has no width: a small one takes its place.
    """
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (48, 32, 32, 3), dtype=np.uint8), np.arange(48) % 4
    np.savez("tiny.npz", x_train=images, y_train=labels, x_test=images[:8], y_test=labels[:8])
    words = ["--dataset", "tiny.npz", "--epochs", "1", "--batch", "24", "--width", "4"]
    words += ["--per-class", "12"] if settings(recipe).per_class else []
    words += ["--labels", "24", "--epoch-steps", "2"] if settings(recipe).labels else []
    words += ["--no-zca"] if settings(recipe).zca else []
    words += ["--net", "small"] if settings(recipe).net not in NETS else []
    assert cli.main(["train", "--config", str(recipe), *words, "--quiet"]) == 0


def test_all_methods_of_the_synermix_comparison_share_recipe_and_supplement():
    shared = [settings(r) for r in RECIPES if r.match("synermix*-cifar100-resnet18.toml")]
    assert len(shared) == 9 and {s.supplement for s in shared} == {2}
    same = {json.dumps({k: v for k, v in s.model_dump(mode="json").items() if k != "method"}) for s in shared}
    assert len(same) == 1
    assert {s.method.weights for s in shared if isinstance(s.method, SynerMix)} == {"uniform", "single", "equal"}


def test_own_loop_learns():
    done = subprocess.run([sys.executable, EXAMPLES / "own_loop.py"], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[-1].rstrip("%")) > 85


@pytest.fixture
def row(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("row", EXAMPLES / "results" / "row.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    Path("few.toml").write_text('method = "mixup"\nper_class = 10\nepochs = 3\n')
    return module


def test_row_writes_the_scores_and_a_bit_per_test_image(row, capsys):
    for _ in range(2):  # the second call finds the run finished and replaces its line by the same one
        assert row.main(["few.toml", "--seed", "3", "--out", "results", "--per-cell", "20"]) == 0
    (line,) = csv.DictReader(Path("results/rows.csv").read_text().splitlines())
    assert line["corruptions"].startswith("generated") and line["per_cell"] == "20" and line["mean15"] == ""
    assert 0 < float(line["mean_available"]) < 1 and float(line["corrupted_nll"]) > 0 and float(line["digital"]) > 0
    assert line["recipe"] == "few" and line["seed"] == "3" and line["method"] == "mixup" and line["device"]
    with np.load(Path("results") / line["bits"]) as bits:
        correct = np.unpackbits(bits["correct"], count=int(bits["images"]))
    assert len(correct) == 360 and correct.mean() == pytest.approx(float(line["accuracy"]))
    assert "rows.csv" in capsys.readouterr().out


def test_row_stopped_in_time_is_gone_on_with_by_the_same_words(row):
    words = ["few.toml", "--out", "results", "--epochs", "3000"]
    assert row.main([*words, "--stop-after", "3s"]) == 75
    assert not Path("results/rows.csv").exists()
    first = _steps_done()
    assert row.main([*words, "--stop-after", "3s"]) == 75
    assert _steps_done() > first


def _steps_done() -> int:
    (checkpoint_file,) = Path("runs").glob("*/run.ckpt")
    return checkpoint.load(checkpoint_file)["step"]


STUDIES, CONTROLS = EXAMPLES / "studies", "synermix-controls"


def test_the_cpu_form_has_the_arms_and_comparisons_of_the_named_study(monkeypatch):
    monkeypatch.setattr(sources, "look", lambda train: sources.CIFAR[train.dataset])
    mine, named = (design.read(Typed(name), {}, {}) for name in (str(STUDIES / "synermix-controls-cpu.toml"), CONTROLS))
    assert mine.fields.family == named.fields.family and mine.baseline == named.baseline
    assert {a.name: a.settings.method for a in mine.arms} == {a.name: a.settings.method for a in named.arms}
    assert {a.name: a.settings.supplement for a in mine.arms} == {a.name: a.settings.supplement for a in named.arms}
    for one, other in zip(mine.arms, named.arms, strict=True):
        assert one.settings.epochs * 120 == other.settings.epochs * 15
        assert (one.settings.net, one.settings.per_class) == ("small", 20)
    assert mine.fields.question.startswith("CPU form"), "the table is headed by it"


def test_the_study_of_probes_plans_them_and_holds_synermix_against_its_control():
    found = design.read(Typed(str(STUDIES / "probes-digits.toml")), {}, {})
    assert found.fields.follow == ("linearity", "geometry") and ("synermix", "clean-ce") in found.fields.family
    methods = {arm.name: arm.settings.method for arm in found.arms}
    assert methods["clean-ce"] == methods["synermix"].model_copy(update={"weights": "single"})


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (5, False), (75, True)])
def test_a_task_of_the_job_array_is_one_line_and_is_queued_again_when_it_was_stopped(code, requeued, tmp_path):
    for name, line in (("mixcli", f'echo "$@" > asked; exit {code}'), ("scontrol", 'echo "$@" > queued')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{line}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    words = [STUDIES / "array.sbatch", "quickstart", "--set", "base.epochs=3"]
    assert subprocess.run(words, cwd=tmp_path, env=environment, check=False).returncode == code
    assert (tmp_path / "asked").read_text() == "ablate quickstart --set base.epochs=3 --stop-after 3h50m\n"
    assert (tmp_path / "queued").exists() is requeued
    assert not requeued or (tmp_path / "queued").read_text() == "requeue 17\n"


def test_the_page_of_ones_own_mixing_can_be_followed_outside_the_repository(tmp_path, monkeypatch, capsys):
    """Every command of the page, with the exit code that it tells; the files of the page, copied."""
    page = (EXAMPLES / "own_mixing.md").read_text()
    for name in ("my_mix.py", "my_net.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for line in "".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).splitlines():
        command, _, told = line.partition("  # ")
        if not command.startswith("mixcli "):
            subprocess.run(command, shell=True, check=True)
            continue
        code = cli.main(shlex.split(command)[1:])
        err = capsys.readouterr().err
        assert code == (int(told.split("exit ")[1].split(":")[0]) if "exit " in told else 0), f"{line}\n{err}"
        assert code != 2 or "my_mix.py has changed; got digest" in err
    assert "none broken" in Path("check-Stripes.md").read_text() and Path("stripes.png").is_file()
    own_code.loaded.clear()
