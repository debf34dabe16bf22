from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mixcli.errors import UserError
from mixcli.nets.cutting import cut


class Glued(nn.Module):
    """A classifier with code between its modules: a ReLU, a shortcut inside, pooling by hand."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.ModuleDict({"a": nn.Conv2d(6, 6, 3, padding=1), "b": nn.BatchNorm2d(6)})
        self.drop = nn.Dropout(0.5)
        self.last = nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 4))

    def forward(self, x, scale=None):
        x = F.relu(self.first(x))
        x = x if scale is None else scale * x
        x = x + self.inner["a"](x)
        x = F.max_pool2d(self.inner["b"](x), 2)
        return self.last(self.drop(torch.flatten(x.mean((2, 3)), 1)))


class Tangled(Glued):
    """The images are needed again behind the first stage."""

    def forward(self, x):
        return self.last((self.inner["b"](self.inner["a"](F.relu(self.first(x)))) + x.mean()).mean((2, 3)))


class Moody(Glued):
    """Dropout as a function, whose mode would be fixed where it is cut."""

    def forward(self, x):
        x = F.dropout(F.relu(self.first(x)), 0.5, self.training)
        return self.last(self.inner["b"](self.inner["a"](x)).mean((2, 3)))


class Deciding(Glued):
    def forward(self, x):
        return self.last(self.first(x).mean((2, 3)) if x.sum() > 0 else self.inner["a"](self.first(x)).mean((2, 3)))


class Twice(Glued):
    def forward(self, x):
        return self.last(self.inner["a"](self.inner["a"](F.relu(self.first(x)))).mean((2, 3)))


class Headless(Glued):
    def forward(self, x):
        return super().forward(x).log_softmax(1)


class Spare(Glued):
    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(2, 2)


class Turned(nn.Module):
    """Stages that hand over (B, H, W, C)."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 5, 2, 2)
        self.norms = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 6), nn.LayerNorm(6))
        self.more = nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.more(self.norms(self.patches(x).permute(0, 2, 3, 1))).mean((1, 2)))


IMAGES = torch.linspace(-1, 1, 3 * 3 * 8 * 8).view(3, 3, 8, 8).sin()
AT = {"stem": "first", "middle": "inner.b"}


def made(kind=Glued):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind()


def test_a_cut_net_is_the_module_in_both_modes_with_the_modules_own_weights():
    module, twin = made(), made()
    net = cut(module, AT, IMAGES)
    assert list(net.stages) == ["stem", "middle"] and net.head is module.last[2]
    assert {id(p) for p in net.parameters()} == {id(p) for p in module.parameters()}
    for mode in (True, False):
        states = []
        for model in (net.train(mode), twin.train(mode)):
            torch.manual_seed(5)  # dropout alone
            states.append(model(IMAGES))
        assert torch.equal(*states)
    assert torch.equal(module.inner["b"].running_mean, twin.inner["b"].running_mean)


def test_stages_of_a_cut_net_compose_and_gradients_pass():
    net = cut(made(), AT, IMAGES).eval()
    hidden = net.features(IMAGES, stop="stem")
    assert torch.equal(net.features(hidden, "stem", "middle"), net.features(IMAGES, stop="middle"))
    assert torch.equal(net.features(hidden, start="stem"), net.features(IMAGES))
    net(IMAGES).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_a_cut_net_is_copied_with_its_weights_and_saved_by_names():
    net = cut(made(), AT, IMAGES).eval()
    twin = copy.deepcopy(net)
    assert torch.equal(twin(IMAGES), net(IMAGES)) and twin.head is not net.head
    with torch.no_grad():
        twin.head.weight.add_(1)
    assert not torch.equal(twin(IMAGES), net(IMAGES))
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(IMAGES), net(IMAGES))


def test_the_stages_may_end_in_the_middle_of_a_container_and_the_head_may_be_named():
    net = cut(made(), {"a": "first", "b": "last.0"}, IMAGES, head="last.2")
    assert net.features(IMAGES, stop="b").shape == (3, 7)
    assert net.sizes(3, 8, 8) == {"input": (8, 8), "a": (8, 8), "b": None}


def test_maps_with_channels_last_are_seen_with_channels_first():
    module = made(Turned)
    net = cut(module, {"norms": "norms", "more": "more"}, IMAGES, channels_last=True)
    assert net.features(IMAGES, stop="norms").shape == (3, 6, 4, 4)
    assert torch.equal(net(IMAGES), module(IMAGES))


@pytest.mark.parametrize(
    ("kind", "at", "told"),
    [
        (Glued, {"a": "second"}, "cut: no such submodule; got second"),
        (
            Glued,
            {"a": "inner.a", "b": "first"},
            "cut: run in another order; got inner.a, first, expected first, inner.a",
        ),
        (Glued, {"a": "first", "b": "inner"}, "inner, expected submodules that run once"),
        (Glued, {}, "no stage is named"),
        (Glued, {"input": "first"}, "is the name of the images; got input"),
        (Glued, {"a": "first", "b": "inner.a"}, "last.2 needs more than what the stage before hands over"),
        (Tangled, AT, "needs more than what the stage before hands over"),
        (Moody, AT, "depends on train or eval mode"),
        (Deciding, AT, "its forward cannot be followed"),
        (Twice, {"a": "inner.a"}, "cut: runs 2 times; got inner.a"),
        (Headless, AT, "does not end in one linear layer"),
        (Spare, AT, "some are shared or unused"),
        (Turned, {"a": "norms"}, "channels must come first"),
    ],
)
def test_a_net_that_cannot_be_cut_is_refused_in_one_line(kind, at, told):
    with pytest.raises(UserError) as caught:
        cut(made(kind), at, IMAGES)
    assert told in str(caught.value) and caught.value.exit_code == 2 and "\n" not in str(caught.value)


def test_images_that_do_not_fit_are_told_with_the_reason():
    with pytest.raises(UserError, match="images of 1x1 pixels do not fit it"):
        cut(made(), AT, IMAGES[:, :, :1, :1])


def test_a_module_is_left_in_the_mode_it_was_in():
    module = made().eval()
    cut(module, AT, IMAGES)
    assert not module.training
