"""false_positives.py: how often a test calls two equal methods different, counted on simulated corruption benchmarks.

A benchmark of a run is 15 accuracies: the method's, a shift that all corruptions of one run share (training runs differ
by SD 0.4 points), and noise of each corruption: the run's own, which seeds average out, or one of the two methods'
difference, the same in every run. Two methods that are equal in expectation are compared: over the 15 corruptions, as
some papers do, by a paired t or Wilcoxon test; and over runs, by Welch's t test on one mean per run. The first takes
corruptions for replicates: the shared shift, which says nothing about the method, looks like an effect. Standard
deviations are assumed values, in points; the range of the noise is what makes the range of the rates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from mixcli.sampling import Random
from mixcli.studies.bench.benchmark import environment

CORRUPTIONS = 15
SHIFT = 0.4  # SD over runs of what a run's corruptions share
NOISE = ((0.6, "per run"), (1.0, "per run"), (0.6, "per difference"), (1.0, "per difference"))
SEEDS = (1, 5, 10)


def false_positives(studies: int = 2000) -> dict[str, Any]:
    """Percent of `studies` pairs of equal methods that each test calls different at 5 %.

    A row of `rows` is one number of seeds per method and one noise: `paired_t` and `wilcoxon` over 15 corruptions, the
    seeds averaged first; `welch` over the seeds, None for one seed, where no test is possible, and for noise of the
    difference, which makes the methods differ on this panel of corruptions, the only one that runs can speak about.
    """
    rows = [_row(seeds, noise, kind, studies) for seeds in SEEDS for noise, kind in NOISE]
    return {
        "unit": f"percent of {studies:,} pairs of equal methods called different at 5 %; {CORRUPTIONS} corruptions, "
                f"shift of a run SD {SHIFT} points",
        "rows": rows, "environment": {**environment(), "device": "simulated"},
    }  # fmt: skip


def _row(seeds: int, noise: float, kind: str, studies: int) -> dict[str, Any]:
    host = Random(0, f"false-positives/{seeds}/{noise}/{kind}").host
    own, lasting = (noise, 0.0) if kind == "per run" else (0.0, noise)
    shape = (2, studies, seeds, CORRUPTIONS)
    accuracies = host.normal(0, SHIFT, (*shape[:3], 1)) + own * host.standard_normal(shape)
    over, runs = accuracies.mean(2), accuracies.mean(3)  # (2, studies, corruptions), (2, studies, seeds)
    over[0] += lasting * host.standard_normal(over[0].shape)
    p: dict[str, Any] = {
        "paired_t": stats.ttest_rel(over[0], over[1], axis=1),
        "wilcoxon": stats.wilcoxon(over[0], over[1], axis=1),
        "welch": stats.ttest_ind(*runs, axis=1, equal_var=False) if seeds > 1 and not lasting else None,
    }
    rates = {name: None if found is None else 100 * float(np.mean(found.pvalue < 0.05)) for name, found in p.items()}
    return {"seeds": seeds, "noise": f"SD {noise} {kind}", **rates}
