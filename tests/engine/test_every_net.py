"""Every net of `list nets` makes a step with every method; it is trained, cut short, gone on with to the bit, probed.

By default the nets of the package, a few channels wide, and two borrowed ones. Marked stress are the other borrowed
ones, which have no width and millions of weights, a second or more each for every method; and runs of nets that, with
so few channels, are another of the list or a deeper one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mixcli import cli
from mixcli.catalogue import BORROWED, NETS
from mixcli.engine.inference import restore
from mixcli.engine.learner import Learner
from mixcli.mix import SECOND, Average, Context, implementation
from mixcli.nets.building import build
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.settings import METHODS, NoMixing, SynerMix
from mixcli.studies.probes import probing
from mixcli.studies.probes.catalogue import Geometry, GradientNoise, Linearity
from mixcli.studies.probes.probing import Asked
from tests import fakes
from tests.engine import harness
from tests.studies.probes import probe_store

SIDE, ROWS, WIDTH = 32, 6, 4
FEW = ("torchvision:mobilenet_v3_large", "timm:mobilenetv3_small_050")
FEW_DRAWS = GradientNoise(draws=4, batches=2, points=(1,))
LONG = {"resnet101", "wrn-28-8", "wrn-28-10", "torchvision:mobilenet_v3_large"}


def every_net(long: set[str]):
    """All names; marked stress are those in `long` and the borrowed nets that are not among a few."""
    marked = {*long, *(name for name in BORROWED if name not in FEW)}
    names = [pytest.param(n, marks=pytest.mark.stress) if n in marked else n for n in (*NETS, *BORROWED)]
    return pytest.mark.parametrize("name", names)


def made(name: str, seed: int = 0) -> StagedNet:
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    side = 16 if name in NETS else SIDE
    return build(name, 3, fakes.CLASSES, WIDTH if name in NETS else None, Random(seed, "init"), size=(side, side))


@every_net(set())
def test_every_method_makes_a_step(name):
    """One net for all methods in a row: the gradient of each reaches the stem and is finite everywhere."""
    net, side = made(name), 16 if name in NETS else SIDE
    with torch.no_grad():
        net.head.weight.normal_(std=0.05)  # a head of zeros, torchvision's for its ViT, lets no gradient pass at first
    sizes = net.sizes(3, side, side)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    for cls in METHODS.values():
        settings, module = cls(), implementation(cls())
        needs = module.needs(settings)
        teacher = made(name, seed=1).requires_grad_(False) if (needs.average or Average()).teaches else None
        context = Context((ROWS, side, side), fakes.labels(ROWS), fakes.CLASSES, 2, sizes, 4, 1.5, 4)
        plan = module.plan(settings, context, Random(0, "mix"))
        losses = Learner(net.train(), settings, teacher)(step_of(needs, side), plan)
        optimizer.zero_grad()
        losses.total.backward()
        assert losses.total.isfinite(), settings.name
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters()), settings.name
        first = next(p for p in next(iter(net.stages.values())).parameters() if p.ndim > 1)
        assert first.grad.abs().max() > 0, settings.name
        optimizer.step()


def step_of(needs, side: int):
    """A batch with every view that a method asks for."""
    asked = needs.unlabelled
    unlabelled = () if asked is None else tuple(fakes.images(4, side, side, seed=50 + i) for i in range(asked.views))
    views = {view: fakes.images(ROWS, side, side, seed=i + 1) for i, view in enumerate(needs.views)}
    bare = fakes.batch(NoMixing(), ROWS)
    rows = torch.cat([fakes.images(ROWS, side, side), *([views.pop(SECOND)] if SECOND in views else [])])
    return replace(bare, rows=rows, views=views, unlabelled=unlabelled)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Data sets of a few colour pictures with 16 and with 32 pixels a side."""
    folder = tmp_path_factory.mktemp("pictures")
    for side in (16, SIDE):
        rng = np.random.default_rng(side)
        images, labels = rng.integers(0, 256, (30, side, side, 3), dtype=np.uint8), np.arange(30) % fakes.CLASSES
        np.savez(folder / f"{side}.npz", x_train=images, y_train=labels, x_test=images[:15], y_test=labels[:15])
    return folder


def settings(name: str, pictures, **changes):
    side, width = (16, WIDTH) if name in NETS else (SIDE, None)
    base = {"dataset": str(pictures / f"{side}.npz"), "net": name, "width": width, "batch": 6, "epochs": 1,
            "per_class": None, "epoch_steps": 2, "supplement": 0}  # fmt: skip
    return harness.settings(SynerMix(), **base | changes)


@every_net(LONG)
def test_a_run_that_was_cut_short_goes_on_to_the_same_bits_and_is_probed(name, pictures, tmp_path):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    train = settings(name, pictures, ema=0.9)
    whole = harness.run_through(tmp_path / "whole", train)
    assert harness.same_bits(whole, harness.run_cut(tmp_path / "cut", train, 1))
    probes = [("geometry", Geometry()), ("linearity", Linearity())]
    probes += [("gradient-noise", FEW_DRAWS)] * (name not in NETS or name == "vit-tiny")
    for probe, own in probes:
        asked = Asked(probe, options=own, stages="all", images=15)
        numbers = probing.headlines(asked, whole.run.checkpoint, probe_store.Heard())
        assert np.isfinite(list(numbers.values())).any(), probe
        if probe == "linearity":
            assert {f"dev_spread.{stage}" for stage in whole.state.net.stages} <= set(numbers)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--net", "torchvision:convnext_tiny"], 2, "--net: images of 8x8 pixels do not fit it"),
        (["--net", "cnn-13"], 2, "--net: images of 8x8 pixels do not fit it (Calculated padded input size"),
        (["--net", "timm:resnetv2_18"], 2, "--net: cannot be cut into stages: it does not end in one linear layer"),
        (
            ["--net", "vit-tiny", "--width", "4", "--method", "manifold", "--stages", "layer1"],
            2,
            "--stages: no such stage",
        ),
        (["--net", "torchvision:swim"], 2, "--net: unknown; got torchvision:swim. Did you mean"),
        (["--net", "small", "--stages", "stem"], 2, "--stages: small is cut into stages already"),
        (["--net", "torchvision:mobilenet_v3_large", "--cut", "features.0,nowhere"], 2, "--cut: no such submodule"),
        (["--net", "small", "--pretrained"], 2, "--pretrained: there are no published weights of small"),
        (["--net", "torchvision:swin_t", "--width", "3"], 2, "--width: torchvision:swin_t has channels of its own"),
    ],
)
def test_a_net_that_cannot_be_had_ends_a_run_before_it_begins_with_one_line(
    words, code, told, monkeypatch, tmp_path, capsys
):
    """Also a method that blends features by class, on a net whose head is no linear layer."""
    if "timm:resnetv2_18" in words:
        pytest.importorskip("timm")
        words = [*words, "--method", "synermix"]
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *words, "--epochs", "1", "--quiet"]) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and told in lines[0] and not (tmp_path / "runs").exists()


def test_a_borrowed_net_is_cut_where_it_is_asked_for_and_remembers(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    at = "features.0,features.5,features.12"
    words = ["train", "--net", "torchvision:mobilenet_v3_large", "--stages", at, "--epochs", "1", "--epoch-steps", "1"]
    assert cli.main([*words, "--quiet"]) == 0
    _, _, net = restore(next(tmp_path.glob("runs/*/run.ckpt")))
    assert list(net.stages) == ["features_0", "features_5", "features_12"]
