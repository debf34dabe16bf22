"""Training with images without labels: which they are, in which order, what teaches, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from mixcli import cli
from mixcli.data.order import epoch
from mixcli.data.sources import CIFAR, HIDDEN, load, look
from mixcli.engine import inference
from mixcli.engine.training import loaded
from mixcli.errors import UserError
from mixcli.recipe import Train, complete, epoch_steps
from mixcli.sampling import Random
from mixcli.settings import ICT, MixMatch, NoMixing
from tests.engine import harness


def test_labels_are_balanced_chosen_by_the_split_seed_and_a_smaller_choice_lies_in_a_larger():
    few, many = (loaded(harness.settings(ICT(), labels=n, per_class=None)) for n in (50, 200))
    assert np.bincount(few.train.labels).tolist() == [5] * 10
    assert set(few.train.index) < set(many.train.index)
    other = loaded(harness.settings(ICT(), labels=50, per_class=None, seed=7))
    assert np.array_equal(few.train.index, other.train.index)
    moved = load(Train(labels=50, split_seed=1))
    assert set(moved.train.index) != set(few.train.index)


@pytest.mark.parametrize("which", ["rest", "all"])
def test_unlabelled_images_are_the_rest_or_all_and_their_labels_are_hidden(which):
    settings = harness.settings(ICT(unlabelled=which), labels=40)
    source = loaded(settings)
    whole = load(settings.model_copy(update={"labels": None}))
    rest = set(whole.train.index) - set(source.train.index)
    assert set(source.unlabelled.index) == (rest if which == "rest" else set(whole.train.index))
    assert (source.unlabelled.labels == HIDDEN).all() and len(source.unlabelled) == {"rest": 80, "all": 120}[which]


@pytest.mark.parametrize("method", [ICT(), MixMatch()], ids=lambda m: m.name)
def test_poisoned_labels_of_unlabelled_images_change_nothing(tmp_path, method):
    settings = harness.settings(method, epochs=1)
    honest = harness.run_through(tmp_path / "a", settings)
    poisoned = harness.training(tmp_path / "b", settings)
    split = poisoned.source.unlabelled
    labels = np.random.default_rng(0).integers(0, 10, len(split))
    poisoned.source = replace(poisoned.source, unlabelled=replace(split, labels=labels))
    with poisoned.machine.session():
        poisoned.go()
    assert harness.same_bits(honest, poisoned)


def test_a_step_takes_its_own_number_of_unlabelled_images_and_an_epoch_passes_over_them_once():
    labels = np.repeat(np.arange(10), 4)
    order = epoch(labels, 20, 0, Random(0, "order"), steps=5, unlabelled=(31, 6))
    steps = [order.step(k) for k in range(5)]
    seen = np.concatenate([step.unlabelled for step in steps])
    assert len(np.unique(seen)) == 30 and seen.max() < 31
    assert [len(step.rows) for step in steps] == [20] * 5
    passes = [np.concatenate([step.rows for step in steps[k : k + 2]]) for k in (0, 2)]
    assert all(len(np.unique(rows)) == 40 for rows in passes)  # two labelled passes, and a part of a third
    one = epoch(labels, 20, 0, Random(0, "order"))
    assert np.array_equal(one.step(0).rows, steps[0].rows) and one.step(0).unlabelled.size == 0


def test_g20_the_images_of_a_resumed_run_are_those_of_the_uninterrupted_one(tmp_path):
    def ids(training, sink):
        step = training.step

        def seen(order, k):
            sink.extend((images.rows.tolist(), images.unlabelled.tolist()) for images in training.batches(order, k))
            step(order, k)

        training.step = seen

    settings, whole, after = harness.settings(ICT(unlabelled_batch=7), epochs=2), [], []
    made = harness.training(tmp_path / "a", settings)
    ids(made, whole)
    with made.machine.session():
        made.go()
    harness.run_cut(tmp_path / "b", settings, 8, lambda training: ids(training, after))
    assert after == whole[8:] and len(whole) == 12 and len({tuple(u) for _, u in whole}) == 12


def test_the_teacher_is_the_warmed_average_it_claims_to_be(tmp_path):
    made = harness.training(tmp_path, harness.settings(ICT(), epochs=2, ema=0.8))
    average = made.state.net.head.weight.detach().clone()
    original, updates = made.step, 0

    def step(order, k):
        nonlocal average, updates
        original(order, k)
        updates += 1
        decay = min(1 - 1 / (updates + 1), 0.8)
        average = decay * average + (1 - decay) * made.state.net.head.weight.detach()

    made.step = step
    with made.machine.session():
        result = made.go()
    assert torch.allclose(made.state.teacher.head.weight, average, atol=1e-6)
    assert result["weights"] == "EMA" and result["unlabelled"] == "rest" and result["unlabelled_images"] == 60
    _, _, net = inference.restore(made.run.checkpoint, "cpu")
    assert torch.equal(net.head.weight, made.state.teacher.head.weight)


@pytest.mark.parametrize(
    ("method", "own"),
    [(ICT(), True), (ICT(teacher_bn="eval"), False), (ICT(unlabelled_weight=0), False), (MixMatch(), False)],
    ids=["batch", "eval", "no consistency", "mixmatch"],
)
def test_the_averaged_net_has_the_statistics_of_its_own_passes_or_averaged_ones(tmp_path, method, own):
    made = harness.run_through(tmp_path, harness.settings(method, epochs=1))
    teacher, student = made.state.evaluated.stages["stem"][1], made.state.net.stages["stem"][1]
    passes = int(student.num_batches_tracked)
    assert int(teacher.num_batches_tracked) == (harness.STEPS if own else passes)
    assert passes == harness.STEPS * (2 if isinstance(method, ICT) and method.unlabelled_weight else 1)


def test_a_weight_of_zero_trains_the_supervised_methods_weights_bit_for_bit(tmp_path):
    zero = harness.run_through(tmp_path / "a", harness.settings(ICT(unlabelled_weight=0, supervised="plain"), epochs=2))
    plain = harness.settings(NoMixing(), labels=60, epoch_steps=harness.STEPS, epochs=2)
    other = harness.run_through(tmp_path / "b", plain)
    for name, value in other.state.net.state_dict().items():
        assert torch.equal(zero.state.net.state_dict()[name], value), name


def test_the_run_folder_says_which_labels_were_used(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(ICT(), epochs=1))
    found = json.loads(made.run.labelled.read_text())
    assert found["images"] == made.source.train.index.tolist() and found["labels"] == 60
    made.run.clear()
    assert not made.run.labelled.exists()


def test_whitening_is_fitted_once_and_travels_in_the_checkpoint(tmp_path):
    settings = harness.settings(ICT(), epochs=2, zca=True)
    one = harness.run_through(tmp_path / "a", settings)
    assert harness.same_bits(one, harness.run_cut(tmp_path / "b", settings, 7))
    _, _, net = inference.restore(one.run.checkpoint, "cpu")
    seen = torch.cat([one.data.clean(0, 999), one.unlabelled.clean(0, 999)])
    rows = net.stages["stem"][0](seen).flatten(1)
    kept = rows.var(0) > 0.5  # border pixels of digits hardly vary
    assert kept.sum() > 40 and torch.allclose(rows.mean(0), torch.zeros(64), atol=1e-3)


def test_an_epoch_is_one_pass_over_the_unlabelled_images_unless_told():
    settings = complete(Train(method=ICT(), labels=100), look(Train()))
    assert settings.batch == 25 and epoch_steps(settings, look(Train())) == 1337 // 25
    assert epoch_steps(complete(Train(labels=100, epoch_steps=9), look(Train())), look(Train())) == 9
    assert settings.ema == 0.99 and complete(Train(), look(Train())).ema == 0
    assert complete(Train(dataset="cifar10", method=ICT()), CIFAR["cifar10"]).ema == 0.999


REFUSED = [
    (["--method", "ict", "--labels", "2000"], "--labels: the training set has 1437 images; got 2000"),
    (["--method", "none", "--labels", "105"], "--labels: not divisible by 10 classes; got 105"),
    (["--method", "ict", "--labels", "5"], "expected a multiple, such as 10"),
    (["--method", "mixmatch", "--per-class", "10"], "--unlabelled: the labels of all 100 training images are used"),
    (["--method", "ict", "--unlabelled-batch", "5000"], "--unlabelled-batch: there are 1337 unlabelled images"),
    (["--method", "ict", "--ema", "0"], "--ema: the teacher of ict is an average of the weights"),
    (["--method", "mixup", "--unlabelled", "all"], "--unlabelled: method mixup has no such option"),
    (["--method", "ict", "--points", "9"], "--points: out of range"),
    (["--method", "ict", "--net", "cnn-13"], "--net: images of 8x8 pixels do not fit it"),
    (["--method", "ict", "--labels", "0"], "--labels: out of range"),
]


@pytest.mark.parametrize(("words", "line"), REFUSED, ids=[line[:40] for _, line in REFUSED])
def test_bad_input_is_one_line_and_makes_nothing(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *words]) == 2
    told = capsys.readouterr().err.strip()
    assert line in told and "\n" not in told and not list(tmp_path.iterdir())


def test_a_ramp_longer_than_training_is_one_warning_that_says_the_effect(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--method", "ict", "--ramp", "40", "--epochs", "20", "--dry-run"]) == 0
    told = capsys.readouterr().err
    assert "--ramp: rises for 40 epochs, longer than the 20 trained: the unlabelled weight ends at 28.7, 29%" in told
    assert not list(ICT().doubts(20)) and not list(ICT(ramp=20).doubts(20))


def test_a_class_too_small_for_its_share_of_the_labels_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = np.array([0] * 18 + [1] * 2)
    images = np.zeros((20, 8, 8, 3), np.uint8)
    np.savez("few.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    with pytest.raises(UserError, match="class '1' has 2 images"):
        load(Train(dataset="few.npz", labels=10))
