"""SynerMix and Manifold MixUp on nets that are no ResNets equal forwards written by hand with the nets' own parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mixcli.engine.learner import Learner
from mixcli.errors import UserError
from mixcli.methods import manifold, supervised, synermix
from mixcli.mix import Batch, Context
from mixcli.nets.building import build
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import CutMix, Manifold, SynerMix
from tests import fakes

SIDE, ROWS = 32, 6
NETS = ("vit-tiny", "torchvision:swin_t", "torchvision:mobilenet_v3_large", "timm:vit_tiny_patch16_224")


@pytest.fixture(scope="module")
def nets():
    """Each net in eval mode, which no forward changes."""
    found: dict[str, StagedNet] = {}

    def net(name: str) -> StagedNet:
        if name.startswith("timm:"):
            pytest.importorskip("timm")
        if name not in found:
            width = 64 if name == "vit-tiny" else None
            found[name] = build(name, 3, fakes.CLASSES, width, Random(0, "init"), size=(SIDE, SIDE)).eval()
        return found[name]

    return net


def context(net: StagedNet) -> Context:
    return Context((ROWS, SIDE, SIDE), fakes.labels(ROWS), fakes.CLASSES, 0, net.sizes(3, SIDE, SIDE))


def batch(**views: torch.Tensor) -> Batch:
    return Batch(fakes.images(ROWS, SIDE, SIDE), torch.from_numpy(fakes.labels(ROWS)), fakes.CLASSES, 0.0, views)


def by_hand(net: StagedNet, name: str, x: torch.Tensor, stage: str, mixed) -> torch.Tensor:
    """(B, D): the images through the net's own modules, `mixed` applied where `stage` ends."""
    x = mixed(x) if stage == "input" else x
    for at, module in net.stages.items():
        x = module(x)
        x = mixed(x) if at == stage else x
    if name == "vit-tiny":
        return net.neck.norm(x.flatten(2).transpose(1, 2)).mean(1)
    if name == "torchvision:swin_t":
        return net.neck.inner.norm(x.permute(0, 2, 3, 1)).mean((1, 2))
    if name == "torchvision:mobilenet_v3_large":
        x = getattr(net.neck.features, "16")(x).mean((2, 3))
        return F.hardswish(getattr(net.neck.classifier, "0")(x))
    return net.neck.norm(x)[:, 0]


@pytest.mark.parametrize("name", NETS)
def test_manifold_at_every_third_stage_equals_a_hand_written_forward(name, nets):
    net, rows = nets(name), batch()
    for stage in ["input", *list(net.stages)[::3]]:
        settings = Manifold(stages=(stage,))
        plan = manifold.plan(settings, context(net), Random(0, "mix"))
        keep, partner = plan.mix.keep, plan.mix.source[1]

        def mixed(x, keep=keep, partner=partner):
            weight = keep.view(-1, *[1] * (x.ndim - 1))
            return weight * x + (1 - weight) * x[partner]

        logits = net.head(by_hand(net, name, rows.images, stage, mixed))
        expected = -(rows.targets(plan.mix) * logits.log_softmax(1)).sum(1).mean()
        assert torch.allclose(manifold.loss(settings, net, rows, plan).total, expected, atol=1e-5), stage


@pytest.mark.parametrize("name", NETS)
def test_synermix_equals_a_hand_written_forward(name, nets):
    net, settings = nets(name), SynerMix(beta=0.3)
    rows = batch(intra=fakes.images(ROWS, SIDE, SIDE, seed=4))
    plan = synermix.plan(settings, context(net), Random(0, "mix"))
    features = by_hand(net, name, rows.views["intra"], "", None)
    losses = []
    for c in np.unique(fakes.labels(ROWS)):
        members = slice(int(plan.blend.starts[c]), int(plan.blend.starts[c + 1]))
        blend = (plan.blend.weight[members].float()[:, None] * features[plan.blend.member[members]]).sum(0)
        losses.append(F.cross_entropy(net.head(blend[None]), torch.tensor([int(c)])))
    mixed = plan.inter.mix.images(rows.images)
    logits = net.head(by_hand(net, name, mixed, "", None))
    inter = -(rows.targets(plan.inter.mix) * logits.log_softmax(1)).sum(1).mean()
    expected = 0.3 * torch.stack(losses).mean() + 0.7 * inter
    assert torch.allclose(synermix.loss(settings, net, rows, plan).total, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["vit-tiny", "torchvision:swin_t"])
def test_a_mask_is_drawn_on_the_grid_of_patches_and_cuts_whole_patches(name, nets):
    net = nets(name)
    stage = list(net.stages)[1]
    plan = manifold.plan(Manifold(inter=CutMix(box="inside"), stages=(stage,)), context(net), Random(1, "mix"))
    grid = context(net).stages[stage]
    assert grid == (8, 8) and plan.mix.keep.shape[2:] == grid and 0 < plan.mix.keep.mean() < 1
    hidden = net.features(batch().images, stop=stage)
    mixed, keep = plan.mix.images(hidden), plan.mix.keep.bool().expand_as(hidden)
    assert torch.equal(mixed[keep], hidden[keep])
    assert torch.equal(mixed[~keep], hidden[plan.mix.source[1]][~keep])
    assert torch.equal(plan.mix.images(hidden.detach()), mixed), "without gradients images are mixed in pieces"


@pytest.mark.parametrize("inter", [CutMix(), fakes.MIXINGS[-1]], ids=lambda m: m.name)
def test_masks_are_refused_where_a_stage_hands_over_tokens(inter, nets):
    net = nets("timm:vit_tiny_patch16_224")
    with pytest.raises(UserError) as caught:
        manifold.plan(Manifold(inter=inter), context(net), Random(0, "mix"))
    assert str(caught.value).startswith(f"stages: stem hands over no maps, and {inter.name} mixes by masks; got stem")
    assert manifold.plan(Manifold(inter=inter, stages=("input",)), context(net), Random(0, "mix")).stage == "input"


@pytest.mark.parametrize("mixing", fakes.MIXINGS, ids=fakes.label)
def test_a_mixing_says_whether_it_weighs_pixels_differently(mixing):
    mix = supervised.draw(mixing, fakes.context(8), Random(0, "mix"))
    drawn = mix.keep if mix.weight is None else mix.weight
    assert mixing.masks is (drawn.shape[-2:] != (1, 1))


def test_without_layers_the_input_and_the_first_two_stages_are_drawn_from(nets):
    found = {name: manifold.stages(Manifold(), context(nets(name))) for name in NETS[:3]}
    assert found["vit-tiny"] == ["input", "stem", "block1"] == found["torchvision:mobilenet_v3_large"]
    assert found["torchvision:swin_t"] == ["input", "stem", "stage1"]
    lean = replace(fakes.context(), stages={"input": (8, 8), "layer1": (8, 8), "layer2": (4, 4), "layer3": (2, 2)})
    assert manifold.stages(Manifold(), lean) == ["input", "layer1", "layer2"]


def test_an_unknown_stage_of_such_a_net_is_told_beside_those_it_has(nets):
    with pytest.raises(UserError, match="got layer1, expected input, stem, stage1, stage2, stage3, stage4"):
        manifold.plan(Manifold(stages=("layer1",)), context(nets("torchvision:swin_t")), Random(0, "mix"))


@pytest.mark.parametrize("name", NETS[:3])
def test_the_step_is_captured_whole(name, nets):
    torch._dynamo.reset()
    settings, rows = SynerMix(inter=Manifold()), batch(intra=fakes.images(ROWS, SIDE, SIDE, seed=4))
    learner = Learner(nets(name), settings)
    plan = synermix.plan(settings, context(learner.net), Random(0, "mix"))
    compiled = torch.compile(learner, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(rows, plan).total, learner(rows, plan).total, rtol=1e-5)
