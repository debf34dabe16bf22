from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from mixcli.cli import main
from mixcli.corruptions.generated import Generated
from mixcli.data import sources
from mixcli.recipe import Train, complete
from mixcli.report import plots
from mixcli.settings import METHODS, CutMix, MiAMix, Mixing, MixUp, ResizeMix
from mixcli.studies import contact_sheet

HALVES = """import torch
from mixcli.mix import Mix
from mixcli.settings import Mixing

class Halves(Mixing):
    pass

def draw(settings, context, random):
    batch = context.size[0]
    source = torch.stack([torch.arange(batch), torch.arange(batch).flip(0)])
    return Mix(source, keep=torch.full((batch, 1, 1, 1), 0.5))
"""
MIXINGS = [name for name, cls in METHODS.items() if issubclass(cls, Mixing)]


def settings(mixing: Mixing, **changes) -> Train:
    train = Train(method=mixing, **changes)
    return complete(train, sources.look(train))


@pytest.mark.parametrize("name", MIXINGS)
def test_every_mixing_has_a_sheet(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["show", name, "--images", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert len(result["ratio"]) == 3
    with Image.open(tmp_path / result["file"]) as figure:
        assert min(figure.size) > 200 and len(figure.convert("L").getcolors()) > 20


def test_a_sheet_shows_the_mask_that_made_its_images():
    made = contact_sheet.sheet(settings(CutMix(per="sample")), 16)
    itself = made.own.expand_as(made.mixed) == 1
    assert torch.equal(made.mixed[itself], made.originals[itself])
    assert torch.allclose(made.ratio, made.own.mean((1, 2, 3)))


def test_a_sheet_of_many_points_shows_every_partner(tmp_path):
    made = contact_sheet.sheet(settings(MixUp(per="sample", points=4)), 16)
    low, high = (bound(torch.cat([made.originals[None], made.partners]), dim=0) for bound in (torch.amin, torch.amax))
    assert len(made.partners) == 3 and (made.mixed >= low).all() and (made.mixed <= high).all()
    heights = {}
    for points in (2, 4):
        plots.contact_sheet(contact_sheet.sheet(settings(MixUp(per="sample", points=points)), 4), tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as figure:
            heights[points] = figure.height
    assert heights[4] > heights[2] + 200  # two rows more


def test_a_mixing_of_one_s_own_without_per_has_a_sheet(tmp_path, monkeypatch, capsys):
    (tmp_path / "halves.py").write_text(HALVES)
    monkeypatch.chdir(tmp_path)
    assert main(["show", "halves.py:Halves", "--images", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["ratio"] == [0.5, 0.5]


def test_an_image_that_is_its_own_partner_is_untouched():
    found = contact_sheet.statistics(settings(MixUp(per="sample")), 40)
    assert abs(found["untouched"] - 1 / 128) < 0.004  # one of a permutation on average
    assert contact_sheet.statistics(settings(ResizeMix(per="sample")), 5)["untouched"] == 0  # shrunk into itself
    assert contact_sheet.statistics(settings(MiAMix(p_self=1, methods=("mixup",))), 5)["untouched"] == 0  # another view


def test_statistics_are_those_of_the_law():
    found = contact_sheet.statistics(settings(MixUp(per="sample", probability=0.75)))
    assert (
        abs(found["untouched"] - (0.25 + 0.75 / 128)) < 0.015
        and abs(found["same_class"] - (0.25 + 0.75 * 0.107)) < 0.02
    )
    assert abs(found["realised"]["mean"] - (0.25 + 0.75 * 0.5)) < 0.02
    assert contact_sheet.statistics(settings(MixUp(per="batch")), 5)["mask_diversity"] == 0


def test_statistics_of_layers_and_of_images_mixed_with_themselves():
    found = contact_sheet.statistics(settings(MiAMix(layers=4, p_self=0.5, probability=0.9)), 40)
    assert set(found["layers"]) == {"1", "2", "3", "4"} and sum(found["layers"].values()) == pytest.approx(1)
    assert all(abs(share - 0.25) < 0.03 for share in found["layers"].values())
    assert abs(found["same_class"] - (0.1 + 0.9 * (0.5 + 0.5 * 0.107))) < 0.03


def test_the_partner_of_a_self_mixed_image_is_its_second_view():
    made = contact_sheet.sheet(settings(MiAMix(p_self=1)), 16)
    (partners,) = made.partners
    moved = partners != made.originals  # padded and shifted by up to one pixel
    assert moved.flatten(1).any(1).float().mean() > 0.6
    bounded = (partners.flatten(1).sum(1) <= made.originals.flatten(1).sum(1) + 1e-4).all()
    assert bounded and torch.equal(made.mixed[made.own.expand_as(made.mixed) == 1],
                                   made.originals[made.own.expand_as(made.mixed) == 1])  # fmt: skip


@pytest.mark.parametrize(
    ("words", "subject"),
    [
        ([], "show"),
        (["manifold"], "show"),
        (["fmixx"], "--method"),
        (["fmix", "--images", "0"], "--images"),
        (["none"], "show"),
        (["fmix", "--images", "65"], "--images"),
        (["fmix", "--images", ""], "--images"),
        (["fmix", "--stats", "--out", "x.png"], "--out"),
        (["fmix", "--stats", "--images", "8"], "--images"),
        (["fmix", "--out", "x.bmpx"], "--out"),
        (["fmix", "--out", "no/where.png"], "--out"),
        (["smoothmix", "--alpha", "1"], "--alpha"),
    ],
)
def test_bad_input_is_one_line_and_draws_nothing(words, subject, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["show", *words]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and f"error: {subject}: " in err and not list(tmp_path.iterdir())


def test_a_sheet_of_corruptions_holds_what_the_benchmark_gives_that_image():
    train = Train.model_validate({"dataset": "digits"})
    test = sources.load(train).test
    sheet = contact_sheet.corruptions(train, 7, seed=3)
    assert len(sheet.images) == 13 and (sheet.clean == test.images[7]).all()
    whole = Generated(torch.from_numpy(test.images[:20]), torch.arange(20), seed=3)
    for name in ("gaussian_noise", "fog", "jpeg_compression"):
        for severity in (1, 5):
            assert (sheet.images[name][severity - 1] == whole.cell(name, severity)[7].numpy()).all()


def test_a_sheet_of_corruptions_is_drawn_and_a_row_that_is_not_there_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["show", "corruptions", "--image", "3"]) == 0
    assert (tmp_path / "show-corruptions.png").read_bytes().startswith(b"\x89PNG")
    assert main(["show", "corruptions", "--image", "360"]) == 2
    assert "--image: no such test image; got 360, expected 0 … 359" in capsys.readouterr().err
    assert main(["show", "corruptions", "--out", "sheet.gif"]) == 2
