"""What saved cells allow to be said of two checkpoints and of two methods, and what is refused."""

from __future__ import annotations

import base64
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from mixcli.corruptions.catalogue import SEVERITIES
from mixcli.corruptions.parameters import FAMILIES, NAMES, STANDARD
from mixcli.errors import UserError
from mixcli.files import as_json
from mixcli.report import robustness
from mixcli.studies import significance
from mixcli.studies.corruptions import comparison as corruption_comparison
from mixcli.studies.corruptions import means as corruption_means
from mixcli.studies.corruptions import results as corruption_results
from mixcli.studies.corruptions.comparison import SCOPE, of_saved
from mixcli.studies.corruptions.means import CALIBRATION, Panel
from mixcli.studies.corruptions.results import CLEAN

IMAGES = 200
SOURCE = "generated (not the official files), generator v1, seed 0"


def cells(rng, accuracy, images=IMAGES):
    """Bits of the clean cell and all 95, an image as hard as it is in all of them."""
    hard = rng.random(images) - 0.5
    return {cell: rng.random(images) < accuracy - 0.6 * hard
            for cell in (CLEAN, *((name, s) for name in NAMES for s in SEVERITIES))}  # fmt: skip


def save(folder, correct, method="none", seed=0, source=SOURCE, index=None, partial=False):
    """A folder as eval-corruptions leaves it."""
    index = np.arange(IMAGES) if index is None else index
    names = NAMES[:3] if partial else NAMES
    rows = {
        cell: {"n": len(bits), "top1": float(bits.mean()), **dict.fromkeys(CALIBRATION, 0.0),
               "bits": base64.b64encode(np.packbits(bits).tobytes()).decode()}
        for cell, bits in correct.items() if cell == CLEAN or cell[0] in names
    }  # fmt: skip
    panel = Panel(names, SEVERITIES, NAMES, "32", 3)
    summary = {
        "schema": 1, "dataset": "cifar100-c", "source": source, "checkpoint": folder.name, "method": method,
        "seed": seed, "images": len(index), "clean": {"top1": rows[CLEAN]["top1"]},
        **corruption_means.means(panel, rows),
        "provenance": {"checkpoint_digest": f"{folder.name}-{method}-{seed}"},
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / corruption_results.SUMMARY).write_bytes(as_json(summary))
    bits = corruption_results.packed(rows, index, np.arange(len(index)), source)
    (folder / corruption_results.BITS).write_bytes(bits)
    return str(folder)


def two(tmp_path, gap=0.1, **of_second):
    rng = np.random.default_rng(0)
    found = [cells(rng, 0.5 + gap), cells(rng, 0.5)]
    names = [save(tmp_path / "a", found[0], "mixup"), save(tmp_path / "b", found[1], "none", **of_second)]
    return found, names


def compared(names, **options):
    return of_saved(names, Path("runs"), "cifar100-c", **options)


# ------------------------------------------------------------------------------------------------------ two checkpoints


def test_two_checkpoints_are_compared_image_by_image_over_75_cells(tmp_path):
    found, names = two(tmp_path)
    report = compared(names)
    a, b = (np.stack([one[name, s] for name in STANDARD for s in SEVERITIES]).mean(0) for one in found)
    expected = significance.image_bootstrap(a, b, corruption_comparison._random("image").host)
    said = (f"mixup (seed 0) against none (seed 0): {100 * (a - b).mean():+.2f} points [{expected.low:.2f}, "
            f"{expected.high:.2f}], mean of 75 cells, 95 % by bootstrap over 200 images; {SCOPE}")  # fmt: skip
    assert report.notes[0] == said
    assert SCOPE == "these two files, these images; says nothing about the methods"
    assert report.comparisons[0]["sentence"] == "one run per method: no statement about the methods"


def test_each_cell_has_mcnemars_exact_p_and_holm_goes_over_all_95(tmp_path):
    found, names = two(tmp_path)
    [detail] = compared(names).details
    assert detail.section.headings[0] == "where, not whether: points (* exact McNemar, Holm over 95)"
    ps = []
    for row in detail.rows:
        a, b = (one[row["corruption"], row["severity"]] for one in found)
        counts = int((a & ~b).sum()), int((b & ~a).sum())
        assert (row["only_a"], row["only_b"]) == counts
        ps.append(stats.binomtest(counts[0], sum(counts)).pvalue)
        assert row["p"] == pytest.approx(ps[-1]) and row["difference"] == pytest.approx(100 * (a.mean() - b.mean()))
    assert [row["p_holm"] for row in detail.rows] == pytest.approx(significance.holm(ps))
    starred = [cell.endswith("*") for row in detail.section.rows for cell in row[1:]]
    assert starred == [row["p_holm"] < 0.05 for row in detail.rows]


def test_swapping_the_checkpoints_turns_the_sign(tmp_path):
    _, names = two(tmp_path)
    one, other = (compared(given).details[0].rows for given in (names, names[::-1]))
    assert [row["difference"] for row in one] == pytest.approx([-row["difference"] for row in other])
    assert [row["p"] for row in one] == pytest.approx([row["p"] for row in other])


# ---------------------------------------------------------------------------------------------------------- two methods


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """Five runs of each of two methods; mixup is better in the noises alone."""
    root, rng = tmp_path_factory.mktemp("saved"), np.random.default_rng(1)
    names, bits = [], {}
    for method, gain in (("mixup", 0.15), ("none", 0.0)):
        for seed in range(5):
            level = 0.45 + 0.03 * rng.standard_normal()
            plain, noisy = (cells(rng, level + shift) for shift in (0.0, gain))
            found = {cell: (noisy if cell[0] in FAMILIES["noise"] else plain)[cell] for cell in plain}
            names.append(save(root / f"{method}-{seed}", found, method, seed))
            bits[method, seed] = found
    return names, bits


def test_two_methods_are_one_mean15_per_run_with_seeds_as_replicates(methods):
    names, bits = methods
    report = compared(names, baseline="none", test="paired")
    points = {
        method: [100 * np.mean([bits[method, s][n, v] for n in STANDARD for v in SEVERITIES]) for s in range(5)]
        for method in ("mixup", "none")
    }
    assert [list(row.points) for row in report.rows] == [pytest.approx(points[m]) for m in ("mixup", "none")]
    [c] = report.comparisons
    assert c["p"] == pytest.approx(stats.ttest_rel(points["mixup"], points["none"]).pvalue) and c["n"] == "5"
    assert "top-1 accuracy, mean of 15 corruptions x 5 severities" in dict(report.facts)["metric"]


def test_families_are_holm_over_4_and_corruptions_over_15_both_descriptive(methods):
    names, bits = methods
    by_family, by_corruption = compared(names).details
    for detail, parts in ((by_family, {f: [n for n in m if n in STANDARD] for f, m in FAMILIES.items()}),
                          (by_corruption, {n: [n] for n in STANDARD})):  # fmt: skip
        assert "descriptive" in detail.section.headings[0]
        assert detail.section.headings[2] == f"p, Holm over {len(parts)}"
        ps = []
        rows = {row["name"]: row for row in detail.rows}
        assert rows.keys() == parts.keys()
        for name, members in parts.items():
            x, y = ([100 * np.mean([bits[m, s][n, v] for n in members for v in SEVERITIES]) for s in range(5)]
                    for m in ("mixup", "none"))  # fmt: skip
            assert rows[name]["difference"] == pytest.approx(np.mean(x) - np.mean(y))
            ps.append(stats.ttest_ind(x, y, equal_var=False).pvalue)
        assert [rows[name]["p_holm"] for name in parts] == pytest.approx(significance.holm(ps))
    assert by_family.rows[0]["p_holm"] < 0.05 < min(row["p_holm"] for row in by_family.rows[1:])


def test_the_hierarchical_bootstrap_is_a_named_second_line_and_generated_seeds_are_told(methods):
    names, _ = methods
    first, second, third = compared(names).notes
    assert first.startswith("mixup - none, hierarchical bootstrap (runs, then images): ")
    assert first.endswith("also for new images, too narrow below 10 runs")
    assert second == "generated images, the same generator seed for all; repeat once with two further seeds (--seed)"
    assert third == (
        "mixup - none, power: where runs spread by SD 0.40 points, 5 + 5 of them see a true gain of 0.63 in 56 % of "
        "cases by Welch's test (24 % with 3, 56 % with 5, 91 % with 10 per arm)"
    )


def test_below_five_runs_no_p_is_shown(methods):
    names, _ = methods
    report = compared([*names[:3], *names[5:8]])
    assert report.comparisons[0]["sentence"].startswith("pilot (n = 3)")
    assert {row[2] for detail in report.details for row in detail.section.rows} == {"–"}


def test_clean_against_corrupted_accuracy_is_drawn_alike_each_time_and_not_of_one_checkpoint(methods):
    names, _ = methods
    summaries = [corruption_results.summary_in(Path(name)) for name in names]
    drawn = robustness.against_clean(summaries)
    assert drawn["clean.png"].startswith(b"\x89PNG") and drawn == robustness.against_clean(summaries)
    assert robustness.against_clean(summaries[:1]) == {}


def test_in_a_terminal_several_checkpoints_go_by_what_tells_them_apart():
    names = ["d-small-mixup-s0-0123456789ab", "d-small-none-s1-0123456789ac"]
    for given, shown in ((names, ["mixup-s0", "none-s1"]), (names[:1], names[:1]), (["a", "b"], ["a", "b"]),
                         ([names[0], names[0][:-1] + "f"], [names[0], names[0][:-1] + "f"])):  # fmt: skip
        assert [one["checkpoint"] for one in robustness._shortened([{"checkpoint": name} for name in given])] == shown


# ------------------------------------------------------------------------------------------------------------- refusals


def test_a_test_over_corruptions_is_refused_with_its_rates_and_the_command_that_shows_them():
    line = str(corruption_comparison.refused())
    assert "27-58 %" in line and "15-45 %" in line and "mixcli bench false-positives" in line
    assert corruption_comparison.refused().exit_code == 2


@pytest.mark.parametrize(
    "other",
    [{"source": SOURCE.replace("seed 0", "seed 1")}, {"source": "official"}, {"index": np.arange(IMAGES) + 1}],
    ids=["generator seed", "source", "images"],
)
def test_other_images_sources_and_generator_seeds_are_refused(tmp_path, other):
    _, names = two(tmp_path, **other)
    with pytest.raises(UserError, match="other cells, images, source or generator seed") as caught:
        compared(names)
    assert caught.value.exit_code == 2 and caught.value.subject == names[1]


def test_of_several_results_the_ones_that_all_have_are_compared(tmp_path):
    rng = np.random.default_rng(0)
    made = [cells(rng, level) for level in (0.5, 0.6, 0.4)]
    candidates = [
        corruption_comparison._candidates(save(tmp_path / name, bits, source=source), Path("runs"), "cifar100-c")
        for name, bits, source in (("a", made[0], SOURCE), ("b", made[1], "official"), ("c", made[2], SOURCE))
    ]
    one, other = corruption_comparison._alike([[*candidates[0], *candidates[1]], candidates[2]], ["x", "y"])
    assert (one.name, other.name) == (str(tmp_path / "a"), str(tmp_path / "c"))


def test_a_partial_list_has_no_mean_to_compare(tmp_path):
    rng = np.random.default_rng(0)
    names = [save(tmp_path / name, cells(rng, 0.5), seed=k, partial=True) for k, name in enumerate("ab")]
    with pytest.raises(UserError, match="no mean; got a partial list"):
        compared(names)


def test_one_given_twice_and_one_without_results_are_refused(tmp_path):
    _, names = two(tmp_path)
    with pytest.raises(UserError, match="given twice"):
        compared([names[0], names[0]])
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.ckpt").touch()
    bare = str(tmp_path / "run" / "run.ckpt")
    with pytest.raises(UserError, match=f"no per-image results. Run mixcli eval-corruptions cifar100-c {bare}") as told:
        compared([names[0], bare])
    assert told.value.exit_code == 3


# --------------------------------------------------------------------------------------------------------------- rates


def excluded(difference, low, high):
    return low > 0 or high < 0


def test_equal_checkpoints_are_called_different_in_5_percent_and_by_a_binomial_interval_far_more_often():
    """Cells of one image are correlated: 75 of them are not 75 images."""
    rng, trials, images = np.random.default_rng(2), 400, 200
    ours = naive = covered = 0
    for _ in range(trials):
        shared = rng.standard_normal((2, images, 1))
        a, b = (rng.standard_normal((images, 75)) + 1.5 * s > 0 for s in shared)
        found = significance.image_bootstrap(a.mean(1), b.mean(1), rng, 400)
        ours += excluded(0, found.low, found.high)
        covered += found.low < 0 < found.high
        p, q, n = a.mean(), b.mean(), a.size
        naive += abs(p - q) > 1.96 * math.sqrt((p * (1 - p) + q * (1 - q)) / n)
    assert 100 * ours / trials <= 8 and 100 * covered / trials == pytest.approx(95, abs=3)
    assert 100 * naive / trials > 30


@pytest.mark.stress
def test_equal_checkpoints_2000_times():
    rng, trials, images = np.random.default_rng(3), 2000, 500
    ours = 0
    for _ in range(trials):
        shared = rng.standard_normal((2, images, 1))
        a, b = ((rng.standard_normal((images, 75)) + 1.5 * s > 0).mean(1) for s in shared)
        found = significance.image_bootstrap(a, b, rng, 1000)
        ours += excluded(0, found.low, found.high)
    assert 100 * ours / trials <= 6 and 100 - 100 * ours / trials == pytest.approx(95, abs=2)


@pytest.mark.parametrize("n", [5, 8, 10])
def test_equal_methods_with_a_shared_shift_per_run_are_above_in_at_most_6_percent(n):
    """One headline number per run: the shift of a run moves all of its corruptions at once."""
    rng = np.random.default_rng(n)
    accuracies = rng.normal(0, 0.4, (2, 2000, n, 1)) + rng.normal(0, 0.8, (2, 2000, n, 15))
    a, b = 50 + accuracies.mean(3)
    found = [
        significance.compare(significance.Arm("A", x), significance.Arm("B", y)) for x, y in zip(a, b, strict=True)
    ]
    above = np.mean(["above" in significance.sentence(c, c.p) for c in found])
    covered = np.mean([c.interval()[0] < 0 < c.interval()[1] for c in found])
    assert 100 * above <= 6 and 100 * covered == pytest.approx(95, abs=2)
