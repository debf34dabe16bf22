from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet34, resnet50, resnet101, resnext50_32x4d

from mixcli.catalogue import NETS
from mixcli.errors import UserError
from mixcli.nets.building import build
from mixcli.nets.vit import positions
from mixcli.nets.whitening import Whitening
from mixcli.sampling import Random

SIZES = {"cnn-13": [(16, 16), (13, 17)], "vit-tiny": [(16, 16), (8, 12)]}  # of images that not every net takes
each_net = pytest.mark.parametrize("name", list(NETS))


def net(name: str, seed: int = 0, classes: int = 5):
    return build(name, 3, classes, 4, Random(seed, "init"))


@each_net
def test_features_from_any_stage_to_any_later_one_compose(name):
    model, x = net(name).eval(), torch.randn(2, 3, 16, 16)
    names = ["input", *model.stages]
    whole = model.features(x)
    for i, stage in enumerate(names):
        hidden = model.features(x, stop=stage)
        assert torch.equal(model.features(hidden, start=stage), whole)
        for later in names[i:]:
            assert torch.equal(model.features(hidden, stage, later), model.features(x, stop=later))
    assert torch.equal(model(x), model.head(whole)) and whole.ndim == 2


@each_net
def test_sizes_are_those_of_a_real_forward(name):
    model = net(name).eval()
    for size in SIZES.get(name, [(16, 16), (13, 17), (9, 13), (8, 8)]):
        found = model.sizes(3, *size)
        assert list(found) == ["input", *model.stages]
        for stage, expected in found.items():
            assert model.features(torch.zeros(1, 3, *size), stop=stage).shape[2:] == expected


def test_a_start_beyond_the_stop_and_an_unknown_stage_raise():
    with pytest.raises(ValueError, match="beyond"):
        net("small").features(torch.zeros(1, 3, 8, 8), start="layer2", stop="layer1")
    with pytest.raises(ValueError, match="layer9"):
        net("small").features(torch.zeros(1, 3, 8, 8), stop="layer9")


@each_net
def test_weights_come_from_the_key_and_the_global_generator_stays(name):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = net(name), net(name), net(name, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("resnet18", resnet18), ("resnet34", resnet34), ("resnet50", resnet50), ("resnext50", resnext50_32x4d),
        pytest.param("resnet101", resnet101, marks=pytest.mark.stress),  # the blocks of resnet50, twice as many weights
    ],
)  # fmt: skip
def test_a_resnet_equals_torchvisions_with_the_stem_exchanged(name, original):
    reference = original(num_classes=10)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    ours = build(name, 3, 10, None, Random(0, "init"))
    pairs = zip(reference.state_dict().values(), ours.state_dict().values(), strict=True)
    assert all(a.shape == b.shape for a, b in pairs)
    ours.load_state_dict(dict(zip(ours.state_dict(), reference.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(ours(x), reference(x), atol=1e-4)
    assert torch.allclose(ours.eval()(x), reference.eval()(x), atol=1e-4)


def test_the_vision_transformer_equals_timms_with_the_same_weights_and_positions():
    timm = pytest.importorskip("timm.models.vision_transformer")
    shape = {"embed_dim": 128, "depth": 12, "num_heads": 2, "class_token": False, "fc_norm": False}
    reference = timm.VisionTransformer(16, 4, 3, 10, "avg", **shape)
    ours = build("vit-tiny", 3, 10, 128, Random(0, "init"))
    theirs = {name: value for name, value in reference.state_dict().items() if name != "pos_embed"}
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.values(), strict=True)))
    at = positions(128, 4, 4, torch.device("cpu")).flatten(1).T[None]
    reference.load_state_dict({"pos_embed": at, **theirs})
    x = torch.randn(2, 3, 16, 16)
    assert torch.allclose(ours.eval()(x), reference.eval()(x), atol=1e-5)


def test_positions_tell_every_patch_from_every_other_and_rows_from_columns():
    found = positions(64, 6, 5, torch.device("cpu"))
    assert torch.equal(found[:32, 0], found[:32, 3]) and torch.equal(found[32:, :, 0], found[32:, :, 4])
    apart = torch.cdist(found.flatten(1).T, found.flatten(1).T) + torch.eye(30)
    assert apart.min() > 0.5


@pytest.mark.parametrize(
    ("name", "channels", "classes", "count"),
    [
        ("small", 1, 10, 77_754),
        ("resnet18", 3, 100, 11_220_132),
        ("preact-resnet18", 3, 100, 11_218_340),
        ("wrn-28-2", 3, 10, 1_467_610),
        ("wrn-28-8", 3, 10, 23_354_842),
        ("wrn-28-10", 3, 10, 36_479_194),
        ("resnext50", 3, 100, 23_177_124),
        ("vit-tiny", 3, 100, 5_367_460),
        ("cnn-13", 3, 10, 3_121_802),
    ],
)
def test_parameter_counts(name, channels, classes, count):
    model = build(name, channels, classes, None, Random(0, "init"))
    assert sum(p.numel() for p in model.parameters()) == count


def test_the_preactivation_net_pools_after_its_closing_norm():
    model = net("preact-resnet18").eval()
    x = torch.randn(2, 3, 16, 16)
    assert (model.features(x) >= 0).all() and (model.features(x, stop="layer4") < 0).any()


@each_net
def test_frozen_batchnorm_neither_reads_nor_moves_batch_statistics(name):
    model, x = net(name).train(), torch.randn(4, 3, 16, 16)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    state = {k: v.clone() for k, v in model.state_dict().items()}
    with model.frozen_batchnorm():
        frozen = model.features(x)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert torch.equal(frozen, model.eval().features(x))


def test_images_that_are_too_small_are_told():
    with pytest.raises(UserError, match="images of 8x8 pixels do not fit it"):
        net("cnn-13").sizes(3, 8, 8)


def test_whitening_decorrelates_and_commutes_with_mixing():
    rng = torch.Generator().manual_seed(0)
    spread = torch.randn(48, 48, generator=rng) / 7 + torch.eye(48)
    images = (torch.randn(600, 48, generator=rng) @ spread + 3).view(600, 3, 4, 4)
    layer = Whitening((3, 4, 4))
    layer.fit([images[:250], images[250:]])
    rows = layer(images).flatten(1)
    assert torch.allclose(rows.mean(0), torch.zeros(48), atol=1e-4)
    assert torch.allclose(rows.T @ rows / 600, torch.eye(48), atol=5e-3)
    assert torch.equal(layer.matrix, layer.matrix.T)
    blend = layer(0.3 * images[:5] + 0.7 * images[5:10])
    assert torch.allclose(blend, 0.3 * layer(images[:5]) + 0.7 * layer(images[5:10]), atol=1e-4)


def test_a_whitened_net_is_the_net_after_the_layer():
    plain = net("small").eval()
    whitened = build("small", 3, 5, 4, Random(0, "init"), whitened=(8, 8)).eval()
    layer, x = whitened.stages["stem"][0], torch.randn(9, 3, 8, 8)
    layer.fit([x])
    assert torch.equal(whitened(x), plain(layer(x))) and whitened.sizes(3, 8, 8) == plain.sizes(3, 8, 8)


def test_still_batchnorm_uses_batch_statistics_and_moves_nothing():
    model, x = net("small").train(), torch.randn(4, 3, 8, 8)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    with model.still_batchnorm():
        still = model(x)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(still, model(x)) and not torch.equal(model.stages["stem"][1].running_mean, torch.zeros(4))


@pytest.mark.parametrize(("width", "fits"), [(4, True), (64, True), (6, False), (96, False), (128, True)])
def test_a_width_that_makes_no_whole_heads_is_refused(width, fits):
    if fits:
        assert build("vit-tiny", 3, 5, width, Random(0, "init"))(torch.zeros(1, 3, 8, 8)).shape == (1, 5)
        return
    with pytest.raises(UserError, match=f"width: does not fit the heads; got {width}"):
        build("vit-tiny", 3, 5, width, Random(0, "init"))


def test_images_that_do_not_fall_into_patches_are_told():
    with pytest.raises(UserError, match="images of 10x8 pixels do not fall into patches of 4x4"):
        net("vit-tiny").sizes(3, 10, 8)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"cut": ("layer1",)}, "cut: small is cut into stages already"),
        ({"pretrained": True}, "pretrained: there are no published weights of small"),
    ],
)
def test_what_belongs_to_nets_of_other_libraries_is_refused_for_the_own(asked, told):
    with pytest.raises(UserError, match=told):
        build("small", 3, 5, None, Random(0, "init"), size=(8, 8), **asked)


def test_an_unknown_net_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean resnet18"):
        build("resnet8", 3, 10, None, Random(0, "init"))
