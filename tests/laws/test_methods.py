"""Laws over every method: losses draw nothing, add up, reach the stem, compile whole and never wait for a GPU."""

from __future__ import annotations

import copy
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mixcli.mix import implementation
from mixcli.sampling import Random
from tests import fakes

each_method = pytest.mark.parametrize("settings", fakes.METHOD_CASES, ids=fakes.label)


def planned(settings, step: int = 0, added: int = 2):
    context = fakes.context()
    context = replace(context, added=added)
    return implementation(settings).plan(settings, context, Random(0, "mix", step))


def moved(value, to):
    """Every tensor inside a batch or a plan, put through `to`."""
    if isinstance(value, torch.Tensor):
        return to(value)
    if isinstance(value, dict):
        return {key: moved(inner, to) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(inner, to) for inner in value)
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{f.name: moved(getattr(value, f.name), to) for f in fields(value)})
    return value


def gradients(learner):
    return [p.grad for p in learner.parameters() if p.requires_grad]


@each_method
def test_the_loss_of_one_plan_has_the_same_bits_twice_and_draws_nothing(settings):
    learner, batch, plan = fakes.learner(settings), fakes.batch(settings), planned(settings)
    state, generator = copy.deepcopy(learner.state_dict()), torch.get_rng_state()
    one = learner(batch, plan)
    learner.load_state_dict(state)
    two = learner(batch, plan)
    assert torch.equal(one.total, two.total) and one.total.isfinite()
    assert torch.equal(torch.get_rng_state(), generator)


@each_method
def test_parts_are_detached_scalars_and_loss_is_the_total(settings):
    losses = fakes.learner(settings)(fakes.batch(settings), planned(settings))
    assert all(not part.requires_grad and part.ndim == 0 for part in losses.parts.values())
    assert torch.equal(losses.parts["loss"], losses.total.detach())


@each_method
def test_the_gradient_reaches_the_stem(settings):
    learner = fakes.learner(settings)
    learner(fakes.batch(settings), planned(settings)).total.backward()
    assert learner.net.stages["stem"][0].weight.grad.abs().max() > 0
    assert all(g is not None and g.isfinite().all() for g in gradients(learner))


@each_method
def test_a_batch_of_one_and_of_one_class_are_finite(settings):
    context = fakes.context(1)
    plan = implementation(settings).plan(settings, context, Random(0, "mix"))
    net = fakes.net().eval()  # BatchNorm refuses one value per channel in train mode, whatever the method
    assert fakes.learner(settings, net)(fakes.batch(settings, 1), plan).total.isfinite()


@each_method
def test_the_step_is_captured_whole(settings):
    torch._dynamo.reset()
    eager, other = fakes.learner(settings), fakes.learner(settings)
    compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
    batch, plan = fakes.batch(settings), planned(settings)
    one, two = eager(batch, plan), compiled(batch, plan)
    one.total.backward(), two.total.backward()
    assert torch.allclose(one.total, two.total, rtol=1e-6)
    for a, b in zip(gradients(eager), gradients(other), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-7)


@each_method
def test_sync_law_forward_with_fake_cuda_tensors(settings):
    """A host sync (`item`, `nonzero`, a data-dependent shape or branch) raises on fake tensors."""
    learner, batch, plan = fakes.learner(settings), fakes.batch(settings), planned(settings)
    mode = FakeTensorMode()

    def fake(tensor):
        with mode:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda")

    state = {name: fake(value) for name, value in learner.state_dict().items()}
    batch, plan = moved(batch, fake), moved(plan, fake)
    with mode:
        assert torch.func.functional_call(learner, state, (batch, plan)).total.device.type == "cuda"


@each_method
def test_sync_law_forward_and_backward_on_meta(settings):
    learner = fakes.learner(settings).to("meta")
    batch, plan = (moved(value, lambda t: t.to("meta")) for value in (fakes.batch(settings), planned(settings)))
    learner(batch, plan).total.backward()
    assert all(g.device.type == "meta" for g in gradients(learner))


def test_the_sync_law_catches_a_sync():
    with FakeTensorMode(), pytest.raises(Exception, match="_local_scalar_dense"):
        bool(torch.ones(3, device="cuda").sum() > 1)


@each_method
def test_a_learner_can_be_copied_deeply(settings):
    learner = fakes.learner(settings)
    twin = copy.deepcopy(learner)
    assert twin.net is not learner.net and twin.loss is learner.loss
