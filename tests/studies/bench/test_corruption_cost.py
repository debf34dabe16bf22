"""The loops that corruptions are measured against make the same corruptions; how fast they are, they only report."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from numpy.random import RandomState

from mixcli.corruptions import catalogue
from mixcli.corruptions.catalogue import SEVERITIES
from mixcli.corruptions.keyed import Keys
from mixcli.errors import UserError
from mixcli.studies.bench import corruption_cost, corruption_loops
from tests.corruptions import reference

SIZE = (32, 32, 3)
NAMES = corruption_cost._chosen(None)
# Least share of equal bytes with our draws: not 1 where other libraries round the last digit otherwise, and truncation
# makes a grey level of it; 0 where the bytes follow the same law alone
GATES = {"gaussian_noise": 0.998, "speckle_noise": 0.998, "gaussian_blur": 0.95, "glass_blur": 0.95, "zoom_blur": 0.94,
         "snow": 0.998, "elastic_transform": 0.96, "shot_noise": 0, "spatter": 0}  # fmt: skip


@pytest.fixture(scope="module")
def loops(tmp_path_factory):
    folder = corruption_cost._frost_files(tmp_path_factory.mktemp("frost"))
    for number in (4, 5):  # lossless, so that the crops are those of the pictures
        picture = corruption_cost.frost_pictures.drawn()[number - 1].numpy()
        corruption_cost.Image.fromarray(picture).save(folder / f"frost{number}.jpg", "PNG")
    return {**corruption_loops.LOOPS, "frost_procedural": corruption_loops.frost(folder)}


def looped(loop, name, severity, images, draws):
    parameters = catalogue.parameters(name, severity, SIZE)
    random = [{key: values[i].numpy() for key, values in draws.items()} for i in range(len(images))]
    if name == "shot_noise":
        random = [loop.draw(parameters, SIZE, RandomState(i)) for i in range(len(images))]
    return np.stack([loop.corrupt(i, parameters, r) for i, r in zip(images.numpy(), random, strict=True)])


@pytest.mark.parametrize("name", NAMES)
def test_with_our_draws_the_loop_gives_our_bytes(loops, name):
    images = torch.from_numpy(reference.scenes(12, *SIZE))
    for severity in SEVERITIES:
        draws = catalogue.draws(name, severity, SIZE, Keys(0, torch.arange(len(images))))
        ours = catalogue.corrupt(name, images, severity, draws)
        equal, worst, _ = reference.share_equal(ours, looped(loops[name], name, severity, images, draws))
        assert equal >= GATES.get(name, 1), (severity, equal)
        assert worst <= (2 if name == "glass_blur" else 1) or GATES.get(name) == 0, (severity, worst)


@pytest.mark.parametrize("name", [name for name in NAMES if catalogue.draws(name, 3, SIZE, Keys(0, torch.arange(1)))])
def test_with_its_own_draws_the_loop_follows_our_law(loops, name):
    """The distance to the clean images, the shift of their mean, and how alike neighbours of the residual are."""
    severity = 5 if name == "glass_blur" else 3
    images = torch.from_numpy(corruption_cost.smooth(200))
    rng, parameters = RandomState(0), catalogue.parameters(name, severity, SIZE)
    theirs = torch.from_numpy(np.stack([loops[name](image, parameters, rng) for image in images.numpy()]))
    ours = catalogue.corrupt(name, images, severity, catalogue.draws(name, severity, SIZE, Keys(0, torch.arange(200))))
    found = [reference.distances(one, images).numpy() for one in (ours, theirs)]
    assert found[0].mean() == pytest.approx(found[1].mean(), rel=0.05 if name == "frost_procedural" else 0.03)
    assert found[0].std() == pytest.approx(found[1].std(), rel=0.25)
    shifts = [(one.double() - images.double()).mean((1, 2, 3)) for one in (ours, theirs)]
    error = (shifts[0].var() / 200 + shifts[1].var() / 200).sqrt()
    assert abs(shifts[0].mean() - shifts[1].mean()) < 4 * error + 0.02


def test_every_corruption_is_measured_and_the_result_is_plain_enough_for_json(tmp_path):
    found = json.loads(json.dumps(corruption_cost.corruptions(data_dir=str(tmp_path), images=6, rounds=2, turn=1e-4)))
    assert [row["corruption"] for row in found["rows"]] == [*NAMES, "all", "all but glass, zoom, frost"]
    assert len(found["cells"]) == 95 and all(4 <= cell["loop_images"] <= 6 for cell in found["cells"])
    assert all(row["us"] > 0 and row["loop_us"] > 0 for row in found["rows"])
    assert "random smooth pictures" in found["unit"]
    *rows, everything, rest = found["rows"]
    assert everything["us"] == pytest.approx(sum(row["us"] for row in rows))
    assert rest["us"] == pytest.approx(sum(r["us"] for r in rows if r["corruption"] not in corruption_cost.DEAREST))
    assert everything["times"] == pytest.approx(everything["loop_us"] / everything["us"])


def test_two_loops_go_through_files_and_the_ratio_without_stands_beside_theirs(tmp_path):
    found = corruption_cost.corruptions(["motion_blur", "snow", "fog"], str(tmp_path), images=4, rounds=2, turn=1e-4)
    motion, snow, fog, everything, _ = found["rows"]
    assert fog["times_direct"] is None and fog["direct_us"] == fog["loop_us"]
    for row in (motion, snow, everything):
        assert row["times_direct"] == pytest.approx(row["direct_us"] / row["us"]) and row["times_direct"] < row["times"]
    assert "the loop of motion_blur and snow hands each image over as a PNG in memory" in found["unit"]
    assert "PNG" not in corruption_cost.corruptions(["fog"], str(tmp_path), images=2, rounds=1, turn=1e-4)["unit"]


@pytest.mark.parametrize("name", sorted(corruption_loops.WITHOUT_FILES))
def test_files_in_between_change_no_byte(name):
    for image in reference.scenes(4, *SIZE):
        parameters = catalogue.parameters(name, 5, SIZE)
        one, other = (loops[name](image, parameters, RandomState(0))
                      for loops in (corruption_loops.LOOPS, corruption_loops.WITHOUT_FILES))  # fmt: skip
        assert np.array_equal(one, other)


def test_some_corruptions_alone_are_measured_and_an_unknown_one_is_refused(tmp_path):
    found = corruption_cost.corruptions(["fog", "frost"], str(tmp_path), images=4, rounds=1, turn=1e-4)
    assert [row["corruption"] for row in found["rows"][:2]] == ["frost_procedural", "fog"]
    with pytest.raises(UserError, match="unknown corruption; got fogg. Did you mean fog"):
        corruption_cost.corruptions(["fogg"])
