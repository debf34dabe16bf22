"""check: every law catches the mistake it is for, built-in methods and one's own get a card, exit codes are told."""

from __future__ import annotations

import dataclasses
import json
import random as python_random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mixcli import own_code
from mixcli.cli import main
from mixcli.methods import supervised
from mixcli.mix import Context, Losses, Mix, Needs
from mixcli.mixing import blend, cutmix
from mixcli.mixing.resizemix import Shrunk
from mixcli.report import plots
from mixcli.sampling import Random
from mixcli.settings import METHODS, Alpha, CutMix, FMix, Method, Mixing, MixUp, Pairs
from mixcli.studies import laws

LAWS = {law.name: law for law in [*laws.MIXING_LAWS, *laws.METHOD_LAWS]}


class Mistaken(Pairs, Mixing):
    """CutMix, drawn aright and then spoilt by the mistake of this name."""

    name = "mistaken"
    summary = "CutMix with a mistake"
    drawing = __name__

    alpha: Alpha = 1.0
    idle: float = 1.0
    mistake: str = "none"


def draw(settings: Mistaken, context: Context, random: Random) -> Mix:
    own = {key: getattr(settings, key) for key in ("alpha", *Pairs.model_fields)}
    mix = cutmix.draw(CutMix(**own), context, random)
    return MISTAKES[settings.mistake](mix, context, random, settings)


@dataclasses.dataclass(frozen=True)
class LabelOfTheDrawn(Mix):
    """Its labels weigh by the number drawn, not by the box as it was clipped."""

    @property
    def ratio(self):
        return torch.stack([self.drawn, 1 - self.drawn]).float()


@dataclasses.dataclass(frozen=True)
class InPlace(Mix):
    def images(self, rows):
        return rows.mul_(0.5).add_(super().images(rows) * 0.5)


@dataclasses.dataclass(frozen=True)
class Products(Mix):
    """Two products in place of one interpolation."""

    def images(self, rows):
        keep = (self.keep * 0.9).to(rows.dtype)
        return keep * rows[: len(keep)] + (1 - keep) * rows[self.source[1]]


@dataclasses.dataclass(frozen=True)
class Reads(Mix):
    """Looks at a mask to save work."""

    def images(self, rows):
        return rows.clone() if bool((self.keep == 1).all()) else super().images(rows)


@dataclasses.dataclass(frozen=True)
class Smoothed(Mix):
    def targets(self, labels, classes):
        return super().targets(labels, classes) * 0.9 + 0.1 / classes


@dataclasses.dataclass(frozen=True)
class OtherLabels(Mix):
    """Shuffles the labels by themselves."""

    def targets(self, labels, classes):
        return super().targets(labels.roll(1), classes)


@dataclasses.dataclass(frozen=True)
class HalfLabels(Mix):
    def targets(self, labels, classes):
        return super().targets(labels, classes).bfloat16().float() * 0.99


@dataclasses.dataclass(frozen=True)
class OtherMask(Mix):
    """Pastes the box on the other side."""

    def images(self, rows):
        return Mix(self.source, keep=self.keep.flip(3), form=self.form).images(rows)


@dataclasses.dataclass(frozen=True)
class Detached(Mix):
    def images(self, rows):
        return super().images(rows.detach() + 0 * rows)


def into(cls):
    """The Mix as one of `cls`."""
    return lambda mix, *_: cls(**{f.name: getattr(mix, f.name) for f in dataclasses.fields(mix)})


def of_global(mix, context, random, settings):
    python_random.random()
    return dataclasses.replace(mix, source=torch.stack([mix.source[0], torch.randperm(context.size[0])]))


def even_only(mix, context, random, settings):
    assert context.size[0] % 2 == 0, "Batch size should be even"
    return mix


def fixed(mix, context, random, settings):
    return dataclasses.replace(mix, source=torch.stack([mix.source[0], mix.source[0].flip(0)]))


def never_last(mix, context, random, settings):
    keep = mix.keep.clone()
    keep[:, :, -1] = 1
    return dataclasses.replace(mix, keep=keep)


def one_place(mix, context, random, settings):
    """Boxes of one place, though each has a size of its own."""
    height, width = context.size[1:]
    sides = (random.host.uniform(0.1, 0.5, context.size[0]) * height).astype(int) + 1
    top = int(random.host.random() * height / 2)
    boxes = np.stack([np.full_like(sides, top), 0 * sides, top + sides, sides])
    return dataclasses.replace(mix, keep=cutmix.boxed(boxes, sides, height, width, random).keep, form="binary")


def half_probability(mix, context, random, settings):
    own = MixUp(alpha=settings.alpha, per=settings.per)
    return blend.draw(own, context, random)


def read_back(mix, context, random, settings):
    return mix if mix.keep.sum().item() >= 0 else None


def elsewhere(mix, context, random, settings):
    return dataclasses.replace(mix, keep=torch.ones(mix.keep.shape))


def one_ratio(mix, context, random, settings):
    return dataclasses.replace(mix, keep=mix.keep[:1].expand_as(mix.keep))


MISTAKES = {
    "one place": one_place,
    "none": lambda mix, *_: mix,
    "label of the drawn": into(LabelOfTheDrawn),
    "in place": into(InPlace),
    "products": into(Products),
    "reads": into(Reads),
    "smoothed": into(Smoothed),
    "other labels": into(OtherLabels),
    "half labels": into(HalfLabels),
    "other mask": into(OtherMask),
    "detached": into(Detached),
    "of global": of_global,
    "even only": even_only,
    "fixed": fixed,
    "never last": never_last,
    "half probability": half_probability,
    "read back": read_back,
    "elsewhere": elsewhere,
    "one ratio": one_ratio,
    "says binary": lambda mix, *_: dataclasses.replace(mix, keep=mix.keep * 0.5, form="binary", box=None),
    "another box": lambda mix, *_: dataclasses.replace(mix, keep=1 - mix.keep),
    "moves": lambda mix, *_: dataclasses.replace(mix, place=Shrunk(torch.tensor([[0, 2, 0, 2]]))),
    "rows only": lambda mix, *_: dataclasses.replace(mix, keep=mix.keep[..., :1].expand_as(mix.keep)),
    "above one": lambda mix, *_: dataclasses.replace(mix, keep=mix.keep * 1.1, form="any"),
    "drawn in half": lambda mix, *_: dataclasses.replace(mix, drawn=mix.drawn.float()),
    "constant": lambda mix, context, random, _: cutmix.draw(CutMix(), context, Random(0, "always")),
}

KNOWN = "what_is_known_of_a_mask_is_true_and_neither_it_nor_the_way_to_mix_changes_a_bit"
CAUGHT = {  # the law, the mistake, and what its evidence says
    ("ledger_1_the_label_weight_is_the_mean_of_the_final_mask", "label of the drawn"): "away from it",
    ("ledger_26_no_global_generator_is_read_or_moved", "of global"): "torch's and Python's: read, moved by a draw",
    ("equal_keys_draw_equal_plans_and_other_steps_draw_others", "of global"): "two draws under one key differ",
    ("equal_keys_draw_equal_plans_and_other_steps_draw_others", "constant"): "the draws of two steps are equal",
    ("the_sources_are_not_changed_and_layouts_agree", "in place"): "changed in place",
    ("ledger_17_weights_of_any_size_sum_to_one", "even only"): "AssertionError: Batch size should be even",
    ("ledger_17_weights_of_any_size_sum_to_one", "above one"): "to 1.1",
    ("ledger_15_and_16_partners_vary_in_batches_of_any_size", "even only"): "AssertionError: Batch size should be even",
    ("ledger_15_and_16_partners_vary_in_batches_of_any_size", "fixed"): "meets 1 others in 60 steps",
    ("drawing_reads_nothing_back_from_the_device", "read back"): "cannot be called on meta tensors",
    ("drawing_reads_nothing_back_from_the_device", "elsewhere"): "it draws on cpu and meta",
    ("sync_law_forward_with_fake_cuda_tensors", "reads"): "DataDependent",
    ("sync_law_forward_and_backward_on_meta", "reads"): "meta tensors",
    ("the_step_is_captured_whole", "reads"): "data-dependent",
    ("ledger_10_mixing_an_image_with_itself_returns_its_bits", "products"): "of the values change",
    ("the_sources_bound_the_result_and_constants_stay", "products"): "a pixel leaves its sources' range",
    ("where_keep_is_one_a_nan_in_the_partner_stays_out", "products"): "the NaN comes through",
    ("ledger_14_probability_zero_returns_the_batch_bit_for_bit", "half probability"): "images change",
    ("ledger_12_and_13_labels_stay_exact_and_unsmoothed", "smoothed"): "smoothed?",
    ("ledger_1_the_label_weight_is_the_mean_of_the_final_mask", "half labels"): "a row sums to 0.99",
    ("ledger_20_images_and_targets_use_one_partner_index", "other labels"): "of a class",
    ("ledger_7_the_mask_of_the_mix_is_what_is_applied", "other mask"): "away from its mask",
    ("ledger_19_every_pixel_can_come_from_the_partner", "never last"): "8 of 64 pixels never do",
    ("ledger_6_every_option_changes_the_draws", "none"): "idle: never changes a draw",
    ("ledger_18_masks_of_different_images_lie_apart", "one place"): "masks correlate by",
    ("per_batch_draws_one_ratio_and_per_sample_one_each", "one ratio"): "per sample, 8 images have 1 different ratios",
    ("the_law_of_the_mask_is_transposed_with_the_image", "rows only"): "differ by",
    (KNOWN, "says binary"): "form is binary",
    (KNOWN, "another box"): "a box is named",
    (KNOWN, "moves"): "does not say `moves`",
    ("ledger_8_and_11_drawn_in_float64_and_under_autocast", "drawn in half"): "rounded before they are told",
    ("it_mixes_hidden_features", "detached"): "a gradient is",
}  # fmt: skip


def found(law: str, settings: Method) -> str:
    """What a law finds broken, a crash included."""
    try:
        LAWS[law].holds(settings)
    except laws.Excused as why:
        pytest.fail(f"excused: {why}")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "holds"


@pytest.mark.parametrize(("law", "mistake"), CAUGHT, ids=lambda name: name.replace(" ", "_"))
def test_a_law_catches_its_mistake(law, mistake):
    settings = Mistaken(mistake=mistake, per="sample" if mistake == "one ratio" else "batch")
    assert CAUGHT[law, mistake] in found(law, settings)
    if mistake != "none":
        assert found(law, Mistaken()) == "holds"


def test_every_law_of_mixings_has_a_mistake_that_it_catches():
    shown_elsewhere = {"ledger_14_alpha_below_a_hundredth_is_refused"}
    assert {law.name for law in laws.MIXING_LAWS} == {law for law, _ in CAUGHT if LAWS[law] in laws.MIXING_LAWS} | (
        shown_elsewhere
    )


def test_a_law_catches_an_alpha_that_may_be_anything():
    class Loose(Mistaken):
        alpha: float = 1.0

    assert "alpha = 0.009 is accepted" in found("ledger_14_alpha_below_a_hundredth_is_refused", Loose())


class MistakenLoss(Method):
    """Cross-entropy with the mistake of this name."""

    name = "mistaken-loss"
    summary = "cross-entropy with a mistake"
    implementation = __name__

    mistake: str = "none"


def needs(settings):
    return Needs()


def plan(settings, context, random):
    if settings.mistake == "even only" and context.size[0] % 2:
        raise ValueError("an odd batch")
    return supervised.Plan()


def loss(settings, net, batch, plan):
    made = supervised.score(net(batch.images), batch, plan)
    total, parts = made.total, made.parts
    if settings.mistake == "draws":
        total = total * torch.rand(())
    if settings.mistake == "attached":
        parts = {**parts, "loss": total}
    if settings.mistake == "detached":
        total = total.detach().requires_grad_()
    if settings.mistake == "reads" and total.item() > 100:
        total = total * 2
    return Losses(total, parts)


@pytest.mark.parametrize(
    ("law", "mistake"),
    [
        ("the_loss_of_one_plan_has_the_same_bits_twice_and_draws_nothing", "draws"),
        ("parts_are_detached_scalars_and_loss_is_the_total", "attached"),
        ("the_gradient_reaches_the_stem", "detached"),
        ("a_batch_of_one_and_of_one_class_are_finite", "even only"),
        ("the_step_is_captured_whole", "reads"),
        ("sync_law_forward_with_fake_cuda_tensors", "reads"),
        ("sync_law_forward_and_backward_on_meta", "reads"),
    ],
)
def test_a_law_of_methods_catches_its_mistake(law, mistake):
    assert found(law, MistakenLoss(mistake=mistake)) != "holds"
    assert found(law, MistakenLoss()) == "holds"


# ----------------------------------------------------------------------------------------------------------- the card


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    own_code.loaded.clear()


def checked(capsys, *argv: str) -> tuple[int, dict]:
    code = main(["check", *argv, "--json"])
    return code, json.loads(capsys.readouterr().out)


def verdicts(document: dict) -> dict[str, str]:
    return {law["law"]: law["verdict"] for law in document["result"]["laws"]}


@pytest.mark.parametrize("name", ["cutmix", "none"])
def test_a_built_in_gets_a_card_on_which_nothing_is_broken(here, capsys, name):
    code, document = checked(capsys, name)
    result = document["result"]
    assert code == 0 and result["broken"] == 0 and document["error"] is None
    card = Path(f"check-{name}.md").read_text()
    assert card.startswith(f"# {name}: {result['holds']} laws hold, none broken")
    assert all(f"| pass | {law['claim']} |" in card for law in result["laws"] if law["verdict"] == "holds")
    assert (f"](check-{name}.png)" in card) == Path(f"check-{name}.png").is_file() == (name == "cutmix")
    assert (result["cost"] is None) == (name == "none")


def test_the_sheet_of_a_card_draws_a_mask_for_each_image_where_the_method_can(here, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "contact_sheet", lambda sheet, path: seen.append(sheet))
    checked(capsys, "cutmix")
    assert seen[0].title == "cutmix(per=sample)" and len(set(seen[0].ratio.tolist())) > 2


def test_its_options_are_those_of_the_method(here, capsys):
    code, document = checked(capsys, "cutmix", "--box", "inside", "--out", str(here), "--images", "3")
    assert code == 0 and document["result"]["method"] == "cutmix(box=inside)"


def test_what_tells_rows_from_columns_and_says_so_is_excused():
    with pytest.raises(laws.Excused, match="symmetric = False"):
        LAWS["the_law_of_the_mask_is_transposed_with_the_image"].holds(FMix(variant="reference"))


WRONG = '''
import numpy as np
import torch
from mixcli.mix import Mix
from mixcli.settings import Mixing

class Wrong(Mixing):
    """Pixels of a random half"""

def draw(settings, context, random):
    batch, height, width = context.size
    if batch % 2:
        raise ValueError("an odd batch")
    keep = torch.rand(batch, 1, height, width).round()
    return Mix(torch.stack([torch.arange(batch), torch.arange(batch).flip(0)]), keep=keep)
'''


def test_a_wrong_mixing_ends_in_exit_code_5_and_one_line_that_names_the_laws(here, capsys):
    (here / "wrong.py").write_text(WRONG)
    assert main(["check", "wrong.py:Wrong"]) == 5
    out, err = capsys.readouterr()
    assert "FAIL" in out and "torch's: read, moved by a draw" in out.replace("\n      ", " ")
    assert err.splitlines()[-1].startswith("mixcli check: error: Wrong: ") and "laws are broken. " in err
    code, document = checked(capsys, "wrong.py:Wrong")
    assert code == 5 and document["error"]["kind"] == "broken_laws" and not document["ok"]
    broken = {law["law"]: law["evidence"] for law in document["result"]["laws"] if law["verdict"] == "broken"}
    assert broken["ledger_17_weights_of_any_size_sum_to_one"] == "line 13: ValueError: an odd batch"
    assert "its place decides" not in broken["ledger_15_and_16_partners_vary_in_batches_of_any_size"]
    assert "asked for one device, it draws on cpu" in broken["drawing_reads_nothing_back_from_the_device"]


def test_without_a_method_and_with_a_folder_that_is_not_there_nothing_is_checked(here, capsys):
    assert main(["check"]) == 2
    assert "check: needs the name of a method" in capsys.readouterr().err
    Path("card.md").write_text("kept")
    for out, told in (
        ("nowhere", "--out: no such folder; got nowhere, expected a folder, for check-NAME.md and .png. Make it"),
        ("nowhere/card.md", "--out: no such folder; got nowhere/card.md, expected a folder"),
        ("card.md", "--out: is a file; got card.md, expected a folder, for check-NAME.md and .png"),
        ("card.md/in", "--out: no such folder; got card.md/in, expected a folder"),
    ):
        assert main(["check", "cutmix", "--out", out]) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith(f"mixcli check: error: {told}")
    assert Path("card.md").read_text() == "kept" and not Path("nowhere").exists()


def test_every_built_in_can_be_named(here):
    """The laws themselves run over every built-in in tests/laws."""
    from mixcli import options

    assert all(options.method(name, "check") is cls for name, cls in METHODS.items())


# ------------------------------------------------------------------------------------------- other libraries' mixings

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
FOREIGN = {"timm_mixup.py:TimmMixup": "timm", "torchvision_mixup.py:TorchvisionMixUp": "torchvision",
           "torchvision_cutmix.py:TorchvisionCutMix": "torchvision"}  # fmt: skip


def foreign(name: str, **options):
    pytest.importorskip(FOREIGN[name])
    cls = own_code.method(str(ADAPTERS / name), "")
    assert cls is not None
    return cls(**options)


@pytest.mark.parametrize("name", FOREIGN)
def test_an_adapter_shows_the_bits_of_its_library(name):
    settings, context = foreign(name), Context((8, 6, 10), np.arange(8) % 5, 5)
    state = torch.get_rng_state(), np.random.get_state()
    mix = supervised.draw(settings, context, Random(0, "mix"))
    x, y = torch.rand(8, 3, 6, 10, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 5
    shown, rows = mix.images(x.clone()), mix.targets(y, 5)
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    if "timm" in name:
        from timm.data.mixup import Mixup

        wanted = Mixup(num_classes=5)(x.clone(), y)
    else:
        from torchvision.transforms import v2

        wanted = getattr(v2, settings.name.removeprefix("Torchvision"))(num_classes=5)(x.clone(), y)
    assert torch.equal(shown, wanted[0]) and torch.equal(rows, wanted[1])
    by_mask = torch.lerp(x[mix.source[1]], x, mix.keep)
    assert torch.allclose(by_mask, shown, atol=1e-6)


def test_the_laws_tell_what_is_known_of_timms_mixup():
    name = "timm_mixup.py:TimmMixup"
    assert "numpy's: read, moved" in found("ledger_26_no_global_generator_is_read_or_moved", foreign(name))
    assert "Batch size should be even" in found("ledger_17_weights_of_any_size_sum_to_one", foreign(name))
    assert "changed in place" in found("the_sources_are_not_changed_and_layouts_agree", foreign(name))
    smoothing = "ledger_12_and_13_labels_stay_exact_and_unsmoothed"
    assert "smoothed?" in found(smoothing, foreign(name)) and found(smoothing, foreign(name, smoothing=0)) == "holds"


def test_the_laws_tell_what_is_known_of_torchvisions():
    for name in list(FOREIGN)[1:]:
        settings = foreign(name)
        assert "torch's: read, moved" in found("ledger_26_no_global_generator_is_read_or_moved", settings)
        assert "its place decides" in found("ledger_15_and_16_partners_vary_in_batches_of_any_size", settings)
        with pytest.raises(laws.Excused, match="8 images share one ratio"):
            LAWS["per_batch_draws_one_ratio_and_per_sample_one_each"].holds(settings)
        assert found("ledger_1_the_label_weight_is_the_mean_of_the_final_mask", settings) == "holds"


def test_a_foreign_draw_leaves_later_draws_of_the_library_where_they_would_be():
    settings, context = foreign("torchvision_mixup.py:TorchvisionMixUp"), Context((4, 2, 2), np.arange(4), 4)
    mix = supervised.draw(settings, context, Random(0, "mix"))
    before = torch.get_rng_state()
    mix.images(torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


assert __name__ in sys.modules  # where `drawing` and `implementation` above look for `draw` and `loss`
