"""A finished run leaves which test images it gets right; and how its loss went in its first steps."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from mixcli.data import sources
from mixcli.engine import bits
from mixcli.engine.inference import evaluate
from mixcli.errors import UserError
from tests.engine import harness

LONG = {"epochs": 10}  # 60 steps, of which 3 are early


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    losses = []
    made = harness.training(tmp_path_factory.mktemp("whole"), harness.settings(**LONG))
    update = made.state.update

    def recorded(found, *rest):
        losses.append(float(found[0].total.detach()))
        update(found, *rest)

    made.state.update = recorded
    with made.machine.session():
        made.go()
    made.run.close()
    return made, losses


@pytest.mark.parametrize("images", [1, 7, 8, 9, 360])
def test_bits_come_back_as_they_were_for_any_number_of_images(tmp_path, images):
    correct = np.random.default_rng(images).random(images) < 0.5
    bits.write(tmp_path / "x.npz", correct, "abc")
    read, digest = bits.read(tmp_path / "x.npz")
    assert read.dtype == bool and (read == correct).all() and digest == "abc"


def test_damaged_bits_are_told_in_one_line_and_missing_ones_apart(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(UserError, match="not found"):
        bits.read(path)
    bits.write(path, np.ones(100, bool), "abc")
    whole = path.read_bytes()
    for cut in (b"", whole[: len(whole) // 2], b"\x80\x04pickle"):
        path.write_bytes(cut)
        with pytest.raises(UserError, match="damaged") as caught:
            bits.read(path)
        assert caught.value.exit_code == 3 and "\n" not in str(caught.value)
    np.savez(path, correct=np.zeros(3, np.uint8), images=100, digest="abc")
    with pytest.raises(UserError, match="damaged"):
        bits.read(path)


def test_a_run_saves_the_bits_of_its_last_evaluation_with_the_digest_of_its_test_images(whole):
    made, _ = whole
    correct, digest = bits.read(made.run.correct)
    assert (correct == evaluate(made.state.net, made.held_out["test"], made.machine).correct.numpy()).all()
    result = made.run.finished()
    assert correct.mean() == result["accuracy"] and digest == result["test_digest"] == sources.digest(made.source.test)
    assert result["train_digest"] == made.source.digest != digest


def test_early_spread_is_that_of_the_log_of_the_first_twentieth_of_the_losses(whole):
    made, losses = whole
    expected = statistics.stdev(map(math.log, losses[:3]))
    assert made.run.finished()["early_spread"] == pytest.approx(expected, rel=1e-12)


def test_a_run_with_fewer_than_three_early_steps_has_no_early_spread(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(epochs=2))
    assert made.run.finished()["early_spread"] is None


@pytest.mark.parametrize("cut", [2, 31])
def test_a_resumed_run_ends_with_the_same_bits_and_early_spread(tmp_path, whole, cut):
    made, _ = whole
    resumed = harness.run_cut(tmp_path, harness.settings(**LONG), cut)
    assert resumed.run.correct.read_bytes() == made.run.correct.read_bytes()
    assert harness.same_bits(made, resumed)
    assert resumed.run.finished()["early_spread"] == made.run.finished()["early_spread"]


def test_a_checkpoint_without_early_losses_goes_on_and_has_no_early_spread(tmp_path, whole):
    made, _ = whole
    content = made.content()
    del content["early"]
    other = harness.training(tmp_path, harness.settings(**LONG))
    other.state.restore(content)
    assert other.state.early_spread() is None and other.state.step == 60


def test_bits_are_there_before_the_result_and_go_with_the_run(tmp_path, monkeypatch):
    made = harness.training(tmp_path, harness.settings(epochs=1))
    there = []
    monkeypatch.setattr(type(made.run), "finish", lambda run, result: there.append(run.correct.exists()) or result)
    made.go()
    assert there == [True]
    made.run.clear()
    assert not made.run.correct.exists()
