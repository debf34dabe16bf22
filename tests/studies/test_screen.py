"""test_screen.py: a screen ranks and states nothing; what is confirmed is compared on runs that it never saw."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest

from mixcli.cli import main
from mixcli.errors import UserError
from mixcli.studies import ablation, design
from mixcli.studies.written import Typed
from tests.studies.study import ARMS, TINY, Here, write

pytestmark = pytest.mark.usefixtures("here")

LONG = TINY.replace("epochs = 2", 'epochs = 6\nschedule = "step"\nstep_every = 4')
AXES = LONG + ARMS + '[arms.blend]\nmethod = "synermix"\n[axes.blend]\nbeta = [0.0, 0.1]\n'
PLACEBOS = (
    '[placebos.clean-ce]\nweights = "single"\n[placebos.longer]\nepochs = 12\n[tiny.placebos.longer]\nepochs = 2\n'
)


def read(text: str, **typed: object) -> design.Design:
    return design.read(Typed(write(text), **typed), {}, {})  # pyright: ignore[reportArgumentType]


def ids(study: design.Design) -> dict[str, set[str]]:
    return {arm.name: {cell.job.run.id for cell in arm.cells} for arm in study.arms}


def test_a_screen_has_seeds_of_its_own_a_quarter_of_the_epochs_and_validation_images() -> None:
    whole, screen = read(AXES), read(AXES, screen=True)
    assert screen.names == whole.names and screen.name == "small-screen" and screen.fields.metric == "val.top1"
    for arm, short in zip(whole.arms, screen.arms, strict=True):
        assert [cell.seed for cell in short.cells] == [1000, 1001, 1002]
        assert (short.settings.epochs, short.settings.step_every, short.settings.val_fraction) == (2, 1, 0.1)
        changed = {"epochs", "step_every", "val_fraction", "seed"}
        mine, theirs = (a.settings.model_dump(exclude=changed) for a in (arm, short))
        assert mine == theirs
    assert read(AXES, screen=True, seeds="1000,1002").fields.seeds == (1001, 1003, 1004)
    held_out = read(AXES.replace("width", "val_fraction = 0.3\nwidth"), screen=True)
    assert {arm.settings.val_fraction for arm in held_out.arms} == {0.3}


def test_the_screen_of_synermix_beta_is_63_quarter_runs_in_place_of_168_whole_ones(monkeypatch) -> None:
    from mixcli.data import sources

    monkeypatch.setattr(sources, "look", lambda train: sources.CIFAR[train.dataset])
    whole, screen = (design.read(Typed("synermix-beta", screen=short), {}, {}) for short in (False, True))
    epochs = [sum(cell.job.settings.epochs or 0 for cell in study.first_cells()) for study in (whole, screen)]
    assert (whole.cells, screen.cells) == (168, 63) and round(100 * epochs[1] / epochs[0]) == 9


def test_a_screen_ranks_by_validation_states_nothing_and_its_runs_never_enter_a_comparison(capsys) -> None:
    write(LONG + ARMS)
    assert main(["ablate", "small.toml", "--screen"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("screen: no statement. which?") and " p " not in out and "test 9" not in err
    assert "mixcli ablate small.toml --confirm ARM,..." in " ".join(out.split())
    with Path("studies/small-screen/ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    means = {}
    for name in ("none", "mixup"):
        paths = Path("runs").glob(f"digits-small-{name}-s100[012]-*/result.json")
        means[name] = [100 * json.loads(path.read_bytes())["val"]["accuracy"] for path in paths]
    expected = sorted(means, key=lambda name: -sum(means[name]))
    assert [row["arm"] for row in rows] == expected and [row["rank"] for row in rows] == ["1", "2"]
    assert all(float(row["val.top1"]) == pytest.approx(sum(means[row["arm"]]) / 3) for row in rows)
    assert [path.name for path in Path("studies").rglob("*") if path.is_file()] == ["ranking.csv"]
    screened = set(Here.ran)
    assert main(["ablate", "small.toml", "--confirm", "mixup"]) == 0
    assert set(Here.ran[6:]) == {"none seed=0", "none seed=1", "mixup seed=0", "mixup seed=1"} and len(screened) == 6
    assert "runs: 2 per arm, seeds 0, 1" in capsys.readouterr().out
    assert main(["ablate", "small.toml", "--screen", "--report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["head"] == "screen: no statement" and len(Here.ran) == 10


def test_an_arm_of_a_screen_that_lacks_a_run_is_not_ranked(capsys) -> None:
    write(LONG + ARMS)
    screen = read(LONG + ARMS, screen=True)
    for cell in screen.first_cells():
        with cell.job.run as run:
            run.begin("seed = 0\n")
            if cell.name == "none seed=1001":
                run.fail(UserError("diverged", "step 1", "loss not finite"))
            else:
                run.finish({"val": {"accuracy": 0.9 if cell.arm == "none" else 0.5}, "accuracy": 0.1})
    assert main(["ablate", "small.toml", "--screen"]) == 5
    out, err = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert ["1", "mixup", "3", "of", "3", "50.00", "50.00", "..", "50.00", "2"] in rows
    assert ["–", "none", "2", "of", "3", "90.00", "90.00", "..", "90.00", "2"] in rows
    assert "none seed=1001 (diverged). --retry" in err


def test_what_is_confirmed_with_its_baseline_and_placebos_is_the_family() -> None:
    found = read(AXES + PLACEBOS, confirm="beta=0.1")
    assert found.name == "small-confirm" and found.confirmed == ("blend beta=0.1",)
    assert found.fields.family == (
        ("blend beta=0.1", "none"),
        ("blend beta=0.1", "clean-ce of blend beta=0.1"),
        ("blend beta=0.1", "longer of blend beta=0.1"),
    )
    whole = read(AXES)
    assert ids(found)["blend beta=0.1"] == ids(whole)["blend beta=0.1"] and ids(found)["none"] == ids(whole)["none"]
    placebo, picked = found.arms[2].settings, found.arms[1].settings
    assert placebo.method.model_dump() == picked.method.model_dump() | {"weights": "single"}
    assert read(AXES + PLACEBOS, confirm="beta=0.1", tiny=True).arms[3].settings.epochs == 2
    assert found.arms[3].settings.epochs == 12 and found.contrasts == {}
    with_placebos = read(AXES + PLACEBOS)
    assert ids(with_placebos) == ids(whole), "placebos are of what is confirmed alone"


def test_a_placebo_that_is_an_arm_already_is_that_arm() -> None:
    found = read(AXES + "[placebos.off]\nbeta = 0.0\n", confirm="beta=0.1")
    assert found.fields.family == (("blend beta=0.1", "none"), ("blend beta=0.1", "blend beta=0.0"))


def test_a_sweep_on_validation_is_confirmed_on_the_test_and_all_training_images() -> None:
    """Its own pairs are kept, its baseline only where it is in one."""
    found = design.read(Typed("synermix-beta", tiny=True, confirm="mixup beta=0.1"), {}, {})
    assert found.fields.metric == "test.top1" and {arm.settings.val_fraction for arm in found.arms} == {0.0}
    assert found.fields.family[0] == ("mixup beta=0.1", "mixup beta=0.0") and found.baseline == "mixup beta=0.0"
    assert len(found.arms) == 7 and [arm.settings.epochs for arm in found.arms].count(60) == 1


def test_the_family_of_a_confirmation_is_fixed_before_its_first_run(capsys) -> None:
    write(AXES)
    words = ["ablate", "small.toml", "--confirm", "blend beta=0.1", "--seeds", "1"]
    assert main(words) == 0
    assert "fixed before the first run" in " ".join(capsys.readouterr().out.split())
    assert main(["ablate", "small.toml", "--confirm", "mixup", "--seeds", "1"]) == 2
    assert "plan of small-confirm: family" in capsys.readouterr().err


def test_an_arm_picked_after_its_runs_had_ended_is_post_hoc(capsys) -> None:
    write(AXES)
    assert main(["ablate", "small.toml", "--seeds", "1"]) == 0
    assert main(["ablate", "small.toml", "--seeds", "1", "--confirm", "mixup"]) == 0
    capsys.readouterr()
    assert main(["ablate", "small.toml", "--seeds", "1", "--confirm", "mixup", "--report"]) == 0
    assert "post hoc: runs of mixup had ended before the plan was made" in " ".join(capsys.readouterr().out.split())
    unseen = read((LONG + ARMS).replace("epochs = 6", "epochs = 7"), confirm="mixup")
    assert ablation.keep_plan(unseen, Path("elsewhere")).post_hoc == ""


MISTAKES = [
    (["--screen", "--confirm", "mixup"], "--screen: comes before --confirm"),
    (["--screen", "--extend"], "--extend: a screen compares nothing, so it has no plan"),
    (["--confirm", "none"], "--confirm: is the baseline; got none"),
    (["--confirm", "mixup,mixup"], "--confirm: repeated"),
    (["--confirm", "mixpu"], "--confirm: no such arm; got mixpu. Did you mean mixup?"),
    (["--confirm", ""], "--confirm: no such arm"),
]


@pytest.mark.parametrize(("words", "line"), MISTAKES, ids=[shlex.join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_makes_nothing(words, line, capsys) -> None:
    write(LONG + ARMS)
    assert main(["ablate", "small.toml", *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"mixcli ablate: error: {line}") and len(err.splitlines()) == 1
    assert [path.name for path in Path().iterdir()] == ["small.toml"]


def test_a_study_that_chooses_on_validation_has_no_screen_and_its_choice_no_placebos() -> None:
    choose = LONG + ARMS + "[choose.mixup]\nalpha = [0.2, 1.0]\nval_fraction = 0.2\nseeds = [100]\n"
    with pytest.raises(UserError, match="--screen: the study picks its values on validation images itself"):
        read(choose, screen=True)
    confirmed = read(choose, confirm="mixup")
    assert [choice.arm for choice in confirmed.choices] == ["mixup"] and confirmed.names == ["none", "mixup"]
    with pytest.raises(UserError, match="placebos of a value yet to be chosen"):
        read(choose + "[placebos.x]\nprobability = 0.5\n", confirm="mixup")
