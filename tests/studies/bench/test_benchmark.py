"""What the benchmarks compare is comparable; how fast it is, they only report."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mixcli.studies.bench import benchmark


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the usual pipeline forks its workers
def test_data_measures_both_pipelines_and_is_plain_enough_for_json():
    found = json.loads(json.dumps(benchmark.data(images=256, batch=64, rounds=1)))
    assert found["images"] == 256 and set(found["cpu_us_per_image"]) == {"batched", "dataloader"}
    cost = found["cpu_us_per_image"]
    assert found["ratio"]["median"] == pytest.approx(cost["dataloader"] / cost["batched"])


def test_synermix_measures_two_ways_of_the_same_blend():
    labels = np.array([3, 1, 3, 3, 0])
    x = torch.arange(5.0)[:, None].expand(5, 2).contiguous()
    ours, loop = benchmark._blended(labels, 4)(x, 0), benchmark._looped(torch.from_numpy(labels))(x, 0)
    assert torch.equal(ours[[0, 1]], x[[4, 1]]) and torch.allclose(loop[:2], x[[4, 1]])  # classes of one image
    assert 0 < ours[3, 0] < 3 and 0 < loop[2, 0] < 3 and (ours[2] == 0).all()
    found = benchmark.synermix(batch=16, classes=4, features=8, calls=2, rounds=3)
    assert set(found["ratio"]) == {"forward", "with backward"}
    assert all(r["lowest"] <= r["median"] <= r["highest"] for r in found["ratio"].values())
