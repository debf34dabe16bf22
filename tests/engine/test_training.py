from __future__ import annotations

import json
import math
import os
import signal

import numpy as np
import pytest
import torch

from mixcli.data import sources
from mixcli.data.augment import Augmentation
from mixcli.engine import schedule, training
from mixcli.engine.device import prepare
from mixcli.engine.inference import Evaluation, evaluate, restore
from mixcli.engine.stopping import Stop
from mixcli.errors import UserError
from mixcli.settings import METHODS, CutMix, MixUp, SynerMix
from tests.engine import harness


def factors(steps=5, **changes):
    train = harness.settings(**changes)
    factor = schedule.factor(train, steps)
    return [factor(step) for step in range(steps * train.epochs)]


def test_cosine_falls_per_epoch_and_ends_near_zero():
    found = factors(schedule="cosine", epochs=10)
    assert found[:5] == [1.0] * 5
    assert all(len(set(found[5 * e : 5 * e + 5])) == 1 for e in range(10))
    assert found[-1] == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))


def test_step_halves_every_ten_epochs_to_the_published_last_rate():
    found = factors(schedule="step", epochs=120)
    assert found[0] == 1 and found[5 * 10] == 0.5
    assert 0.1 * found[-1] == pytest.approx(4.9e-5, rel=0.01)


def test_one_cycle_rises_to_its_peak_and_falls_to_nothing():
    found = factors(schedule="one-cycle", epochs=20)
    peak = found.index(max(found))
    assert found[0] == pytest.approx(0.04) and abs(peak - 0.3 * len(found)) < 2 and found[-1] < 1e-4
    assert found[: peak + 1] == sorted(found[: peak + 1]) and found[peak:] == sorted(found[peak:], reverse=True)


def test_a_row_logs_the_rate_that_its_last_update_used(tmp_path):
    made = harness.training(tmp_path, harness.settings(epochs=2, schedule="cosine", lr=0.1))
    used: list[float] = []
    made.state.optimizer.register_step_pre_hook(lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"]))
    made.go()
    assert used == pytest.approx([0.1] * 6 + [0.05] * 6)
    assert [row["lr"] for row in made.run.rows()] == pytest.approx([0.1, 0.05])


def test_a_cosine_may_end_after_training_does(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(epochs=2, schedule="cosine", lr=0.1, schedule_epochs=4))
    expected = [0.1, 0.05 * (1 + 0.5**0.5)]
    assert [row["lr"] for row in made.run.rows()] == pytest.approx(expected)


def test_plans_that_are_drawn_together_are_those_of_each_step_alone(tmp_path):
    made = harness.training(tmp_path, harness.settings(CutMix(per="sample")))
    order, drawn = made.order(0), []
    assert made.ahead > 3 <= made.steps
    for made.state.step in range(3):
        plan = made.planned(order, made.state.step)
        drawn.append(plan.mix.keep)
    for step, keep in enumerate(drawn):
        assert torch.equal(keep, made.plan(order.step(step), step).mix.keep)
    assert not torch.equal(drawn[0], drawn[1])


def test_ema_is_the_running_average_it_claims_to_be(tmp_path):
    made = harness.training(tmp_path, harness.settings(ema=0.8, epochs=1))
    average = None
    original = made.step

    def step(order, k):
        nonlocal average
        original(order, k)
        now = made.state.net.head.weight.detach().clone()
        average = now if average is None else 0.8 * average + 0.2 * now

    made.step = step
    with made.machine.session():
        result = made.go()
    assert torch.allclose(made.state.ema.module.head.weight, average, atol=1e-6)
    assert result["weights"] == "EMA"


def test_evaluation_counts_do_not_depend_on_the_batch_size(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(epochs=1))
    found = [evaluate(made.state.net, made.held_out["test"], made.machine, batch) for batch in (1, 7, 64, 1000)]
    assert all(torch.equal(f.correct, found[0].correct) for f in found)
    assert all(abs(f.nll - found[0].nll) < 1e-6 for f in found)
    assert made.state.net.training


@pytest.mark.parametrize("method", [MixUp(), SynerMix(), CutMix()], ids=lambda m: m.name)
def test_t13_a_diverging_run_stops_before_its_weights_and_files_are_poisoned(tmp_path, method):
    made = harness.training(tmp_path, harness.settings(method, lr=1e30, momentum=0.0, epochs=2))
    with pytest.raises(UserError) as caught, made.machine.session():
        made.go()
    error = caught.value
    assert error.exit_code == 4 and f"step {made.state.step + 1}" == error.subject
    assert "not finite" in str(error) and "lr" in str(error) and method.name in str(error)
    assert (
        not made.run.checkpoint.exists()
        or torch.load(made.run.checkpoint, weights_only=True)["step"] <= made.state.step
    )


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_g15_a_planted_non_finite_number_leaves_the_weights_of_the_step_before(tmp_path, where):
    reference = harness.run_through(tmp_path / "a", harness.settings(epochs=2))
    before = harness.training(tmp_path / "b", harness.settings(epochs=2))
    forward, weights = before.forward, {}

    def poisoned(batch, plan):
        losses = forward(batch, plan)
        if before.state.step == 8:
            weights.update({k: v.clone() for k, v in before.state.net.named_parameters()})
            if where == "loss":
                return type(losses)(losses.total * torch.nan, losses.parts)
            before.state.net.head.weight.register_hook(lambda g: g * torch.inf)
        return losses

    before.forward = poisoned
    with pytest.raises(UserError, match=f"{where} not finite"), before.machine.session():
        before.go()
    assert all(torch.equal(weights[k], v) for k, v in before.state.net.named_parameters())
    assert torch.load(before.run.checkpoint, weights_only=True)["step"] == 6
    assert reference.state.step == 12


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_g12_a_signal_ends_the_step_saves_and_returns_its_code(tmp_path, number, code):
    train = harness.settings(epochs=2)
    made = harness.training(tmp_path, train)
    made.run.close()

    class Signalling(harness.Quiet):
        def step(self, done, total):
            if done == 4:
                os.kill(os.getpid(), number)

    with made.run.open(), Stop().listening() as stop, pytest.raises(UserError) as caught:
        training.train(train, made.run, Signalling(), stop)
    assert caught.value.exit_code == code and "at step 4" in str(caught.value)
    assert torch.load(made.run.checkpoint, weights_only=True)["step"] == 4
    assert signal.getsignal(number) is not None and Stop().kind is None


def test_a_stop_before_the_first_step_saves_nothing_and_says_so(tmp_path):
    train = harness.settings(epochs=1)
    made = harness.training(tmp_path, train)
    made.stop.deadline = 0.0
    with pytest.raises(UserError, match="before the first step. Nothing was saved"):
        made.go()
    assert not made.run.checkpoint.exists()


def test_the_result_is_of_the_last_epoch_with_the_median_of_the_last_ten_beside_it(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(epochs=12))
    result, rows = json.loads(made.run.result.read_text()), made.run.rows()
    scores = [row["test"]["accuracy"] for row in rows]
    assert result["accuracy"] == scores[-1] and result["evaluations"] == 10
    assert result["accuracy_median_last10"] == pytest.approx(sorted(scores[-10:])[4] / 2 + sorted(scores[-10:])[5] / 2)
    assert made.run.state == "finished"


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_training_images_are_scored_once_at_the_end_without_augmentation(tmp_path, ema):
    made = harness.run_through(tmp_path, harness.settings(epochs=2, pad=2, ema=ema))
    found, split = json.loads(made.run.result.read_text())["clean_train"], made.source.train
    pixels = torch.from_numpy(split.images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (made.source.mean, made.source.std))
    with torch.no_grad():
        logits = made.state.evaluated.eval()((pixels - mean) / std)
    right = logits.argmax(1) == torch.from_numpy(split.labels)
    assert found["images"] == len(split) and found["accuracy"] == pytest.approx(float(right.double().mean()))
    assert not any("clean_train" in row for row in made.run.rows())


def test_ledger_27_logged_parts_sum_to_the_logged_total(tmp_path):
    rows = harness.run_through(tmp_path, harness.settings(SynerMix(beta=0.3), epochs=1)).run.rows()
    parts = rows[0]["train"]
    assert parts["loss"] == pytest.approx(0.3 * parts["intra"] + 0.7 * parts["inter"], abs=1e-6)
    assert {"classes", "added", "eligible", "ratio", "drawn", "intra_accuracy"} <= set(parts)


def test_a_validation_part_is_scored_and_its_best_epoch_kept_aside(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(epochs=2, val_fraction=0.1))
    rows = made.run.rows()
    assert all({"accuracy", "balanced_accuracy", "nll", "images"} == set(row["val"]) for row in rows)
    assert made.run.best.exists() and made.state.best == max(row["val"]["accuracy"] for row in rows)


def test_balanced_accuracy_counts_each_class_alike_and_changes_no_other_number(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(epochs=2))
    test = made.held_out["test"]
    uneven = np.flatnonzero((test.labels != 3) | (np.arange(len(test.labels)) % 5 == 0))
    split = made.source.test.take(uneven)
    found = evaluate(made.state.evaluated, made._resident(split, Augmentation()), made.machine)
    right = found.correct.numpy()
    assert found.accuracy == right.mean() and found.row()["images"] == len(uneven)
    recalls = [right[split.labels == digit].mean() for digit in range(10)]
    assert found.balanced_accuracy == pytest.approx(np.mean(recalls)) and found.balanced_accuracy != found.accuracy
    result, row = json.loads(made.run.result.read_text()), made.run.rows()[-1]["test"]
    assert result["balanced_accuracy"] == row["balanced_accuracy"]
    assert result["test_class_ratio"] == max(np.bincount(test.labels)) / min(np.bincount(test.labels))


def test_a_class_without_images_has_no_part_in_balanced_accuracy():
    labels, correct = torch.tensor([0, 0, 0, 2]), torch.tensor([True, False, False, True])
    assert Evaluation(correct, labels, 0.0).balanced_accuracy == pytest.approx((1 / 3 + 1) / 2)


def test_the_share_of_wrong_labels_that_is_learnt_is_counted_on_the_images_that_have_them(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(epochs=3, label_noise=0.3))
    result, noisy = json.loads(made.run.result.read_text()), made.source.train
    clean = sources.load(made.settings.model_copy(update={"label_noise": 0.0})).train
    wrong = np.flatnonzero(noisy.labels != clean.labels)
    assert np.array_equal(made.source.mislabelled, wrong) and len(wrong) == round(0.3 * len(noisy))
    right = evaluate(made.state.evaluated, made.data, made.machine).correct.numpy()
    assert result["wrong_labels_learnt"] == pytest.approx(right[wrong].mean())
    assert "wrong_labels_learnt" not in harness.run_through(tmp_path / "b", harness.settings(epochs=1)).run.finished()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_checkpoint_restores_to_the_net_that_was_scored(tmp_path, ema):
    made = harness.run_through(tmp_path, harness.settings(epochs=1, ema=ema))
    settings, machine, net = restore(made.run.checkpoint)
    found = evaluate(net, made.held_out["test"], machine)
    assert found.accuracy == made.run.finished()["accuracy"] and not net.training
    assert settings.method == made.settings.method


def test_only_the_epochs_asked_for_are_evaluated_and_always_the_last(tmp_path):
    rows = harness.run_through(tmp_path, harness.settings(epochs=5, eval_every=3)).run.rows()
    assert [row["epoch"] for row in rows if "test" in row] == [3, 5]


def test_supplements_follow_the_method_unless_the_user_says_otherwise(tmp_path):
    assert harness.training(tmp_path, harness.settings(SynerMix())).supplement == 2
    assert harness.training(tmp_path, harness.settings(SynerMix(), supplement=0)).supplement == 0
    assert harness.training(tmp_path, harness.settings(supplement=3)).supplement == 3


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cpu:1"])
def test_c04_unknown_devices_are_refused(name):
    with pytest.raises(UserError, match="expected cpu, cuda, cuda:N") as caught:
        prepare(harness.settings(device=name))
    assert caught.value.exit_code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_c03_cuda_where_there_is_none():
    with pytest.raises(UserError, match="CUDA not available"):
        prepare(harness.settings(device="cuda"))


def test_bf16_runs_under_autocast_with_float32_losses(tmp_path):
    rows = harness.run_through(tmp_path, harness.settings(MixUp(), epochs=1, precision="bf16")).run.rows()
    assert math.isfinite(rows[0]["train"]["loss"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("method", [cls() for cls in METHODS.values()], ids=lambda m: m.name)
def test_gpu_a_run_repeats_its_bits_and_never_waits_in_a_step(tmp_path, method):
    train = harness.settings(method, epochs=2, device="cuda", deterministic=True)
    one, two = harness.run_through(tmp_path / "1", train), harness.run_cut(tmp_path / "2", train, 9)
    assert harness.same_bits(one, two)
    quiet = harness.training(tmp_path / "3", train)
    order = quiet.order(0)
    with quiet.machine.session():
        quiet.step(order, 0)
        quiet.plans = {}  # so that plans are drawn in the step that is watched, at which the flag is not read
        torch.cuda.set_sync_debug_mode("error")
        try:
            quiet.step(order, 1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
