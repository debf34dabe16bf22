"""Warm-up, clipping and accumulation: what an update is made of, however many batches it takes."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mixcli.data import sources
from mixcli.engine import schedule, training
from mixcli.engine.device import Machine
from mixcli.engine.guard import Guard
from mixcli.engine.state import State, mean_total
from mixcli.errors import UserError
from mixcli.mix import Losses
from mixcli.recipe import Train, complete, epoch_steps
from mixcli.settings import ICT, Manifold, MixUp, SynerMix
from tests.engine import harness

ALL = {"warmup": 1.5, "clip": 0.5, "accumulate": 2, "batch": 10, "schedule": "cosine"}  # 6 steps of 2 x 10 images
FULL = SynerMix(inter=Manifold(), intra_view="augmented")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return harness.run_through(tmp_path_factory.mktemp("whole"), harness.settings(FULL, ema=0.9, **ALL))


@pytest.mark.parametrize("cut", [1, 6, 9, 14, 23])
def test_every_cut_is_exact_with_all_three_on(tmp_path, whole, cut):
    resumed = harness.run_cut(tmp_path, harness.settings(FULL, ema=0.9, **ALL), cut)
    assert harness.same_bits(whole, resumed) and whole.state.step == harness.STEPS * harness.EPOCHS
    assert harness.without_times(whole.run.rows()) == harness.without_times(resumed.run.rows())


# -- accumulation -------------------------------------------------------------------------------------------------


def without_batchnorm(made):
    """A Training whose net has no statistics, in float64."""
    for net in (made.state.net, made.state.ema.module):
        for module in list(net.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(module, name, nn.Identity())
        net.double().stages["stem"].register_forward_pre_hook(lambda module, given: (given[0].double(),))
    return made


def test_two_batches_of_10_are_a_batch_of_20_where_neither_mixing_nor_batchnorm_looks_at_the_batch(tmp_path):
    alike = {"pad": 0, "flip": False, "epochs": 2, "lr": 0.01, "ema": 0.9, "clip": 0.3}
    found = []
    for name, changes in (("one", {"batch": 20}), ("two", {"batch": 10, "accumulate": 2})):
        made = without_batchnorm(harness.training(tmp_path / name, harness.settings(**alike, **changes)))
        with made.machine.session():
            made.go()
        found.append(made)
    one, two = ({k: v for k, v in harness.tensors(made.content()).items() if v.numel()} for made in found)
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[key], two[key], rtol=1e-9, atol=1e-12) for key in one.keys() - {"/progress/sums"})
    for a, b in zip(found[0].run.rows(), found[1].run.rows(), strict=True):
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], rel=1e-9)
        assert (a["step"], a["images"], a["lr"]) == (b["step"], b["images"], b["lr"])


def test_a_step_is_an_update_for_epochs_log_average_and_schedule(tmp_path):
    made = harness.run_through(tmp_path, harness.settings(batch=10, accumulate=3, epochs=2, ema=0.9, schedule="cosine"))
    rows = made.run.rows()
    assert made.steps == 120 // 30 and [row["step"] for row in rows] == [4, 8]
    assert [row["images"] for row in rows] == [120, 120] and int(made.state.ema.n_averaged) == 8
    assert rows[1]["lr"] == pytest.approx(rows[0]["lr"] / 2)


def test_every_batch_of_a_step_has_its_own_draws_and_supplements(tmp_path):
    made = harness.training(tmp_path, harness.settings(SynerMix(), batch=10, accumulate=2))
    order = made.order(0)
    assert len(order) == 2 * made.steps
    first, second = made.batches(order, 1)
    assert [first.rows.tolist(), second.rows.tolist()] == [order.step(k).rows.tolist() for k in (2, 3)]
    labels = made.source.train.labels
    assert all((torch.from_numpy(labels[part.rows]).bincount() != 1).all() for part in (first, second))
    ratios, views = set(), set()
    for made.state.step in (0, 1):
        plans = [made.planned(order, made.state.step, part) for part in (0, 1)]
        ratios |= {float(plan.inter.mix.ratio[0, 0]) for plan in plans}
        views |= {made.batch(first, part).images.numpy().tobytes() for part in (0, 1)}
    assert len(ratios) == len(views) == 4


def test_batches_whose_masks_are_large_have_their_plans_drawn_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "PLANNED", 10 * 64)  # as many as a batch's masks have
    made = harness.training(tmp_path, harness.settings(MixUp(), batch=10, accumulate=3))
    plan, forward, drawn, seen = made.plan, made.forward, [], []
    monkeypatch.setattr(made, "plan", lambda images, number: drawn.append(number) or plan(images, number))
    made.forward = lambda *given: seen.append(drawn[:]) or forward(*given)
    with made.machine.session():
        made.step(made.order(0), 0)
    assert seen == [[0], [0, 1], [0, 1, 2]]


def test_a_batch_that_is_not_finite_stops_its_step_wherever_it_stands(tmp_path):
    made = harness.training(tmp_path, harness.settings(epochs=2, batch=10, accumulate=2))
    forward, calls, before = made.forward, [], {}

    def poisoned(batch, plan):
        losses = forward(batch, plan)
        calls.append(made.state.step)
        if len(calls) == 6:  # the second batch of the third step
            before.update({k: v.clone() for k, v in made.state.net.named_parameters()})
            return Losses(losses.total * torch.inf, losses.parts)
        return losses

    made.forward = poisoned
    with pytest.raises(UserError, match="step 3: loss not finite"), made.machine.session():
        made.go()
    assert all(torch.equal(before[k], v) for k, v in made.state.net.named_parameters())


def test_more_images_in_a_step_than_there_are_is_refused():
    facts = sources.look(Train())
    with pytest.raises(UserError, match="accumulate: a step of 150 images takes more than there are") as caught:
        complete(Train(per_class=10, batch=50, accumulate=3), facts)
    assert caught.value.exit_code == 2
    semi = complete(Train(method=ICT(), labels=100, batch=25, accumulate=2), facts)
    assert epoch_steps(semi, facts) == 1337 // 50


# -- clipping -------------------------------------------------------------------------------------------------------


def test_clipping_is_torchs_own(tmp_path):
    def clipped(optimizer, *_):
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 0.2)

    ours = harness.run_through(tmp_path / "ours", harness.settings(MixUp(), epochs=2, clip=0.2))
    theirs = harness.training(tmp_path / "theirs", harness.settings(MixUp(), epochs=2))
    theirs.state.optimizer.register_step_pre_hook(clipped)
    with theirs.machine.session():
        theirs.go()
    plain = harness.run_through(tmp_path / "plain", harness.settings(MixUp(), epochs=2))
    assert harness.same_bits(ours, theirs) and not harness.same_bits(ours, plain)


# -- warm-up --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"schedule": "constant"}, [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1, 1, 1, 1, 1]),
        ({"schedule": "step", "step_every": 1}, [0.125, 0.25, 0.375, 0.5, 0.3125, 0.375, 0.4375, 0.5] + [0.25] * 4),
        ({"schedule": "cosine"}, [0.125, 0.25, 0.375, 0.5, 0.46875, 0.5625, 0.65625, 0.75] + [0.25] * 4),
    ],
    ids=["constant", "step", "cosine"],
)
def test_warm_up_over_2_of_3_epochs_of_4_steps(changes, expected):
    factor = schedule.factor(harness.settings(epochs=3, warmup=2, **changes), 4)
    assert [factor(step) for step in range(12)] == pytest.approx(expected)


def test_a_warm_up_may_end_inside_an_epoch():
    factor = schedule.factor(harness.settings(epochs=3, warmup=0.5, schedule="constant"), 6)
    assert [factor(step) for step in range(5)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"warmup": 1}, "warmup: one-cycle rises by itself"),
        ({"warmup": 9, "epochs": 8, "schedule": "cosine"}, "warmup: longer than the 8 epochs trained"),
    ],
)
def test_a_warm_up_that_contradicts_is_refused(changes, line):
    with pytest.raises(UserError, match=line) as caught:
        complete(Train(**changes), sources.look(Train()))
    assert caught.value.exit_code == 2


# -- devices ----------------------------------------------------------------------------------------------------------


def test_a_compiled_run_with_all_three_learns_what_an_eager_one_does(tmp_path):
    train = harness.settings(MixUp(), epochs=1, ema=0.9, **{**ALL, "warmup": 0.5})
    eager, made = harness.run_through(tmp_path / "eager", train), harness.training(tmp_path / "compiled", train)
    torch._dynamo.reset()
    made.forward = torch.compile(made.learner, fullgraph=True, backend="aot_eager")
    with made.machine.session():
        made.go()
    weights = zip(eager.state.net.parameters(), made.state.net.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in weights)


def test_a_compiled_step_is_one_graph_for_batches_of_every_size_and_of_one_height_and_width(tmp_path, monkeypatch):
    seen: list[list[torch.Size]] = []

    def capture(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        given = [node.meta.get("example_value") for node in graph.graph.nodes if node.op == "placeholder"]
        seen.append([x.shape for x in given if isinstance(x, torch.Tensor) and x.ndim == 4])
        return graph

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", partial(compiled, backend=capture, fullgraph=True))
    torch._dynamo.reset()
    made = harness.training(tmp_path, harness.settings(SynerMix(), epochs=1, compile=True))
    sizes = {len(images.rows) for k in range(made.steps) for images in made.batches(made.order(0), k)}
    with made.machine.session():
        made.go()
    assert len(sizes) > 2 and len(seen) == 1
    images = [shape for shape in seen[0] if isinstance(shape[0], torch.SymInt)]
    assert images and all(type(side) is int for shape in images for side in shape[1:])


def test_sync_law_an_update_with_all_three_never_waits_for_a_gpu(monkeypatch):
    """Fake tensors hold no values: whatever would have to read one on the host raises."""
    sgd = import_module("torch.optim.sgd")  # whose own kernel has no fake form
    monkeypatch.setattr(sgd, "_fused_sgd", lambda *_, **__: None)
    cuda = torch.device("cuda", 0)
    with FakeTensorMode():
        net = nn.Sequential(nn.Conv2d(3, 4, 3, device=cuda), nn.BatchNorm2d(4, device=cuda))
        train = harness.settings(**ALL)
        state, guard = State(net, train, Machine(cuda, 1, False, False), 6), Guard(cuda)
        for parameter in net.parameters():
            parameter.grad = torch.empty_like(parameter)
        losses = [Losses(total, {"loss": total}) for total in torch.empty(2, device=cuda)]
        norm = state.gradient_norm()
        assert norm.device.type == "cuda"
        assert not guard.watch(1, mean_total(losses), norm, state.optimizer)
        state.update(losses, 20, norm)
        with pytest.raises(Exception, match="_local_scalar_dense|item"):
            guard.first_bad()
