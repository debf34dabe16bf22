"""test_design.py: a study is checked whole before its first run, and every mistake is told with its place."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mixcli import options, recipe, runs
from mixcli.cli import main
from mixcli.data import sources
from mixcli.errors import UserError
from mixcli.studies import design, written
from mixcli.studies.written import NAMED, Typed
from tests.studies.study import ARMS, TINY, write

pytestmark = pytest.mark.usefixtures("folder")

AXES = TINY + '[arms.mixup]\nmethod = "mixup"\n[axes.mixup]\n'
CHOOSE = TINY + ARMS + "[choose.mixup]\nalpha = [0.2, 1.0]\n"


def read(text: str, **typed: object) -> design.Design:
    return design.read(Typed(write(text), **typed), {}, {})  # pyright: ignore[reportArgumentType]


# -- mistakes -----------------------------------------------------------------------------------------------------

FILES = [  # what the study file holds, and how the one line begins
    (TINY, "small.toml: no cells; expected at least one table [arms.NAME]"),
    (TINY + "[arms]\n", "small.toml: no cells"),
    (AXES + "alpha = []\n", "small.toml field axes.mixup.alpha: no values"),
    (AXES + "alpha = 1\n", "small.toml field axes.mixup.alpha: no values"),
    (AXES + "alpah = [1]\n", "small.toml field axes.mixup.alpah[0]: unknown. Did you mean alpha?"),
    (AXES + "alpha = [0.2, 1, -1]\n", "small.toml field axes.mixup.alpha[2]: out of range; got int -1"),
    (AXES + 'alpha = ["1"]\n', 'small.toml field axes.mixup.alpha[0]: not a number; got str "1"'),
    (AXES + "alpha = [1.0, 0.2, 1]\n", "small.toml field axes.mixup.alpha: 1.0 and 1 are the same cell"),
    (AXES + "seed = [1, 2]\n", "small.toml field axes.mixup.seed: is no axis. Give seeds"),
    (AXES + "threads = [1, 2]\n", "small.toml field axes.mixup.threads: has no effect on the result"),
    (TINY + ARMS + "[axes.none]\nalpha = [1]\n", "small.toml field axes.none.alpha[0]: method none has no such option"),
    (TINY + ARMS + "[axes.cutmix]\nalpha = [1]\n", "small.toml table axes.cutmix: no such arm. Did you mean mixup?"),
    (TINY + ARMS + '[arms.again]\nmethod = "none"\n', "small.toml table arms.again: has the same cells as none"),
    (TINY + '[arms.a]\nmethod = "nonne"\n', "small.toml field arms.a.method: unknown"),
    (TINY + ARMS + "[arms.none.more]\nx = 1\n", "small.toml table arms.none.more: unknown"),
    (TINY + 'arms = "none"\n' + ARMS, "small.toml field tiny.arms: is a table; got none"),
    (TINY + "[tiny.arms.nonne]\nepochs = 3\n" + ARMS, "small.toml table tiny.arms.nonne: no such arm. Did"),
    ('arms = "none"\n' + TINY, "small.toml field arms: is a table; got none"),
    ('metrik = "x"\n' + TINY + ARMS, "small.toml field metrik: unknown. Did you mean metric?"),
    ('metric = "test.top5"\n' + TINY + ARMS, "small.toml field metric: not produced; got test.top5"),
    ('metric = "val.top1"\n' + TINY + ARMS, "small.toml field metric: needs validation images, and arm none has none"),
    ('metric = "oracle_test_best"\n' + TINY + ARMS, "small.toml field metric: the best test epoch is no metric"),
    ('select = "best_on_val"\n' + TINY + ARMS, "small.toml field select: needs validation images"),
    ('select = "best"\n' + TINY + ARMS, "small.toml field select: unknown"),
    ('test = "t"\n' + TINY + ARMS, "small.toml field test: unknown; got str \"t\", expected one of welch, paired"),
    ('baseline = "nine"\n' + TINY + ARMS, "small.toml field baseline: no such arm; got nine. Did you mean none?"),
    ("sesoi = 0\n" + TINY + ARMS, "small.toml field sesoi: out of range"),
    ('family = "all"\n' + TINY + ARMS, "small.toml field family: names no comparisons"),
    ('family = [["none", "mixup"], ["mixup", "none"]]\n' + TINY + ARMS, "small.toml field family: names no"),
    ('family = [["none", "mix"]]\n' + TINY + ARMS, "small.toml field family: no such arm; got mix. Did"),
    ('follow = ["linearty"]\n' + TINY + ARMS, "small.toml field follow: unknown; got linearty. Did you mean linearity"),
    (TINY.replace("[0, 1]", "[]") + ARMS, "small.toml field seeds: must not be empty"),
    ('family = "like-for-like"\n' + TINY + '[arms.a]\nmethod = "none"\n', "small.toml field family: no arm has"),
    ('family = "like-for-like"\nbaseline = "b"\n' + TINY + ARMS, "small.toml field baseline: no such arm; got b"),
    (TINY + '[tiny.axes.nonne]\nlabel_noise = [0.1]\n' + ARMS, "small.toml table tiny.axes.nonne: no such arm. Did"),
    (TINY.replace("[0, 1]", "[1, 1]") + ARMS, "small.toml field seeds: repeated"),
    (TINY.replace("[0, 1]", "[-1]") + ARMS, "small.toml field seeds: "),
    (TINY.replace("[0, 1]", "3") + ARMS, "small.toml field seeds: "),
    (TINY.replace('"small"', '"../x"') + ARMS, "small.toml field study: not a name for a folder"),
    (TINY.replace("width", "seed") + ARMS, "small.toml field base.seed: a study has several. Give seeds"),
    (TINY.replace("per_class = 6", "per_class = 999") + ARMS, "small.toml field base.per_class: more images than"),
    (TINY.replace("width = 2", "witdh = 2") + ARMS, "small.toml field base.witdh: unknown. Did you mean width?"),
    (CHOOSE, "small.toml field choose.mixup.val_fraction: a value is chosen on validation images, never on the test"),
    (CHOOSE + "val_fraction = 0.2\n", "small.toml field choose.mixup.seeds: must not be empty"),
    (CHOOSE + "val_fraction = 0.2\nseeds = [0]\n", "small.toml field choose.mixup.seeds: are different ones"),
    (CHOOSE + "val_fraction = 0.2\nseeds = [9]\nalpah = [1]\n", "small.toml field choose.mixup.alpah[0]: unknown"),
    (TINY + ARMS + "[choose.mixup]\nval_fraction = 0.2\nseeds = [9]\n", "small.toml field choose.mixup: nothing"),
    (TINY + ARMS + "[contrasts.c]\nnone = 1\nmixup = 1\n", "small.toml table contrasts.c: no contrast"),
    ("study =", "small.toml"),
]  # fmt: skip

TYPED = [
    ("", "ablate: needs a study: a name, a .toml file, or --axis KEY=V1,V2. See mixcli list studies"),
    ("quikstart", "ablate: no such study, nor a .toml file; got quikstart. Did you mean quickstart?"),
    ("no.toml", "no.toml: not found"),
    ("small.toml --axis alpha=1", "--axis: makes a study of its own"),
    ("small.toml --seeds 0", "--seeds: none; got 0, expected a count, or a comma list without repeats"),
    ("small.toml --seeds 1,1", "--seeds: repeated; got 1,1"),
    ("small.toml --seeds ,", "--seeds: not seeds; got ,"),
    ("small.toml --seeds -1", "--seeds: not seeds; got -1"),
    ("small.toml --seeds 2,x", "--seeds: not seeds; got 2,x"),
    ("small.toml --baseline nine", "--baseline: no such arm; got nine. Did you mean none?"),
    ("small.toml --epochs 3", "--epochs: the study decides it. Give --set base.epochs=3"),
    ("small.toml --device cpu", "--device: a study has several. Give --devices"),
    ("small.toml --set epochs=3", "--set: names no setting of the study; got epochs=3, expected base.KEY=VALUE"),
    ("small.toml --set base.epochs=x", "--set base.epochs: not an integer; got x"),
    ("small.toml --set arms.mixup.beta=1", "--set arms.mixup.beta: method mixup has no such option"),
    ("small.toml --max-cells 3", "study: 4 cells, limit 3. Use --max-cells"),
    ("small.toml --seeds 300000", "study: 600000 cells, limit 1000"),
    ("small.toml --max-cells 0", "--max-cells: out of range"),
    ("small.toml --per-device 0", "--per-device: out of range; got 0, expected integer ≥ 1"),
    ("small.toml --devices tpu", "--devices: unknown; got tpu, expected cpu:N or cuda:0,cuda:1"),
    ("small.toml --devices cpu:0", "--devices: no such number of cores; got cpu:0"),
    ("small.toml --devices cpu:9999", "--devices: no such number of cores; got cpu:9999"),
    ("small.toml --devices cpu,cpu", "--devices: repeated; got cpu"),
    ("small.toml --devices cuda:99", "--devices: no such GPU; got cuda:99"),
    ("small.toml --devices ,", "--devices: unknown"),
    ("small.toml --stop-after 0s", "--stop-after: not a duration; got 0s"),
    ("small.toml --stop-after 3x", "--stop-after: not a duration; got 3x"),
    ("small.toml --engine slurm", "--engine: unknown; got slurm, expected local or ray"),
    ("small.toml --runs small.toml", "small.toml: not a writable directory"),
    ("small.toml --measure", "--measure: is for --dry-run"),
    ("--axis alpha --method mixup", "--axis: not an axis; got alpha, expected KEY=V1,V2"),
    ("--axis alpha= --method mixup", "--axis alpha: no values"),
    ("--axis alpha=1,2 --axis alpha=3 --method mixup", "--axis alpha: given twice"),
    ("--axis alpha=1,x --method mixup", "--axis alpha[1]: not a number; got x"),
    ("--axis alpha=1,1.0 --method mixup", "--axis alpha: 1 and 1.0 are the same cell"),
    ("--axis beta=1,2", "--axis beta[0]: method none has no such option"),
    ("--axis alpha=1,2 --method mixup --seed 3", "--seed: a study has several. Give --seeds"),
    ("--axis alpha=1,2 --method mixup --tiny", "--tiny: the study has no table [tiny]"),
    ("--axis data_dir=a,b", "--axis data_dir: has no effect on the result"),
]  # fmt: skip


def line_of(capsys: pytest.CaptureFixture[str], argv: list[str]) -> str:
    """The one line of a mistake, with nothing made."""
    before = {str(path) for path in Path().rglob("*")}
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1, err
    assert {str(path) for path in Path().rglob("*")} == before
    return err.removeprefix("mixcli ablate: error: ")


@pytest.mark.parametrize(("text", "line"), FILES, ids=[line for _, line in FILES])
def test_a_mistake_in_the_file_is_one_line_that_names_its_place(text, line, capsys) -> None:
    assert line_of(capsys, ["ablate", write(text), "--dry-run"]).startswith(line)


@pytest.mark.parametrize(("typed", "line"), TYPED, ids=[typed for typed, _ in TYPED])
def test_a_mistake_that_was_typed_is_one_line(typed, line, capsys) -> None:
    write()
    assert line_of(capsys, ["ablate", *typed.split()]).startswith(line)


def test_a_setting_from_the_environment_is_refused_and_the_machine_is_read(capsys, monkeypatch) -> None:
    write()
    monkeypatch.setenv("MIXCLI_RUNS", "elsewhere")
    assert design.read(Typed("small.toml"), {}, os.environ).arms[0].settings.runs == "elsewhere"
    monkeypatch.setenv("MIXCLI_EPOCHS", "3")
    expected = "MIXCLI_EPOCHS: a study does not read it. Give --set base.epochs=3, or unset it"
    assert line_of(capsys, ["ablate", "small.toml"]).startswith(expected)


def test_a_study_without_tiny_has_no_tiny_form(capsys) -> None:
    write(TINY.partition("[tiny]")[0] + ARMS)
    assert line_of(capsys, ["ablate", "small.toml", "--tiny"]).startswith("--tiny: the study has no table [tiny]")


# -- cells --------------------------------------------------------------------------------------------------------


def test_a_cell_is_the_run_that_train_would_make() -> None:
    study = read(TINY + ARMS)
    train = options.gather(
        {"method": "mixup", "per_class": "6", "batch": "20", "width": "2", "epochs": "2", "seed": "1"}, None, {}
    ).train
    facts = sources.look(train)
    complete = recipe.complete(train, facts)
    [cell] = [c for c in study.first_cells() if c.name == "mixup seed=1"]
    assert cell.job.run.folder == runs.locate(complete, options.identity(complete, facts)).folder


@pytest.mark.parametrize(
    "same",
    [
        AXES + "alpha = [1]\n",
        TINY + '[arms.x]\nmethod = "mixup"\nalpha = 1\npoints = 2\n',
        TINY + '[arms.x]\npoints = 2\nmethod = "mixup"\n',
        TINY + 'device = "cpu"\n'.join(['[arms.x]\nmethod = "mixup"\n', ""]),
        "threads = 2\n" + TINY + '[arms.x]\nmethod = "mixup"\n',
    ],
)  # fmt: skip
def test_number_form_order_defaults_and_machine_leave_the_cells_alone(same) -> None:
    one = read(TINY + '[arms.mixup]\nmethod = "mixup"\nalpha = 1.0\n')
    assert [c.job.run.id for c in read(same).first_cells()] == [c.job.run.id for c in one.first_cells()]


@pytest.mark.parametrize("other", ['precision = "bf16"', "split_seed = 1", "lr = 0.1", "label_noise = 0.1"])
def test_what_changes_the_weights_changes_the_cells(other) -> None:
    one, two = read(TINY + ARMS), read(TINY.replace("width = 2", f"width = 2\n{other}") + ARMS)
    assert not {c.job.run.id for c in one.first_cells()} & {c.job.run.id for c in two.first_cells()}


def test_the_split_may_follow_the_seed() -> None:
    study = read(TINY.replace("width = 2", 'width = 2\nsplit_seed = "seed"') + ARMS)
    assert [(c.seed, c.job.settings.split_seed) for c in study.arms[0].cells] == [(0, 0), (1, 1)]


def test_layers_lie_over_each_other_and_axes_multiply() -> None:
    text = AXES + "alpha = [0.2, 1.0]\nepochs = [3, 4]\n"
    study = read(text, tiny=True, set=("base.width=4", "arms.mixup.points=3"))
    assert study.name == "small-tiny" and study.baseline == "mixup alpha=0.2, epochs=3"
    assert study.names == [f"mixup alpha={a}, epochs={e}" for a in (0.2, 1.0) for e in (3, 4)]
    found = study.arms[1].settings
    assert (found.epochs, found.width, found.method.points, found.method.alpha) == (4, 4, 3, 0.2)  # pyright: ignore
    assert read(TINY + ARMS, tiny=True).arms[0].settings.epochs == 1


def test_an_axis_is_typed_with_its_base() -> None:
    study = design.read(Typed(axis=("beta=0,0.05",), seeds="3"), {"method": "synermix", "per_class": "6"}, {})
    assert study.names == ["synermix beta=0", "synermix beta=0.05"] and study.baseline == "synermix beta=0"
    assert [c.seed for c in study.arms[0].cells] == [0, 1, 2] and study.arms[0].settings.per_class == 6
    again = design.read(Typed(axis=("beta=0,0.05",), seeds="2,5"), {"method": "synermix", "per_class": "6"}, {})
    other = design.read(Typed(axis=("beta=0,0.05",), seeds="3"), {"method": "synermix", "per_class": "7"}, {})
    assert study.name == again.name != other.name and study.name.startswith("synermix-by-beta-")
    assert [c.seed for c in again.arms[0].cells] == [2, 5]


def test_a_choice_has_trials_on_validation_and_an_arm_without() -> None:
    study = read(CHOOSE + "val_fraction = 0.2\nseeds = [100, 101]\n")
    [choice] = study.choices
    assert [option.value for option in choice.options] == ["alpha=0.2", "alpha=1.0"] and study.cells == 2 + 4 + 2
    trial, final = choice.options[0].trial, choice.options[0].final
    assert (trial.settings.val_fraction, [c.seed for c in trial.cells]) == (0.2, [100, 101])
    assert (final.settings.val_fraction, [c.seed for c in final.cells]) == (0.0, [0, 1])
    assert final.name == "mixup" and all(c.chooses for c in trial.cells) and not any(c.chooses for c in final.cells)


# -- the named studies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [path.stem for path in sorted(NAMED.glob("*.toml"))])
def test_every_named_study_is_whole_in_its_tiny_form(name, capsys) -> None:
    assert main(["ablate", name, "--tiny", "--dry-run", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["study"] == f"{name}-tiny" and result["question"] and result["cells"] == result["to_do"]
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", [path.stem for path in sorted(NAMED.glob("*.toml"))])
def test_every_named_study_is_whole_at_full_size(name, monkeypatch) -> None:
    """Its settings fit the data they name; no pixels are needed to tell."""
    monkeypatch.setattr(sources, "look", lambda train: sources.CIFAR.get(train.dataset, sources.DIGITS))
    study = design.read(Typed(name), {}, {})
    assert study.name == name and len(study.names) > 1
    assert len(study.fields.seeds) == {"robustness": 10, "overhead": 1}.get(name, 8)


@pytest.mark.parametrize("name", ["synermix-p", "synermix-views"])
def test_a_study_of_synermix_carries_its_controls_and_shares_their_runs(name) -> None:
    study, controls = (design.read(Typed(n, tiny=True), {}, {}) for n in (name, "synermix-controls"))
    theirs = {arm.name: {cell.job.run.id for cell in arm.cells} for arm in controls.arms}
    mine = {arm.name: {cell.job.run.id for cell in arm.cells} for arm in study.arms}
    shared = ["clean-ce", "equal", "bn-only", "mixup-supplement", "mixup-supplement-2x", "mixup"]
    assert [name for name in mine if name in theirs and mine[name] == theirs[name]] == shared
    assert study.fields.family == written.VERSUS_BASELINE and study.baseline.startswith("synermix ")


def test_quickstart_is_what_the_readme_says() -> None:
    study = design.read(Typed("quickstart"), {}, {})
    assert study.names == ["none", "mixup", "cutmix", "manifold", "miamix", "synermix"]
    assert study.fields.test == "paired" and len(study.first_cells()) == 48
    assert all(c.job.settings.split_seed == c.seed for c in study.first_cells())


def test_an_unreadable_study_is_a_usage_error() -> None:
    with pytest.raises(UserError, match="large"):
        read("# " + "x" * 2**20 + TINY + ARMS)


# -- axes that arms share -----------------------------------------------------------------------------------------

SHARED = (
    'family = "like-for-like"\nbaseline = "none"\n' + TINY
    + "[tiny.axes.none]\nlabel_noise = [0.5]\n[tiny.axes.mixup]\nlabel_noise = [0.5]\n" + ARMS
    + "[axes.none]\nlabel_noise = [0.0, 0.2]\n[axes.mixup]\nalpha = [0.5, 2.0]\nlabel_noise = [0.0, 0.2]\n"
)  # fmt: skip


def test_like_for_like_holds_each_arm_against_the_baseline_at_the_same_values_of_its_axes():
    found = read(SHARED)
    assert found.fields.family == tuple(
        (f"mixup alpha={alpha}, label_noise={noise}", f"none label_noise={noise}")
        for alpha in ("0.5", "2.0")
        for noise in ("0.0", "0.2")
    )
    assert found.alike and found.document()["comparison"]["family"] == [list(pair) for pair in found.fields.family]
    with pytest.raises(UserError, match="field family: no arm has the axes of mixup"):
        read(SHARED, baseline="mixup")


def test_a_typed_or_tiny_axis_replaces_the_values_of_every_arm_that_has_it():
    assert read(SHARED, tiny=True).names == [
        "none label_noise=0.5", "mixup alpha=0.5, label_noise=0.5", "mixup alpha=2.0, label_noise=0.5"]  # fmt: skip
    assert read(SHARED, set=("axes.label-noise=0.1,0.3",)).names[:2] == ["none label_noise=0.1", "none label_noise=0.3"]
    assert read(SHARED, set=("axes.alpha=1",)).names[2:] == ["mixup alpha=1, label_noise=0.0",
                                                            "mixup alpha=1, label_noise=0.2"]  # fmt: skip
    for text, told in (("axes.alhpa=1", "no arm has this axis; got axes.alhpa. Did you mean alpha"),
                       ("axes.alpha=", "--set axes.alpha: no values"), ("axes.alpha", "names no setting of the study"),
                       ("axes.alpha=-1", "--set axes.alpha[0]: out of range")):  # fmt: skip
        with pytest.raises(UserError) as error:
            read(SHARED, set=(text,))
        assert told in str(error.value)


def test_a_screen_does_not_rank_arms_that_are_held_against_their_like_alone():
    with pytest.raises(UserError, match="--screen: ranks all arms, and the study compares like with like"):
        read(SHARED, screen=True)
    assert read(SHARED, confirm="mixup alpha=2.0, label_noise=0.2;none label_noise=0.0").fields.family


def test_data_sets_may_be_an_axis(folder, capsys):
    """Grey and colour, even and uneven, each with its own constants, border and mirror."""
    import numpy as np

    rng = np.random.default_rng(0)
    for name, shape, labels in (
        ("grey", (12, 12), [0, 1, 2] * 20),
        ("colour", (9, 9, 3), [0] * 40 + [1] * 14 + [2] * 6),
    ):
        images, held = rng.integers(0, 256, (60, *shape), dtype=np.uint8), np.array(labels)[:, None]
        np.savez(f"{name}.npz", train_images=images, train_labels=held, test_images=images, test_labels=held,
                 val_images=images[:5], val_labels=held[:5])  # fmt: skip
    text = 'metric = "test.balanced"\nfamily = "like-for-like"\n' + TINY.replace("per_class = 6\n", 'net = "small"\n')
    axes = "".join(f'[axes.{arm}]\ndataset = ["grey.npz", "colour.npz"]\n' for arm in ("none", "mixup"))
    found = read(text + ARMS + axes)
    flips = {arm.settings.dataset: (arm.settings.flip, arm.settings.pad) for arm in found.arms}
    assert flips == {"grey.npz": (False, 1), "colour.npz": (True, 1)}
    assert main(["ablate", "small.toml", "--seeds", "2", "--devices", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "test.balanced in points" in out and "accuracy" in out and "grey.npz and colour.npz" in out
    assert "mixup dataset=colour.npz - none" in out and "unequal" not in out and "exploratory" not in out


def test_domains_is_held_per_data_set_and_leaves_the_mirror_to_it(tmp_path):
    import numpy as np

    rng = np.random.default_rng(0)
    for name in ("dermamnist", "organamnist"):
        classes, channels = sources.KNOWN[name].classes, sources.KNOWN[name].channels
        images = rng.integers(0, 256, (440, 28, 28, channels), dtype=np.uint8)
        labels = (np.arange(440) % classes)[:, None]
        (tmp_path / "data").mkdir(exist_ok=True)
        np.savez(tmp_path / "data" / f"{name}.npz", train_images=images, train_labels=labels, test_images=images,
                 test_labels=labels)  # fmt: skip
    found = design.read(Typed("domains", set=("axes.dataset=dermamnist,organamnist",)), {}, {})
    assert found.cells == 4 * 2 * 8 and found.fields.metric == "test.balanced"
    assert {arm.settings.dataset: arm.settings.flip for arm in found.arms} == {"dermamnist": True, "organamnist": False}
    assert len(found.fields.family) == 6 and all(a.split("=")[1] == b.split("=")[1] for a, b in found.fields.family)
    with pytest.raises(UserError, match="svhn: not found"):
        design.read(Typed("domains"), {}, {})
