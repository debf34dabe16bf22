"""What the costs of mixings are compared with follows the same law; how fast it is, they only report."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp

from mixcli.errors import UserError
from mixcli.methods import supervised
from mixcli.mix import Context, implementation
from mixcli.sampling import Random
from mixcli.settings import METHODS, Mixing, MixUp
from mixcli.studies.bench import mixing_cost

MIXINGS = [cls for cls in METHODS.values() if issubclass(cls, Mixing)]
SIDE, DRAWS = 16, 3000
each_mixing = pytest.mark.parametrize("cls", MIXINGS, ids=lambda cls: cls.name)


def drawn(cls: type[Mixing]):
    settings = cls.model_validate({"per": "sample"})
    labels = np.arange(DRAWS) % mixing_cost.CLASSES
    return supervised.draw(settings, Context((DRAWS, SIDE, SIDE), labels, mixing_cost.CLASSES), Random(0, "mix"))


def naive_ratios(cls: type[Mixing]) -> np.ndarray:
    naive, rng, image = mixing_cost.NAIVE[cls], np.random.default_rng(0), torch.zeros(1, SIDE, SIDE)
    return np.array([naive.mix(naive.draw(rng, SIDE, SIDE), image, image)[1] for _ in range(DRAWS)])


@each_mixing
def test_the_loop_over_images_draws_the_shares_that_ours_draws(cls):
    ours, naive = drawn(cls).ratio[0].double().numpy(), naive_ratios(cls)
    assert naive.mean() == pytest.approx(ours.mean(), abs=0.025)
    assert naive.std() == pytest.approx(ours.std(), abs=0.015)
    assert ks_2samp(naive, ours).pvalue > 1e-3  # type: ignore[attr-defined]


@each_mixing
def test_the_loop_mixes_by_its_mask_and_its_targets_are_the_masks_mean(cls):
    naive, rng = mixing_cost.NAIVE[cls], np.random.default_rng(1)
    inputs = mixing_cost._inputs(SIDE, 6, torch.device("cpu"))
    black = mixing_cost.Inputs(inputs.images * 0 + 1, inputs.second * 0, inputs.labels, inputs.host_labels)
    if naive.itself is None:  # one view: a white image among black ones
        black.images[1:] = 0
    partner = np.array([3, 2, 1, 0, 5, 4])
    masks = [naive.draw(rng, SIDE, SIDE) for _ in partner]
    mixed, targets = naive.batch(masks, partner, black)
    assert mixed.shape == inputs.images.shape and targets.shape == (6, mixing_cost.CLASSES)
    assert torch.allclose(targets.sum(1), torch.ones(6))
    own, other = (int(black.labels[i]) for i in (0, 3))
    assert own != other and float(mixed[0].mean()) == pytest.approx(float(targets[0, own]), abs=1e-5)


@each_mixing
def test_the_loop_meets_itself_and_a_second_view_where_ours_does(cls):
    naive, mix = mixing_cost.NAIVE[cls], drawn(cls)
    assert (naive.itself is not None) == bool(implementation(cls()).needs(cls()).views)
    itself = naive.partners(np.random.default_rng(0), DRAWS) == np.arange(DRAWS)
    assert itself.mean() == pytest.approx(float((mix.source[1] % DRAWS == mix.source[0]).double().mean()), abs=0.03)


def test_every_mixing_is_measured_and_the_result_is_plain_enough_for_json():
    found = json.loads(json.dumps(mixing_cost.mixing(sizes=(8,), batches=(4, 6), seconds=0.1, rounds=2)))
    cells = {(row["mixing"], row["per"], row["batch"]) for row in found["rows"]}
    assert {name for name, per, _ in cells if per == "sample"} == {cls.name for cls in MIXINGS}
    assert len(cells) == len(found["rows"]) == 2 * (len(MIXINGS) + len(mixing_cost.IN_TORCHVISION))
    assert all(row.keys() == found["rows"][0].keys() for row in found["rows"])
    for row in found["rows"]:
        assert 0 < row["masks_us"] < row["us"] and 4 <= row["images"] <= row["batch"]
        other = "naive" if row["per"] == "sample" else "torchvision"
        assert row[f"{other}_us"] > 0
        assert row[f"times_{other}_lowest"] <= row[f"times_{other}"] <= row[f"times_{other}_highest"]
    assert not any(map(math.isnan, (v for row in found["rows"] for v in row.values() if isinstance(v, float))))


def test_timms_element_mode_is_measured_where_it_is_installed():
    pytest.importorskip("timm")
    (whole, batch) = mixing_cost.mixing(sizes=(8,), batches=(4,), names=["mixup"], seconds=0.1, rounds=1)["rows"]
    assert (whole["per"], batch["per"]) == ("sample", "batch")
    assert whole["timm_us"] > 0 and whole["times_timm"] == pytest.approx(whole["timm_us"] / whole["us"])
    assert batch["timm_us"] is None


def test_without_timm_the_rest_is_measured(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm.data.mixup", None)
    inputs = mixing_cost._inputs(8, 4, torch.device("cpu"))
    assert set(mixing_cost._forms(MixUp(per="sample"), inputs)) == {"ours", "naive"}


def test_what_is_too_dear_takes_fewer_images():
    level = mixing_cost._level([1.0, 2.0, 9.0, 30.0], 13.0)
    assert level == 5.0 and sum(min(cost, level) for cost in (1.0, 2.0, 9.0, 30.0)) == 13.0
    assert mixing_cost._level([1.0, 2.0], 4.0) == math.inf and mixing_cost._level([1.0], -1.0) == 0
    costs = (0.1, lambda images, *_: 0.1 * images), (1e-4, lambda *_: 1e-4)  # the cost an image in a pilot; of a call
    dear, cheap = (mixing_cost._turn(form, cost, 128, 5.0, float) for cost, form in costs)
    assert (dear.images, dear.calls) == (50, 1) and (cheap.images, cheap.calls) == (128, 500)


def test_an_unknown_mixing_is_refused():
    with pytest.raises(UserError, match="--names: unknown; got mixap"):
        mixing_cost.mixing(names=["mixap"])
    with pytest.raises(UserError, match="--names: cannot be used here; got none"):
        mixing_cost.mixing(names=["none"])
