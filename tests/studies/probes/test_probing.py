"""From a run to a probe's files: the same images for all, nets left as they were, features kept once, refusals."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from mixcli.engine import checkpoint, inference
from mixcli.errors import UserError
from mixcli.report.probes import figures
from mixcli.runs import Run
from mixcli.studies.probes import catalogue as probes
from mixcli.studies.probes import features, linearity, probing
from mixcli.studies.probes.probing import Asked
from tests.studies.heard import Heard
from tests.studies.probes import probe_store
from tests.studies.probes.probe_store import probe, run_of, suited

pytestmark = pytest.mark.usefixtures("undrawn_probes")

EVERY = sorted(probes.PROBES)
NUMBERS = ["dev_norm", "dev_norm_low", "dev_norm_high", "dev_spread", "dev_spread_low", "dev_spread_high"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return probe_store.store(tmp_path_factory.mktemp("probes"))


@pytest.fixture
def runs(store, tmp_path):
    return probe_store.copied(store, tmp_path)


# ------------------------------------------------------------------------------------------------- one choice of images


@pytest.mark.parametrize("name", EVERY)
def test_a_probe_leaves_weights_statistics_and_modes_as_they_were(name, runs):
    method, few = suited(name)
    asked = Asked(name, run_of(runs, method), options=probes.named(name).options(**few))
    scene = probing.scene_of(asked, Heard())
    before = {key: value.clone() for key, value in scene.main.net.state_dict().items()}
    with probing.exact(scene.main):
        probing.look(scene, "")
    after = scene.main.net.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before) and len(before) == len(after)
    assert not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in scene.main.net.modules())


def test_two_checkpoints_of_one_data_set_receive_identical_lists(runs):
    scenes = [
        probing.scene_of(Asked("linearity", run_of(runs, m, s), images=100), Heard())
        for m, s in (("none", 0), ("mixup", 0), ("none", 1))
    ]
    first, *others = [(s.chosen.index, linearity.lists(s, probes.Linearity())) for s in scenes]
    for index, lists in others:
        assert np.array_equal(index, first[0])
        for one, other in zip(lists, first[1], strict=True):
            assert np.array_equal(one.rows, other.rows) and np.array_equal(one.weights.values, other.weights.values)


def test_another_seed_or_probe_chooses_other_images_each_class_in_its_share(runs):
    def chosen(probe, seed):
        return probing.scene_of(Asked(probe, run_of(runs), images=100, seed=seed), Heard()).chosen

    one = chosen("linearity", 0)
    assert np.bincount(one.labels).tolist() == [10] * 10
    assert not np.array_equal(one.index, chosen("linearity", 1).index)
    assert not np.array_equal(one.index, chosen("calibration", 0).index)
    assert np.array_equal(one.index, chosen("linearity", 0).index)


def test_fewer_tuples_are_the_first_of_the_same_lists(runs, monkeypatch):
    scene = probing.scene_of(Asked("linearity", run_of(runs)), Heard())
    whole = linearity.lists(scene, probes.Linearity())
    monkeypatch.setattr(linearity, "TUPLES_CPU", 40)
    for few, all_ in zip(linearity.lists(scene, probes.Linearity()), whole, strict=True):
        assert np.array_equal(few.rows, all_.rows[:40]) and np.array_equal(few.weights.values, all_.weights.values[:40])


def test_averaged_weights_are_taken_where_the_run_has_them_and_said_on_the_first_line(runs):
    heard = Heard()
    found = probe("calibration", run_of(runs, seed=1), heard)
    assert "calibration: digits, test split, 360 images | " in heard.lines[0]
    assert "last epoch (4), EMA weights" in heard.lines[0]
    assert set(found.findings.table["weights"]) == {"EMA"}
    accuracy = Run(probing.Path(run_of(runs, seed=1))).finished()["accuracy"]
    assert found.findings.table["top1"].dropna().iloc[0] == pytest.approx(accuracy, abs=1e-12)


def test_runs_on_other_images_are_refused(runs, tmp_path):
    other = probe_store.train(tmp_path / "others", split_seed=5)
    with pytest.raises(UserError, match="other test images") as error:
        probe("calibration", run_of(runs), against=(str(other),))
    assert error.value.exit_code == 2
    fewer = probe_store.train(tmp_path / "fewer", per_class=8)
    with pytest.raises(UserError, match="its train images are not those of") as error:
        probe("calibration", run_of(runs), against=(str(fewer),), split="train")
    assert error.value.exit_code == 2


# ------------------------------------------------------------------------------------------------------------- features


def counted(monkeypatch):
    """A list that grows by the images of every pass over plain images."""
    seen, computed = [], probing.computed
    monkeypatch.setattr(probing, "computed", lambda *a: seen.append(len(a[1])) or computed(*a))
    return seen


def test_a_second_probe_makes_no_pass_over_plain_images(runs, monkeypatch):
    seen = counted(monkeypatch)
    heard = Heard()
    probe("calibration", run_of(runs))
    first = list(seen)
    found = probe("calibration", run_of(runs), heard, images=200)
    assert first and seen == first
    assert heard.lines[1] == "no forward passes: the features are cached" and len(found.findings.table)


def test_features_are_those_of_the_net_at_every_site(runs):
    scene = probing.scene_of(Asked("calibration", run_of(runs)), Heard())
    found, net = scene.features(scene.main), scene.main.net
    x = probing.images_of(scene.main, scene.chosen)
    with torch.no_grad():
        assert np.allclose(found.values["logits"], net(x).numpy(), atol=1e-5)
        assert np.allclose(found.values["layer2"], net.features(x, stop="layer2").mean((2, 3)).numpy(), atol=1e-5)
    assert set(found.values) == {"stem", "layer1", "layer2", "layer3", "pooled", "logits"}
    again = scene.features(scene.main)
    assert all(np.array_equal(again.values[site], found.values[site]) for site in found.values)


@pytest.mark.parametrize("harm", ["manifest", "values", "folder"])
def test_a_cache_that_contradicts_itself_is_refused_and_refreshed(runs, harm):
    probe("calibration", run_of(runs))
    cache = next((probing.Path(run_of(runs)) / "studies" / "features").glob("*/manifest.json")).parent
    if harm == "manifest":
        content = json.loads((cache / "manifest.json").read_text())
        content["identity"]["weights"] = "0" * 12
        (cache / "manifest.json").write_text(json.dumps(content))
    elif harm == "values":
        np.save(cache / "logits.npy", np.zeros((360, 10), np.float32))
    else:  # another checkpoint's features under this one's name
        probe("calibration", run_of(runs, "mixup"))
        other = next((probing.Path(run_of(runs, "mixup")) / "studies" / "features").glob("*/manifest.json")).parent
        shutil.rmtree(cache)
        shutil.copytree(other, cache)
    whole = [c for c in cache.parent.glob("*") if c != cache]
    for extra in whole:
        shutil.rmtree(extra)
    with pytest.raises(UserError) as error:
        probe("calibration", run_of(runs))
    assert error.value.exit_code == 2 and "digest differs" in str(error.value) and "--refresh" in str(error.value)
    probe("calibration", run_of(runs), refresh=True)
    assert probe("calibration", run_of(runs)).findings is not None


def test_the_key_of_features_is_made_of_weights_split_images_and_pixels(runs):
    scene = probing.scene_of(Asked("calibration", run_of(runs)), Heard())
    test, fewer = scene.chosen, scene.chosen.take(np.arange(100))
    brighter = probing.Split(test.images // 2, test.labels, test.index)
    base = ("w", "digits", "test", test)
    others = [("v", *base[1:]), ("w", "d", "test", test), ("w", "digits", "val", test), (*base[:3], fewer),
              (*base[:3], brighter)]  # fmt: skip
    keys = [features.key(features.identity(*words)) for words in (base, *others)]
    assert len(set(keys)) == len(keys)


def test_features_that_do_not_fit_are_refused_before_they_are_made(runs, monkeypatch):
    monkeypatch.setattr(probing, "LIMIT", 1000)
    with pytest.raises(UserError, match="features: need .* limit") as error:
        probe("calibration", run_of(runs))
    assert error.value.exit_code == 2 and "--images" in str(error.value)


# -------------------------------------------------------------------------------------------------- epochs, files, cost


def test_the_last_kept_epoch_and_the_run_give_the_same_table(runs):
    run = run_of(runs)
    one = probe("linearity", run).findings.table
    other = probe("linearity", f"{run}/epochs/epoch-0004.ckpt").findings.table
    pd.testing.assert_frame_equal(one.drop(columns="checkpoint"), other.drop(columns="checkpoint"))


def test_all_epochs_are_those_that_the_run_kept_and_the_last_one_once(runs):
    found = probe("linearity", run_of(runs), all_epochs=True).findings
    trained = found.table[found.table["role"] == "main"].drop_duplicates("checkpoint")
    assert trained["epoch"].tolist() == [2, 4] and trained["digest"].nunique() == 2
    folder = probing.Path(run_of(runs), "studies")
    assert (folder / "linearity-epochs.csv").is_file() and (folder / "linearity-epochs-epochs.png").is_file()
    with pytest.raises(UserError, match="--keep") as error:
        probe("linearity", run_of(runs, "mixup"), all_epochs=True)
    assert error.value.exit_code == 2


def test_each_checkpoint_gets_its_own_files_and_the_first_the_joint_ones(runs, undrawn_probes, monkeypatch):
    monkeypatch.setattr(figures, "saved", undrawn_probes)
    found = probe("linearity", run_of(runs, "mixup"), against=(run_of(runs),))
    main, other = (probing.Path(run_of(runs, m), "studies") for m in ("mixup", "none"))
    for folder, name in ((main, "linearity-joint"), (main, "linearity"), (other, "linearity")):
        assert {p.name for p in folder.glob(f"{name}.*")} == {f"{name}.{end}" for end in ("csv", "json", "png", "pdf")}
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    joint, own = (pd.read_csv(main / f"{name}.csv") for name in ("linearity-joint", "linearity"))
    assert set(joint["role"]) == {"main", "against", "untrained"} and set(own["role"]) == {"main", "untrained"}
    assert set(pd.read_csv(other / "linearity.csv")["role"]) == {"against", "untrained"}
    assert np.allclose(joint[NUMBERS], found.findings.table[NUMBERS], rtol=1e-12, equal_nan=True)
    said = json.loads((main / "linearity.json").read_text())
    assert said["images"] == 360 and said["dataset"] == "digits" and len(said["headline"]) == 1
    for column in ("dataset", "split", "images", "digest", "weights", "epoch", "selected"):
        assert joint[column].notna().all() or column == "digest", column


def test_equal_findings_give_equal_bytes(runs, undrawn_probes, monkeypatch):
    monkeypatch.setattr(figures, "saved", undrawn_probes)
    folder = probing.Path(run_of(runs), "studies")

    def contents():
        probe("calibration", run_of(runs))
        return {p.name: p.read_bytes() for p in folder.glob("calibration*")}

    assert contents() == contents()


def test_a_loose_checkpoint_writes_beside_itself_or_where_it_was_told(runs, tmp_path):
    loose = tmp_path / "mine.ckpt"
    shutil.copy(probing.Path(run_of(runs), "run.ckpt"), loose)
    assert probe("calibration", str(loose)).folders == (str(tmp_path / "mine-studies"),)
    assert (tmp_path / "mine-studies" / "calibration.csv").is_file()
    probe("calibration", str(loose), out=tmp_path / "there")
    assert (tmp_path / "there" / "calibration.json").is_file()


def test_a_dry_run_tells_the_cost_and_writes_nothing(runs):
    before = sorted(runs.rglob("*"))
    heard = Heard()
    found = probe("linearity", run_of(runs), heard, dry_run=True)
    assert found.findings is None and "forward passes, about" in heard.lines[1] and sorted(runs.rglob("*")) == before
    # 4 lists of 180, 178, 120, 118 tuples: 2 + 13 images a pair, 3 + 4 a triple; 4 nets, and the statistics of 3
    assert found.document["cost"].startswith(f"{4 * (358 * 15 + 238 * 7) + 3 * 2000:,} forward passes")


# -------------------------------------------------------------------------------------------- headline numbers, studies


@pytest.mark.parametrize("name", EVERY)
def test_headline_numbers_are_those_declared_and_the_same_without_references(name, runs):
    declared = tuple(probes.named(name).headlines)
    method, few = suited(name)
    whole = probe(name, run_of(runs, method), options=few).findings
    asked = Asked(name, options=probes.named(name).options(**few))
    alone = probing.headlines(asked, probing.Path(run_of(runs, method)) / "run.ckpt", Heard())
    assert alone == pytest.approx(whole.headline[whole.table["checkpoint"].iloc[0]], rel=1e-9)
    assert alone and all(n in declared or any(n.startswith(d) for d in declared if d.endswith(".")) for n in alone)
    assert {d for d in declared} == {next(d for d in declared if n == d or n.startswith(d)) for n in alone}


def test_linearity_has_references_and_says_where_there_is_none_to_read_a_direction(runs):
    found = probe("linearity", run_of(runs, "mixup"), options={"points": (2,)}).findings
    fresh = found.table[found.table["role"] == "untrained"]
    assert fresh["checkpoint"].nunique() == 3
    assert any("no reference run: direction cannot be read" in line for line in found.remarks)
    compared = probe("linearity", run_of(runs, "mixup"), against=(run_of(runs),)).findings
    assert not any("no reference run" in line for line in compared.remarks)
    assert any("no verdict from 1 seed" in line for line in compared.remarks)


def test_a_net_of_other_stages_is_no_reference_for_linearity(runs, tmp_path):
    other = probe_store.train(tmp_path / "wide", net="resnet18", epochs=1)
    with pytest.raises(UserError, match="has other stages") as error:
        probe("linearity", run_of(runs), against=(str(other),))
    assert error.value.exit_code == 2


def test_clean_batchnorm_changes_a_mixing_run_and_every_site_of_mixing_makes_a_triangle(runs):
    stored = probe("linearity", run_of(runs, "mixup"), options={"points": (2,)}).findings
    clean = probe(
        "linearity", run_of(runs, "mixup"), options={"points": (2,), "bn": "clean", "mix_at": "every"}
    ).findings
    one, other = (f.headline[f.table["checkpoint"].iloc[0]]["dev_spread.layer3"] for f in (stored, clean))
    assert one != other and one == pytest.approx(other, rel=0.5)
    sites = [s for s in dict.fromkeys(clean.table["site"])]
    for place, site in zip(clean.table["mix_at"], clean.table["site"], strict=True):
        assert sites.index(place) <= sites.index(site)
    assert set(clean.table["mix_at"]) == set(sites) - {"softmax"}
    diagonal = clean.table[clean.table["mix_at"] == clean.table["site"]]
    assert diagonal["dev_norm"].max() < 1e-6


# ------------------------------------------------------------------------------------------------------ what is refused


def spoiled(runs, tmp_path, change, method="none"):
    """A checkpoint of a run whose content was changed."""
    content = checkpoint.read(probing.Path(run_of(runs, method), "run.ckpt"))
    change(content)
    path = tmp_path / "spoiled.ckpt"
    path.write_bytes(checkpoint.serialise(content))
    return str(path)


@pytest.mark.parametrize("name", EVERY)
def test_features_that_are_not_finite_are_told_with_site_and_count(name, runs, tmp_path):
    def poison(content):
        content["net"]["stages.layer2.conv1.weight"][0, 0, 0, 0] = float("nan")

    method, few = suited(name)
    with pytest.raises(UserError) as error:
        probe(name, spoiled(runs, tmp_path, poison, method), options=few)
    assert error.value.exit_code == 4 and "layer2: non-finite in " in str(error.value)


@pytest.mark.parametrize("method", ["none", "mixup"])
def test_a_method_without_a_random_part_has_no_gradient_noise_however_it_is_asked(method, runs):
    asked = Asked("gradient-noise", run_of(runs, method), options=probes.GradientNoise())
    scene = probing.scene_of(asked, Heard())
    for start in (lambda: probing.run(asked, Heard()), lambda: probing.look(scene, "")):
        with pytest.raises(UserError, match="has no random part named intra") as error:
            start()
        assert error.value.exit_code == 2 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("asked", "code", "line"),
    [
        ({"images": 0}, 2, "--images: out of range"),
        ({"images": 361}, 2, "1 … 360"),
        ({"images": 5}, 3, "5 images of 10 classes"),
        ({"stages": "layer9"}, 2, "Did you mean layer"),
        ({"split": "all"}, 2, "--split: unknown"),
        ({"out": probing.Path("figure.bmpx")}, 2, "--out: suffix"),
        ({"against": ("nowhere.ckpt",)}, 3, "nowhere.ckpt"),
    ],
)
def test_a_mistake_is_told_before_anything_is_computed(runs, asked, code, line):
    heard = Heard()
    with pytest.raises(UserError) as error:
        probe("linearity", run_of(runs), heard, **asked)
    assert error.value.exit_code == code and line in str(error.value) and not heard.lines


def test_equal_pixels_in_both_parts_are_counted_and_warned_of(runs, monkeypatch):
    split = probing._split

    def leaky(source, name):
        train = split(source, "train")
        twins = probing.Split(np.concatenate([train.images, source.test.images[:3], source.test.images[:1]]),
                              np.append(train.labels, source.test.labels[[0, 1, 2, 0]]),
                              np.append(train.index, [2000, 2001, 2002, 2003]))  # fmt: skip
        return twins if name == "train" else split(source, name)

    probe("geometry", run_of(runs), clean := Heard())
    assert not clean.warnings
    monkeypatch.setattr(probing, "_split", leaky)
    probe("geometry", run_of(runs), heard := Heard())
    assert heard.warnings == ["split: 3 groups of equal pixels across train and test"]


def test_a_class_without_an_image_is_told(runs, monkeypatch):
    def without_seven(source, name):
        split = probing.sources.Split.take(source.test, source.test.labels != 7)
        return split

    monkeypatch.setattr(probing, "_split", without_seven)
    with pytest.raises(UserError, match="class 7: absent in test split") as error:
        probe("linearity", run_of(runs))
    assert error.value.exit_code == 3


def test_a_run_without_validation_images_has_no_such_split(tmp_path):
    run = probe_store.train(tmp_path, val_fraction=0.0)
    with pytest.raises(UserError, match="held no validation images out") as error:
        probe("calibration", str(run), split="val")
    assert error.value.exit_code == 2


def test_other_pixels_than_those_of_the_training_are_refused(runs, tmp_path):
    changed = spoiled(runs, tmp_path, lambda content: content["data"].update(digest="0" * 64))
    with pytest.raises(UserError, match="pixel digest differs") as error:
        probe("calibration", changed)
    assert error.value.exit_code == 3


def test_tf32_and_gradients_are_off_and_set_back(runs):
    scene = probing.scene_of(Asked("linearity", run_of(runs)), Heard())
    before = torch.backends.cudnn.allow_tf32
    with probing.exact(scene.main):
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        assert not torch.is_grad_enabled()
    assert torch.backends.cudnn.allow_tf32 == before and torch.is_grad_enabled()


def test_a_run_in_bfloat16_is_probed_in_float32(tmp_path):
    run = probe_store.train(tmp_path, precision="bf16")
    scene = probing.scene_of(Asked("linearity", str(run)), Heard())
    assert not scene.main.machine.bf16 and next(scene.main.net.parameters()).dtype == torch.float32
    assert inference.restore(run / "run.ckpt")[1].bf16
