"""The laws of METHODS section 1, over the whole catalogue of mixings; what they say stands in studies/laws.py."""

from __future__ import annotations

import pytest
import torch

from mixcli.methods.supervised import draw
from mixcli.sampling import Random
from mixcli.studies import laws
from mixcli.studies.laws import changed, drawn, weights
from tests import fakes

each_mixing = pytest.mark.parametrize("settings", fakes.MIXINGS, ids=fakes.label)
each_law = pytest.mark.parametrize("law", laws.MIXING_LAWS, ids=lambda law: law.name)


@each_mixing
@each_law
def test_a_mixing_obeys(law, settings):
    try:
        assert law.holds(settings)
    except laws.Excused as why:
        pytest.skip(str(why))


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
