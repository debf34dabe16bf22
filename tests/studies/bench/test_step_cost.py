"""What is timed as a step is the step of the training loop; how fast it is, the study only reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mixcli.cli import main
from mixcli.errors import UserError
from mixcli.methods import supervised
from mixcli.recipe import Facts
from mixcli.settings import METHODS, Mixing, NoMixing
from mixcli.studies.bench import step_cost

TINY = {"pixels": 8, "batch": 10, "classes": 5, "images": 40, "width": 4, "rounds": 1}
BASE = {"net": "small", "batch": 10, "width": 4, "device": "cpu", "threads": 1}
FACTS = Facts("random pixels", 40, 0, 5, channels=3, size=(8, 8))


def training(name: str):
    return step_cost._training(METHODS[name](), BASE, step_cost._source(FACTS))


@pytest.fixture(scope="module")
def found():
    return json.loads(json.dumps(step_cost.step(**TINY)))


def test_every_method_is_stepped_and_the_result_is_plain_enough_for_json(found):
    assert [row["method"] for row in found["rows"]] == list(METHODS) and found["every_method_stepped"]
    assert all(row.keys() == found["rows"][0].keys() for row in found["rows"])
    assert found["rows"][0]["ratio"] == 1 and all(row["images_per_second"] > 0 for row in found["rows"])
    assert all(row["ratio_lowest"] <= row["ratio"] <= row["ratio_highest"] for row in found["rows"])


def test_the_parts_sum_to_the_step(found):
    for row in found["rows"]:
        parts = [row[f"{part}_ms"] for part in step_cost.PARTS]
        assert all(part > 0 for part in parts) and sum(parts) == pytest.approx(row["step_ms"])
        assert row["unbroken_ms"] is None  # on a CPU nothing waits


def test_the_share_of_a_mixing_is_its_plan_and_its_application_against_a_plain_step(found):
    plain = found["rows"][0]["step_ms"]
    for row in found["rows"]:
        if not issubclass(METHODS[row["method"]], Mixing):
            assert row["mixing_share"] is None and row["mix_ms"] is None
        else:
            assert row["mixing_share"] == pytest.approx((row["plan_ms"] + row["mix_ms"]) / plain)


@pytest.mark.parametrize("name", METHODS)
def test_a_timed_step_leaves_what_the_loops_own_step_leaves(name):
    timed, own = training(name), training(name)
    with own.machine.session():
        for _ in range(3):
            order = timed.order(0)
            k = own.state.step % own.steps
            step_cost.made_step(timed, order, lambda: 0.0)
            own.step(order, k)
    assert timed.state.step == own.state.step == 3
    weights = zip(timed.state.net.state_dict().values(), own.state.net.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_steps_without_waiting_are_the_loops_own_too():
    bench = step_cost.Bench(training("fmix"), steps=3)
    assert bench.unbroken(bench.training.order(0), lambda: float(bench.training.state.step)) == 1
    assert bench.training.state.step == 3


def test_of_a_slow_net_only_plain_steps_are_made(monkeypatch):
    found = step_cost.step(**TINY, names=["fmix", "synermix"], seconds=0)
    plain, fmix, synermix = found["rows"]
    assert not found["every_method_stepped"] and plain["step_ms"] > 0
    assert all(row["step_ms"] is row["ratio"] is row["forward_ms"] is None for row in (fmix, synermix))
    assert all(row["plan_ms"] > 0 and row["data_ms"] > 0 for row in (fmix, synermix))
    assert fmix["mixing_share"] == pytest.approx((fmix["plan_ms"] + fmix["mix_ms"]) / plain["step_ms"])


@pytest.mark.parametrize("make", [step_cost.made_batch, step_cost.made_step])
def test_successive_steps_pay_for_a_plan_each_though_plans_are_drawn_together(monkeypatch, make):
    made, keys, draw = training("fmix"), [], supervised.draw
    monkeypatch.setattr(supervised, "draw", lambda s, c, random: keys.append(random.step) or draw(s, c, random))
    found = [make(made, made.order(0), lambda: float(len(keys))) for _ in range(3)]
    assert [parts["plan"] for parts in found] == [1, 1, 1]
    assert keys == [0, 1, 2, 3, 1, 2, 3, 2, 3]  # of the four steps of the epoch


def test_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    step_cost.step(**TINY, names=["mixup"])
    assert not list(Path().iterdir())


def test_plain_training_comes_first_and_unknown_methods_are_refused():
    assert [type(method) for method in step_cost._chosen(["cutmix"])] == [NoMixing, METHODS["cutmix"]]
    with pytest.raises(UserError, match="--names: unknown; got cutmax. Did you mean cutmix"):
        step_cost.step(names=["cutmax"])
    with pytest.raises(UserError, match="--net"):
        step_cost.step(net="smell")


def test_the_random_images_have_every_class_alike():
    source = step_cost._source(FACTS)
    assert source.train.images.shape == (40, 8, 8, 3) and source.train.images.dtype == np.uint8
    assert (np.bincount(source.train.labels) == 8).all() and len(source.test) == 0


def test_an_unknown_device_is_told_with_its_option(capsys):
    assert main(["bench", "step", "--device", "foo"]) == 2
    assert "error: --device: unknown device; got foo" in capsys.readouterr().err
