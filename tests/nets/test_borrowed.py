"""Nets of torchvision and timm: cut into stages they are the originals; what is at hand, what is refused."""

from __future__ import annotations

import hashlib
import re
import sys
import types

import pytest
import torch
import torchvision.models as torchvision
from torch import nn

from mixcli.catalogue import BORROWED, TIMM
from mixcli.errors import UserError
from mixcli.nets import borrowed
from mixcli.nets.building import build, of_run
from mixcli.recipe import Train
from mixcli.sampling import Random

SIZE = (32, 32)
# Above ten million weights a net costs a second or two, all of them more than the rest of the suite of nets.
LARGE = {
    "torchvision:resnet18", "torchvision:resnet34", "torchvision:resnet50", "torchvision:resnet101",
    "torchvision:vit_b_16", "torchvision:convnext_tiny", "timm:resnet18", "timm:resnet26d", "timm:resnext50_32x4d",
    "timm:seresnet50", "timm:res2net50_26w_4s", "timm:skresnet18", "timm:cspresnet50", "timm:poolformer_s12",
    "timm:focalnet_tiny_srf", "timm:coatnet_0_224", "timm:swinv2_tiny_window8_256", "timm:swin_tiny_patch4_window7_224",
    "timm:resnest14d", "timm:tiny_vit_5m_224", "timm:cait_xxs24_224", "timm:mixer_s32_224", "timm:resmlp_12_224",
}  # fmt: skip


def net(name: str, seed: int = 0, channels: int = 3, classes: int = 5, size=SIZE, **asked):
    return build(name, channels, classes, None, Random(seed, "init"), size=size, **asked)


def original(name: str, seed: int = 0, classes: int = 5) -> nn.Module:
    """The library's own, called as its documentation says, with the draws that `build` would take."""
    library, _, short = name.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(Random(seed, "init").key & (2**63 - 1))
        if library == "torchvision":
            given = {"image_size": SIZE[0]} if short == "vit_b_16" else {}
            return torchvision.get_model(short, weights=None, num_classes=classes, **given)
        timm = pytest.importorskip("timm")
        try:
            return timm.create_model(short, num_classes=classes, img_size=SIZE)
        except TypeError:
            return timm.create_model(short, num_classes=classes)


def logits(model: nn.Module, training: bool) -> torch.Tensor:
    """Of a pass with the same draws of dropout each time."""
    torch.manual_seed(7)
    with torch.no_grad():
        return model.train(training)(torch.linspace(-2, 2, 4 * 3 * 32 * 32).sin().view(4, 3, *SIZE))


cases = [pytest.param(name, marks=[pytest.mark.stress] if name in LARGE else []) for name in BORROWED]


@pytest.mark.parametrize("name", cases)
def test_the_stages_are_the_original_bit_for_bit_with_as_many_weights(name):
    whole, cut = original(name), net(name)
    assert sum(p.numel() for p in whole.parameters()) == sum(p.numel() for p in cut.parameters())
    for training in (False, True):
        assert torch.equal(logits(cut, training), logits(whole, training))
    assert isinstance(cut.head, nn.Linear) and cut.head.out_features == 5
    x = torch.zeros(2, 3, *SIZE)
    for stage, size in cut.eval().sizes(3, *SIZE).items():
        hidden = cut.features(x, stop=stage)
        assert (hidden.shape[2:] if hidden.ndim == 4 else None) == size
    assert listed(cut.stages) == BORROWED[name].rpartition(": ")[2]


def listed(stages) -> str:
    """Names of stages as `list nets` writes them: of three or more that count on, the first and the last."""
    text = ", ".join(stages)
    runs = {m[0]: m for m in re.finditer(r"([a-z]+)(\d+)(, \1\d+){2,}", text)}
    for run in list(runs):
        names, kept = run.split(", "), []
        for name in names:
            letters, number = re.fullmatch(r"([a-z]+)(\d+)", name).groups()
            if kept and kept[-1][-1] == f"{letters}{int(number) - 1}":
                kept[-1].append(name)
            else:
                kept.append([name])
        short = ", ".join(f"{r[0]} … {r[-1]}" if len(r) > 2 else ", ".join(r) for r in kept)
        text = text.replace(run, short)
    return text


def test_the_list_holds_thirty_nets_of_timm_and_all_that_are_promised_of_torchvision():
    assert len(TIMM) >= 30 and sum(f"timm:{name}" not in LARGE for name in TIMM) >= 30
    assert {name.partition(":")[0] for name in BORROWED} == {"torchvision", "timm"}


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_large", "timm:mobilenetv3_small_050"])
def test_weights_come_from_the_key_and_the_global_generator_stays(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    before = torch.get_rng_state()
    one, same, other = net(name), net(name), net(name, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_large", "timm:vit_tiny_patch16_224", "timm:convnext_atto"])
def test_grey_images_and_those_of_unequal_sides_pass(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    model = net(name, channels=1, size=(32, 48))
    assert model(torch.zeros(2, 1, 32, 48)).shape == (2, 5)


def test_batchnorm_with_an_activation_inside_is_frozen_and_kept_still_like_any_other():
    pytest.importorskip("timm")
    model, x = net("timm:mobilenetv3_small_050").train(), torch.randn(4, 3, *SIZE)
    with torch.no_grad():
        model(x)
        state = {name: value.clone() for name, value in model.state_dict().items()}
        with model.frozen_batchnorm():
            frozen = model(x)
        with model.still_batchnorm():
            still = model(x)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert torch.equal(still, model(x)) and not torch.equal(still, frozen)
        model.load_state_dict(state)
        assert torch.equal(frozen, model.eval()(x))


def test_a_net_may_be_cut_elsewhere():
    model = net("torchvision:mobilenet_v3_large", cut=("features.0", "features.6", "features.16"))
    assert list(model.stages) == ["features_0", "features_6", "features_16"]
    with pytest.raises(UserError, match="cut: no such submodule; got features.99"):
        net("torchvision:mobilenet_v3_large", cut=("features.99",))
    with pytest.raises(UserError, match="cut: is named twice; got features.3"):
        net("torchvision:mobilenet_v3_large", cut=("features.3", "features.3"))


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        ("torchvision:swin", {}, "--net: unknown; got torchvision:swin. Did you mean torchvision:swin_t?"),
        ("torchvision:nosuch", {}, "No name of torchvision's is like it. Known: torchvision:resnet18, torchvision:r"),
        ("keras:swin", {}, "--net: unknown; got keras:swin. Known: small, resnet18, "),
        ("keras:swin", {}, "vit-tiny, torchvision:NAME, timm:NAME, path.py:build"),
        ("swin_t", {}, "--net: unknown; got swin_t. Did you mean torchvision:swin_t?"),
        ("timm:nosuch", {}, "No name of timm's is like it. mixcli list nets has some, timm.list_models() every one"),
        ("timm:", {}, "No name of timm's is like it."),
        ("timm:resnet19", {}, "--net: unknown; got timm:resnet19. Did you mean timm:resnet18 or timm:"),
        ("timm:ResNet18x", {}, "Did you mean timm:resnet18 or "),
        ("timm:vit_smal", {}, "Did you mean timm:vit_small_patch8_224 or timm:vit_small_patch16_224 or "),
        ("timm:swin_t", {}, "Did you mean timm:swin_tiny_patch4_window7_224"),
        ("timm:ghostnet_050", {}, "net: cannot be cut into stages: code between the stages depends on train or eval"),
        ("timm:resnetv2_18", {}, "net: cannot be cut into stages: it does not end in one linear layer"),
        ("timm:levit_128s", {}, "net: cannot be cut into stages: it has no single linear head"),
        ("torchvision:vit_b_16", {"size": (32, 48)}, "net: torchvision:vit_b_16 takes square images; got 32x48"),
        ("torchvision:vit_b_16", {"size": (8, 8)}, "vit_b_16 cannot be built for images of 8x8 pixels"),
        ("torchvision:convnext_tiny", {"size": (8, 8)}, "net: images of 8x8 pixels do not fit it"),
        ("timm:vit_tiny_patch16_224", {"size": (8, 8)}, "Name another net or a data set of larger images"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_in_one_line(name, asked, told):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    with pytest.raises(UserError) as caught:
        net(name, **asked)
    assert told in str(caught.value) and caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_a_width_is_refused():
    with pytest.raises(UserError, match="width: torchvision:swin_t has channels of its own; got 8"):
        build("torchvision:swin_t", 3, 5, 8, Random(0, "init"), size=SIZE)


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r'needs timm; got timm:resnet18. pip install "mixcli\[timm\]"'):
        net("timm:resnet18")


# -- published weights -----------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty cache of torch.hub, and a network that would fail the test."""

    def no_network(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("socket.socket.connect", no_network)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def published(hub, monkeypatch, name: str):
    """Weights of an original in the cache, under the name by which torchvision would look for them."""
    weights = original(f"torchvision:{name}", seed=3, classes=1000).state_dict()
    torch.save(weights, hub / "raw")
    digits = hashlib.sha256((hub / "raw").read_bytes()).hexdigest()[:8]
    (hub / "raw").rename(hub / f"{name}-{digits}.pth")
    default = types.SimpleNamespace(url=f"https://nowhere.invalid/{name}-{digits}.pth")
    monkeypatch.setattr(torchvision, "get_model_weights", lambda _: types.SimpleNamespace(DEFAULT=default))
    return weights


def test_published_weights_of_torchvision_are_taken_over_but_for_the_head(hub, monkeypatch):
    weights = published(hub, monkeypatch, "mobilenet_v3_large")
    model = net("torchvision:mobilenet_v3_large", pretrained=True)
    taken = [value for name, value in model.state_dict().items() if not name.startswith("head.")]
    assert all(torch.equal(a, b) for a, b in zip(list(weights.values())[: len(taken)], taken, strict=True))
    assert model.head.weight.shape == (5, 1280)
    grey = net("torchvision:mobilenet_v3_large", channels=1, pretrained=True)
    first = next(iter(grey.parameters()))
    assert torch.equal(first, weights["features.0.0.weight"].sum(1, keepdim=True))
    with pytest.raises(UserError, match="pretrained: weights for 3 channels fit colour and grey images, these have 4"):
        net("torchvision:mobilenet_v3_large", channels=4, pretrained=True)


def test_positions_of_a_transformer_are_interpolated(hub, monkeypatch):
    weights = {"encoder.pos_embedding": torch.randn(1, 197, 8)}
    monkeypatch.setattr(borrowed, "_from_hub", lambda *_: weights)
    assert borrowed._published_by_torchvision("vit_b_16", 32)["encoder.pos_embedding"].shape == (1, 5, 8)


def test_weights_that_are_not_at_hand_are_told_with_where_they_would_be(hub):
    with pytest.raises(UserError) as caught:
        net("torchvision:mobilenet_v3_large", pretrained=True)
    assert caught.value.exit_code == 3 and "nothing is downloaded" in str(caught.value)
    assert str(hub) in str(caught.value) and "https://download.pytorch.org" in str(caught.value)


def test_a_trained_net_is_built_again_without_its_published_weights(hub):
    settings = Train(net="torchvision:mobilenet_v3_large", pretrained=True)
    assert of_run(settings, 3, 5, SIZE, Random(0, "init")).head.out_features == 5
    with pytest.raises(UserError, match="nothing is downloaded"):
        of_run(settings, 3, 5, SIZE, Random(0, "init"), pretrained=True)


def test_weights_whose_digits_are_others_are_refused(hub, monkeypatch):
    published(hub, monkeypatch, "mobilenet_v3_large")
    (file,) = hub.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="is not the file that its name promises") as caught:
        net("torchvision:mobilenet_v3_large", pretrained=True)
    assert caught.value.exit_code == 3


def test_published_weights_of_timm_are_taken_from_hugging_faces_cache(hub, monkeypatch, tmp_path):
    pytest.importorskip("timm")
    import huggingface_hub
    from safetensors.torch import save_file

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(UserError, match="no weights of timm:lcnet_050 at hand") as caught:
        net("timm:lcnet_050", pretrained=True)
    assert caught.value.exit_code == 3
    weights = original("timm:lcnet_050", seed=3, classes=1000).state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    model = net("timm:lcnet_050", pretrained=True)
    taken = [value for name, value in model.state_dict().items() if not name.startswith("head.")]
    assert all(torch.equal(a, b) for a, b in zip(list(weights.values())[: len(taken)], taken, strict=True))
    assert model.head.out_features == 5
