"""The laws of METHODS section 1, over the whole catalogue of mixings."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from mixcli.methods.supervised import draw
from mixcli.mix import Mix
from mixcli.sampling import Random
from mixcli.settings import Mixing
from tests import fakes

SIZES = [(8, 8, 8), (7, 5, 9), (1, 8, 8), (2, 1, 7), (3, 7, 1), (5, 1, 1), (2, 2, 2)]
each_mixing = pytest.mark.parametrize("settings", fakes.MIXINGS, ids=fakes.label)
each_size = pytest.mark.parametrize("size", SIZES, ids=str)


def drawn(settings: Mixing, size: tuple[int, int, int] = (8, 8, 8), step: int = 0, **changes) -> Mix:
    return draw(changed(settings, **changes), fakes.context(*size), Random(0, "mix", step))


def changed(settings: Mixing, **changes) -> Mixing:
    set_before = {k: getattr(settings, k) for k in settings.model_fields_set}
    return type(settings)(**{**set_before, **changes})


def weights(mix: Mix) -> torch.Tensor:
    """(K, B, 1, h, w) whatever the form."""
    return mix.weight if mix.weight is not None else torch.stack([mix.keep, 1 - mix.keep])


@each_mixing
def test_equal_keys_draw_equal_plans_and_other_steps_draw_others(settings):
    one, same, other = drawn(settings), drawn(settings), drawn(settings, step=1)
    assert torch.equal(one.source, same.source) and torch.equal(weights(one), weights(same))
    assert not torch.equal(one.source, other.source) or not torch.equal(weights(one), weights(other))


@each_mixing
@each_size
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_weights_lie_in_the_unit_interval_and_sum_to_one(settings, size, per):
    w = weights(drawn(settings, size, per=per))
    assert w.dtype == torch.float32 and w.min() >= 0 and w.max() <= 1
    assert (w.double().sum(0) - 1).abs().max() < 1e-6


@each_mixing
@each_size
def test_ledger_1_the_label_weight_is_the_mean_of_the_final_mask(settings, size):
    mix = drawn(settings, size, per="sample")
    if mix.weight is None:
        assert torch.equal(mix.ratio[0], mix.keep.mean(dim=(1, 2, 3), dtype=torch.float64).to(torch.float32))
    else:
        assert torch.equal(mix.ratio, mix.weight.mean(dim=(2, 3, 4), dtype=torch.float64).to(torch.float32))
    rows = mix.targets(torch.from_numpy(fakes.labels(size[0])), fakes.CLASSES)
    assert rows.dtype == torch.float32 and (rows.sum(1) - 1).abs().max() < 1e-6


@each_mixing
@each_size
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_sources_bound_the_result_and_constants_stay(settings, size, dtype):
    mix = drawn(settings, size, per="sample")
    x = fakes.rows(settings, *size, dtype=dtype)
    mixed, low, high = mix.images(x), x[mix.source], x[mix.source]
    if mix.place is not None:  # pixels of the partner come from all over it
        low, high = (torch.stack([x[: size[0]], bound(low[1], (2, 3), True).expand_as(low[1])])
                     for bound in (torch.amin, torch.amax))  # fmt: skip
    assert mixed.dtype == dtype
    assert (mixed >= low.amin(0)).all() and (mixed <= high.amax(0)).all()
    constant = torch.full_like(x, 0.7)
    assert torch.equal(mix.images(constant), constant[: size[0]])


@each_mixing
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_ledger_10_mixing_an_image_with_itself_returns_its_bits(settings, dtype):
    mix = drawn(settings, per="sample")
    itself = Mix(torch.arange(8).expand_as(mix.source), keep=mix.keep, weight=mix.weight)  # as it is, not shrunk
    x = fakes.images(dtype=dtype)
    assert torch.equal(itself.images(x), x)


@each_mixing
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_ledger_14_probability_zero_returns_the_batch_bit_for_bit(settings, per):
    mix = drawn(settings, per=per, probability=0)
    x = fakes.rows(settings)
    x[0, 0, 0, 0] = torch.nan
    assert torch.equal(mix.images(x).nan_to_num(9), x[:8].nan_to_num(9))
    y = torch.from_numpy(fakes.labels(8))
    assert torch.equal(mix.targets(y, fakes.CLASSES).argmax(1), y) and mix.targets(y, fakes.CLASSES).max() == 1


@each_mixing
def test_where_keep_is_one_a_nan_in_the_partner_stays_out(settings):
    mix = drawn(settings, per="sample")
    if mix.keep is None:
        pytest.skip("a product of K > 2 weights passes NaN on; the rule is for pairs")
    x = fakes.rows(settings)
    keep = mix.keep.clone()
    keep[0] = 1
    x[mix.source[1, 0]] = torch.nan if mix.source[1, 0] != 0 else x[0]
    one = Mix(mix.source, keep=keep, place=mix.place)
    assert torch.equal(one.images(x)[0], x[0]) or mix.source[1, 0] == 0


@each_mixing
@pytest.mark.parametrize("per", ["batch", "sample"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_what_is_known_of_a_mask_is_true_and_neither_it_nor_the_way_to_mix_changes_a_bit(settings, per, dtype):
    mix = drawn(settings, (300, 9, 7), per=per, probability=0.8)
    x = fakes.rows(settings, 300, 9, 7, dtype=dtype)
    if mix.keep is not None:
        assert mix.form != "binary" or ((mix.keep == 0) | (mix.keep == 1)).all()
        assert mix.form != "partial" or (mix.keep < 1).all()
    unknown = dataclasses.replace(mix, form="any")
    assert torch.equal(mix.images(x), unknown.images(x)) and torch.equal(mix.ratio, unknown.ratio)
    x[5, 0, 2, 3], x[7, 1, 1, 1] = torch.nan, torch.inf
    written_out = mix.images(x.clone().requires_grad_()).detach()  # as it is on a GPU and under compilation
    assert torch.equal(mix.images(x).nan_to_num(9), written_out.nan_to_num(9))


@each_mixing
def test_ledger_20_images_and_targets_use_one_partner_index(settings):
    """Images that carry their label as a constant mix to the mixed label."""
    mix = drawn(settings, per="sample")
    y = torch.from_numpy(fakes.labels(8))
    x = y.double().view(-1, 1, 1, 1).expand(8, 3, 8, 8)
    pixel_mean = mix.images(torch.cat([x, x])).mean(dim=(1, 2, 3))  # in either view
    label_mean = (mix.targets(y, fakes.CLASSES).double() * torch.arange(fakes.CLASSES)).sum(1)
    assert torch.allclose(pixel_mean, label_mean, atol=1e-5)


@each_mixing
def test_per_batch_draws_one_ratio_and_per_sample_one_each(settings):
    batch, sample = (drawn(settings, (8, 31, 31), per=per).ratio[0] for per in ("batch", "sample"))
    assert len(batch.unique()) == 1 and len(sample.unique()) > 4


@each_mixing
def test_the_law_of_the_mask_is_transposed_with_the_image(settings):
    """Mean mask over many draws on 6 x 12 equals the transposed one on 12 x 6."""
    if settings.name == "gridmix" or "gridmix" in getattr(settings, "methods", ()):
        pytest.skip("its patches are cut from the crop's width, by definition")
    means = []
    for size in [(64, 6, 12), (64, 12, 6)]:
        masks = [weights(drawn(settings, size, step, per="sample"))[0].mean(0) for step in range(25)]
        means.append(torch.stack(masks).mean(0).squeeze())
    assert (means[0] - means[1].mT).abs().max() < 0.05 if means[0].ndim else abs(means[0] - means[1]) < 0.05


@each_mixing
def test_ledger_26_no_global_generator_is_read_or_moved(settings):
    np.random.seed(1), torch.manual_seed(1)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    one = drawn(settings)
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.get_rng_state(), before[1])
    np.random.seed(2), torch.manual_seed(2)
    assert torch.equal(one.source, drawn(settings).source)


@each_mixing
def test_the_sources_are_not_changed_and_layouts_agree(settings):
    mix = drawn(settings, per="sample")
    x = fakes.rows(settings)
    before = x.clone()
    plain = mix.images(x)
    assert torch.equal(x, before)
    assert torch.equal(mix.images(x.to(memory_format=torch.channels_last)), plain)
    assert torch.equal(mix.images(fakes.images(2 * len(x))[: len(x)].copy_(x)), plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@each_mixing
@pytest.mark.parametrize("per", ["batch", "sample"])
def test_gpu_a_mixing_is_drawn_and_applied_without_waiting(settings, per):
    settings, context = changed(settings, per=per), fakes.context(16, 9, 12)
    rows, labels = fakes.rows(settings, 16, 9, 12).cuda(), torch.from_numpy(context.labels).cuda()
    draw(settings, context, Random(0, "mix", 0, device=rows.device))  # what is made once and kept may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        mix = draw(settings, context, Random(0, "mix", 1, device=rows.device))
        images, targets = mix.images(rows), mix.targets(labels, fakes.CLASSES)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    on_cpu = draw(settings, context, Random(0, "mix", 1))
    assert images.is_cuda and torch.equal(mix.source.cpu(), on_cpu.source) and (targets.sum(1) - 1).abs().max() < 1e-6
    if "fmix" not in settings.label() and settings.name != "miamix":  # noise is made where it is used
        assert torch.allclose(weights(mix).cpu(), weights(on_cpu), atol=1e-5)


def test_integer_images_are_refused():
    with pytest.raises(TypeError, match="floating-point"):
        drawn(fakes.MIXINGS[0]).images(torch.zeros(8, 3, 8, 8, dtype=torch.uint8))


def test_a_mask_of_another_size_is_refused_naming_both():
    mix = drawn(next(m for m in fakes.MIXINGS if m.name == "cutmix"))
    with pytest.raises(ValueError, match=r"\(8, 8\).*\(8, 3, 4, 4\)"):
        mix.images(torch.zeros(8, 3, 4, 4))
