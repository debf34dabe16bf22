"""Where a probe reads a net: what each tap shows, that nothing remains, and what is refused."""

import pytest
import torch
from torch import nn

from mixcli.catalogue import NETS
from mixcli.errors import UserError
from mixcli.nets.building import build
from mixcli.nets.staged import StagedNet
from mixcli.sampling import Random
from mixcli.studies.probes import sites


def net(name="small"):
    return build(name, 3, 5, 4, Random(0, "init")).eval()


def readings(net, x, start="input"):
    with torch.no_grad(), sites.taps(net, x[:1] if start == "input" else torch.randn(1, 3, 8, 8)) as read:
        return {(site, tap): values.clone() for site, tap, values in read(x, start)}


@pytest.mark.parametrize("name", sorted(NETS))
def test_every_net_is_read_at_every_site_in_depth_order_and_left_without_a_hook(name):
    made, x = net(name), torch.randn(3, 3, 16, 16)
    found = readings(made, x)
    assert list(dict.fromkeys(site for site, _ in found)) == list(sites.sites(made))
    with torch.no_grad():
        assert torch.equal(found["logits", "post"], made(x))
    for stage in made.stages:
        with torch.no_grad():
            assert torch.equal(found[stage, "post"], made.features(x, stop=stage))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in made.modules())


def test_pre_is_what_enters_the_last_call_of_an_in_place_relu_used_twice():
    made, x = net("small"), torch.randn(4, 3, 8, 8)
    found = readings(made, x)
    block = made.stages["layer1"]
    with torch.no_grad():
        inside = made.features(x, stop="stem")
        by_hand = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(inside))))) + block.shortcut(inside)
    assert torch.equal(found["layer1", "pre"], by_hand)
    assert torch.equal(found["layer1", "post"], by_hand.relu())
    assert (found["layer1", "pre"] < 0).any()


def test_a_stage_that_closes_with_an_addition_has_one_tap():
    taps = {tap for site, tap in readings(net("preact-resnet18"), torch.randn(2, 3, 16, 16)) if site == "layer2"}
    assert taps == {"post"}


def test_no_hook_remains_after_an_error():
    made = net()
    with pytest.raises(RuntimeError), sites.taps(made, torch.randn(1, 3, 8, 8)):
        raise RuntimeError
    assert not any(m._forward_pre_hooks for m in made.modules())


@pytest.mark.parametrize("start", ["stem", "layer2", "pooled", "logits"])
def test_reading_may_start_at_any_site(start):
    made, x = net(), torch.randn(2, 3, 8, 8)
    whole = readings(made, x)
    rest = readings(made, whole[start, "post"], start)
    assert rest and all(torch.equal(whole[key], values) for key, values in rest.items())


def test_a_compiled_net_is_refused():
    made = net()
    made.stages["stem"].compile()
    with pytest.raises(ValueError, match="compiled"), sites.taps(made, torch.randn(1, 3, 8, 8)):
        pass


def test_an_unknown_stage_is_told_with_the_nearest_first_and_all_others():
    with pytest.raises(UserError) as error:
        sites.chosen(net(), "layer1,layr2")
    line = str(error.value)
    assert error.value.exit_code == 2 and "layr2" in line
    assert line.index("Did you mean layer2") < line.index("input, stem, layer1")
    assert sites.chosen(net(), "logits, stem") == ("stem", "logits")


def test_a_stage_without_a_tensor_is_told():
    class Nothing(nn.Module):
        def forward(self, x):
            return None

    made = StagedNet({"stem": Nothing()}, nn.Linear(1, 2))
    with pytest.raises(UserError, match="stem gives no feature tensor"):
        readings(made, torch.randn(1, 3, 8, 8))
