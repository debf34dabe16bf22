"""Arms held against their plan: what is said, what is counted, what is refused."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from mixcli.errors import UserError
from mixcli.runs import Run
from mixcli.settings import MixUp
from mixcli.studies import comparison, significance
from mixcli.studies.comparison import Plan, Score, of_csv, of_runs, report
from tests.engine import harness

FACTS = {"epochs": 30, "batch": 128, "mixcli": "0.1.0", "torch": "2.11", "device": "cpu", "threads": 1}


def scores(n=8, gaps=(0.0, 0.6, 1.2), names=("none", "mixup", "cutmix"), facts=None, key=0):
    """Made-up runs of a few arms, seeds 0 .. n - 1."""
    rng = np.random.Generator(np.random.Philox(key=key))
    return [
        Score(
            arm, seed, {"test.top1": point, "test.nll": 1.0, "oracle_test_best": point + 1}, {**FACTS, **(facts or {})}
        )
        for arm, gap in zip(names, gaps, strict=True)
        for seed, point in enumerate(rng.normal(58 + gap, 0.4, n))
    ]


def plan(n=8, names=("none", "mixup", "cutmix"), **changes):
    base = {"baseline": "none", "dataset": "digits", "images": 360}
    return Plan("a study", dict.fromkeys(names, range(n)), **{**base, **changes})


def points(found, arm):
    return np.array([one.values["test.top1"] for one in found if one.arm == arm])


# ------------------------------------------------------------------------------------------------ numbers and sentences


@pytest.mark.parametrize("test", ["welch", "paired"])
def test_rows_and_sentences_are_those_of_significance(test):
    runs = scores()
    found = report(plan(test=test), runs)
    arms = {arm: significance.Arm(arm, points(runs, arm), tuple(range(8)), 8) for arm in ("none", "mixup", "cutmix")}
    expected = significance.rows(
        [significance.compare(arms[arm], arms["none"], test) for arm in ("mixup", "cutmix")], images=360
    )
    assert [{key: c[key] for key in expected[0]} for c in found.comparisons] == expected
    assert [(c["name"], c["family"], c["planned"]) for c in found.comparisons] == [
        ("mixup - none", 2, True), ("cutmix - none", 2, True)]  # fmt: skip
    assert "on these 360 images" in found.comparisons[1]["sentence"]


def with_balanced(ratio):
    return [
        replace(one, values={**one.values, "test.balanced": one.values["test.top1"] - 5},
                           facts={**one.facts, "test_class_ratio": ratio})
        for one in scores()
    ]  # fmt: skip


def test_balanced_accuracy_stands_beside_the_metric_where_classes_are_uneven_and_accuracy_beside_balanced():
    uneven, even = report(plan(), with_balanced(4.0)), report(plan(), with_balanced(1.05))
    assert uneven.columns["test.balanced"] == "balanced accuracy" and "test.balanced" not in even.columns
    balanced = report(plan(metric="test.balanced"), with_balanced(1.0))
    assert "test.balanced" not in balanced.columns
    assert balanced.rows[0].columns["test.top1"] - balanced.rows[0].mean == pytest.approx(5)
    assert "test.top1" not in uneven.columns


def test_an_arm_is_unequal_to_the_one_it_is_held_against_alone():
    names, sets = ("none a", "mixup a", "none b", "mixup b"), ("a", "a", "b", "b")
    facts = dict(zip(names, sets, strict=True))
    runs = [replace(one, facts={**one.facts, "dataset": facts[one.arm]})
            for one in scores(gaps=(0, 1, 0, 1), names=names)]  # fmt: skip
    pairs = (("mixup a", "none a"), ("mixup b", "none b"))
    found = report(plan(names=names, baseline=None, family=pairs), runs)
    assert not any(row.unequal for row in found.rows)
    assert [c["name"] for c in found.comparisons] == ["mixup a - none a", "mixup b - none b"]
    crossed = report(plan(names=names, baseline=None, family=(("mixup b", "none a"),)), runs)
    assert {row.arm for row in crossed.rows if row.unequal} == {"mixup b"}


def test_an_arms_row_is_what_scipy_says_of_its_runs():
    runs = scores(5)
    row = report(plan(5), runs).rows[1]
    mine = points(runs, "mixup")
    low, high = stats.t.interval(0.95, 4, mine.mean(), stats.sem(mine))
    assert (row.mean, row.sd, row.median) == pytest.approx((mine.mean(), mine.std(ddof=1), np.median(mine)))
    assert (row.low, row.high) == pytest.approx((low, high)) and row.n == "5" and row.seeds == (0, 1, 2, 3, 4)


def test_the_order_in_which_runs_end_changes_nothing():
    runs = scores()
    assert repr(report(plan(), runs)) == repr(report(plan(), runs[::-1]))


def test_the_planned_family_alone_is_adjusted_and_the_rest_is_exploratory():
    found = report(plan(family=(("cutmix", "none"), ("cutmix", "mixup"))), scores())
    names = [(c["name"], c["planned"], c["p_holm"] is None) for c in found.comparisons]
    assert names == [("cutmix - none", True, False), ("cutmix - mixup", True, False), ("mixup - none", False, True)]
    assert found.comparisons[2]["sentence"].startswith("exploratory: ")
    assert found.comparisons[0]["p_holm"] == pytest.approx(
        significance.holm([c["p"] for c in found.comparisons[:2]])[0], rel=1e-12
    )


def test_a_contrast_joins_the_family():
    names = ("neither", "one", "other", "both")
    runs = scores(gaps=(0, 0.5, 0.5, 2), names=names)
    synergy = {"both": 1, "one": -1, "other": -1, "neither": 1}
    found = report(plan(names=names, baseline="neither", contrasts={"synergy": synergy}), runs).comparisons
    assert found[-1]["name"] == "synergy" and found[-1]["family"] == 4 and found[-1]["test"] == "contrast"
    means = [points(runs, arm).mean() for arm in synergy]
    assert found[-1]["difference"] == pytest.approx(np.dot(means, list(synergy.values())))


def test_without_a_baseline_all_pairs_are_compared():
    names = [c["name"] for c in report(plan(baseline=None), scores()).comparisons]
    assert names == ["none - mixup", "none - cutmix", "mixup - cutmix"]


# ------------------------------------------------------------------------------------------- missing, unequal, mixed


def test_a_failed_run_is_counted_in_row_and_sentence():
    runs = [one for one in scores() if (one.arm, one.seed) != ("cutmix", 3)]
    found = report(plan(), runs, {"cutmix": {3: "diverged"}})
    assert found.rows[2].n == "7 of 8" and found.rows[2].missing == {3: "diverged"}
    assert found.comparisons[1]["sentence"].endswith("cutmix: 7 of 8 runs") and found.comparisons[1]["n"] == "7 + 8"


def test_a_planned_run_of_which_nothing_is_known_is_not_finished():
    found = report(plan(), scores(7))
    assert [row.n for row in found.rows] == ["7 of 8"] * 3 and found.rows[0].missing == {7: "not finished"}


def test_an_arm_without_any_run_keeps_its_place_in_the_family():
    runs = [one for one in scores() if one.arm != "mixup"]
    found = report(plan(), runs)
    assert found.comparisons[0]["sentence"].startswith("no runs to compare") and math.isnan(found.rows[1].mean)
    assert found.comparisons[1]["p_holm"] == pytest.approx(2 * found.comparisons[1]["p"])


def test_a_study_of_which_no_run_is_done_still_has_a_report():
    found = report(plan(), [])
    assert [row.n for row in found.rows] == ["0 of 8"] * 3 and len(found.comparisons) == 2


@pytest.mark.parametrize(
    ("fact", "value", "words"),
    [("dataset", "cifar10", "data set cifar10, not digits"),
     ("epochs", 60, "epochs 60, not 30"), ("batch", 64, "batch 64, not 128"),
     ("val_fraction", 0.1, "held out 0.1, not 0"), ("per_class", 10, "images per class 10, not all"),
     ("images_per_step", 163.8, "images per step 163.8, not 128")],
)  # fmt: skip
def test_an_arm_that_was_treated_otherwise_is_marked_unequal(fact, value, words):
    base = {"dataset": "digits", "val_fraction": 0.0, "per_class": None, "images_per_step": 128.0}
    runs = [*scores(facts=base)[:16], *scores(facts={**base, fact: value})[16:]]
    found = report(plan(), runs)
    assert [row.unequal for row in found.rows] == ["", "", words]
    assert [c["unequal"] for c in found.comparisons] == [False, True]


def test_what_the_runs_do_not_show_the_plan_may_mark():
    found = report(plan(unequal={"mixup": "tuned on five values"}), scores())
    assert found.rows[1].unequal == "tuned on five values"


def test_batches_filled_up_by_chance_are_not_unequal():
    runs = [*scores(facts={"images_per_step": 163.8})[:8], *scores(facts={"images_per_step": 164.1})[8:]]
    assert not any(row.unequal for row in report(plan(), runs).rows)


def test_mixed_program_versions_and_devices_are_warned():
    runs = [*scores()[:20], *scores(facts={"mixcli": "0.2.0", "device": "H200"})[20:]]
    assert report(plan(), runs).warnings == ("mixed program versions: 0.1.0, 0.2.0", "mixed devices: H200, cpu")
    assert report(plan(), scores()).warnings == ()


def test_the_header_says_what_rule_12_asks_for():
    found = dict(report(plan(test="paired"), scores(facts={"test_digest": "ab" * 32})).facts)
    assert found == {
        "metric": "test.top1 in points, last epoch", "data": "digits, 360 test images, sha256 abababababab",
        "runs": "8 per arm, seeds 0 .. 7", "epochs": "30",
        "test": "paired t test over runs of one seed, two-sided; Holm over 2 comparisons; fixed before the first run",
        "smallest gap worth a claim": "0.50 points", "programs": "mixcli 0.1.0, torch 2.11, cpu, 1 thread",
    }  # fmt: skip
    later = dict(report(plan(post_hoc="post hoc: the plan was changed after 3 runs"), scores()).facts)
    assert later["test"].endswith("post hoc: the plan was changed after 3 runs")


# ------------------------------------------------------------------------------------------------------------- refusals


def test_rule_10_the_best_test_epoch_is_refused_as_a_metric_by_name():
    for changes in ({"metric": "oracle_test_best"}, {"select": "oracle_test_best"}, {"select": "best"}):
        with pytest.raises(UserError, match="best test epoch is chosen by looking at the test images") as caught:
            report(plan(**changes), scores())
        assert caught.value.exit_code == 2


def test_a14_a_metric_that_no_run_has_is_refused_with_those_there_are():
    with pytest.raises(UserError, match="metric: not produced by these runs; got val.top1, expected one of test.top1$"):
        report(plan(metric="val.top1"), scores())
    with pytest.raises(UserError, match="not in points"):
        report(plan(metric="test.nll"), scores())
    with pytest.raises(UserError, match="test: unknown; got welsh. Did you mean welch"):
        report(plan(test="welsh"), scores())
    with pytest.raises(UserError, match="test.top1_best_on_val"):
        report(plan(select="best_on_val"), scores())


def test_a_run_out_of_plan_or_given_twice_and_an_unknown_arm_are_refused():
    with pytest.raises(UserError, match="mixup seed 7: not in the plan"):
        report(plan(7), [one for one in scores() if one.seed < 7 or one.arm == "mixup"])
    with pytest.raises(UserError, match="given twice"):
        report(plan(), [*scores(), scores()[0]])
    with pytest.raises(UserError, match="Did you mean mixup"):
        report(plan(family=(("mixpu", "none"),)), scores())


# ---------------------------------------------------------------------------------------------- runs named one by one


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Four finished runs: none and mixup with seeds 0 and 1, and mixup once with more epochs."""
    root = tmp_path_factory.mktemp("store")
    wanted = [(None, 0, 2), (None, 1, 2), (MixUp(), 0, 2), (MixUp(), 1, 2), (MixUp(), 0, 3)]
    return root, [
        str(harness.run_through(root, harness.settings(method, seed=seed, epochs=epochs)).run.folder)
        for method, seed, epochs in wanted
    ]


def test_runs_are_grouped_by_their_settings_without_the_seed(store):
    root, runs = store
    found = of_runs(runs[:4], root, baseline="none")
    assert [(row.arm, row.seeds) for row in found.rows] == [("none", (0, 1)), ("mixup", (0, 1))]
    assert found.comparisons[0]["sentence"].startswith("pilot (n = 2)") and found.notes == ()
    assert "not known to be fixed" in dict(found.facts)["test"]


def test_arms_of_one_method_are_named_by_what_differs(store):
    root, runs = store
    found = of_runs(runs, root, baseline="none")
    assert [row.arm for row in found.rows] == ["none", "mixup, epochs=2", "mixup, epochs=3"]
    assert found.rows[2].unequal == "epochs 3, not 2"


def test_two_runs_are_no_statement_about_the_methods_but_mcnemar_about_the_files(store):
    root, runs = store
    found = of_runs([runs[2], runs[0]], root)
    assert found.comparisons[0]["sentence"] == "one run per method: no statement about the methods"
    correct = [comparison.bits.read(Run(root / name).correct)[0] for name in (runs[2], runs[0])]
    only = sum(correct[0] & ~correct[1]), sum(correct[1] & ~correct[0])
    assert found.notes[0].startswith("mixup (seed 0) against none (seed 0): ")
    assert f"{only[0]} right in the first only, {only[1]} in the second only" in found.notes[0]
    assert found.notes[0].endswith("about these two files, not the methods")


def test_runs_are_found_by_the_start_of_their_id_and_by_their_checkpoint(store):
    root, runs = store
    ids = [Run(root / name).id for name in runs[:2]]
    assert report_of(of_runs([ids[0][:8], f"{runs[1]}/run.ckpt"], root)) == report_of(of_runs(runs[:2], root))


def report_of(found):
    return [(one.arm, one.seed, one.run) for one in found.scores]


def test_two_splits_share_no_images_so_mcnemar_says_so(store):
    root, runs = store
    other = harness.run_through(root, harness.settings(seed=5, split_seed=5, epochs=2)).run
    found = of_runs([runs[0], str(other.folder)], root)
    assert "splits of their own" in found.notes[0] and dict(found.facts)["data"].endswith("2 splits")


def spoiled(store, tmp_path, at, spoil):
    root, runs = store
    folders = [shutil.copytree(name, tmp_path / Run(root / name).folder.name) for name in runs[:2]]
    spoil(Run(folders[at]))
    return lambda: of_runs([str(folder) for folder in folders], tmp_path)


def rewritten(run, **changes):
    run.finish({**run.finished(), **changes})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: run.result.unlink(), "not finished"),
        (lambda run: rewritten(run, dataset="cifar10"), "another data set than the first run's; got cifar10"),
        (lambda run: rewritten(run, test_digest="0"), "other test images"),
        (lambda run: run.correct.write_bytes(b"x"), "damaged"),
    ],
    ids=["unfinished", "data set", "test images", "bits"],
)
def test_runs_that_cannot_be_compared_are_refused(store, tmp_path, spoil, words):
    with pytest.raises(UserError, match=words) as caught:
        spoiled(store, tmp_path, 1, spoil)()
    assert caught.value.exit_code in (2, 3) and "\n" not in str(caught.value)


def test_without_saved_bits_the_reason_stands_where_mcnemar_would(store, tmp_path):
    assert "not found" in spoiled(store, tmp_path, 1, lambda run: run.correct.unlink())().notes[0]


def test_a_run_given_twice_weights_of_an_epoch_and_an_unknown_baseline_are_refused(store, tmp_path):
    root, runs = store
    with pytest.raises(UserError, match="given twice"):
        of_runs([runs[0], runs[1], f"{runs[0]}/run.ckpt"], root)
    with pytest.raises(UserError, match="takes finished runs"):
        of_runs([runs[0], f"{runs[0]}/previous.ckpt"], root)
    with pytest.raises(UserError, match="--baseline: no such arm; got nnoe. Did you mean none"):
        of_runs(runs[:2], root, baseline="nnoe")


# -------------------------------------------------------------------------------------------------------------- tables


def table(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return path


def test_a_table_of_shares_and_one_of_points_give_the_same_and_say_which(tmp_path):
    rows = [(one.arm, one.seed, one.values["test.top1"]) for one in scores()]
    found = []
    for unit, words in ((100, "written as shares of 1"), (1, "as written")):
        text = "method,seed,accuracy,test_images\n" + "".join(f"{a},{s},{float(p / unit)!r},360\n" for a, s, p in rows)
        found.append(of_csv(table(tmp_path, text), "method", "accuracy", baseline="none", test="paired"))
        assert dict(found[-1].facts)["metric"] == f"accuracy in points, {words}"
    ours = report(plan(test="paired"), scores())
    for one in found:
        assert [c["sentence"] for c in one.comparisons] == [c["sentence"] for c in ours.comparisons]


def test_rows_without_seeds_are_runs_without_partners(tmp_path):
    path = table(tmp_path, "method,accuracy\n" + "".join(f"{'ab'[i % 2]},{0.5 + i / 100}\n" for i in range(12)))
    found = of_csv(path, "method", "accuracy")
    assert math.isnan(found.comparisons[0]["r"]) and found.comparisons[0]["n"] == "6 + 6"
    assert "test images not stated" in dict(found.facts)["data"]
    with pytest.raises(UserError, match="an arm has none"):
        of_csv(path, "method", "accuracy", test="paired")


def test_a_claim_from_a_table_without_the_number_of_images_names_none(tmp_path):
    rows = "".join(f"{arm},{50 + gap + i / 10}\n" for arm, gap in (("a", 9), ("b", 0)) for i in range(8))
    said = of_csv(table(tmp_path, "method,accuracy\n" + rows), "method", "accuracy").comparisons[0]["sentence"]
    assert said.endswith("for new training runs on these images")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("method,seed,corruption,accuracy\na,0,fog,50\na,0,snow,51\nb,0,fog,52\n", "several rows per method and seed"),
        ("method,corruption,accuracy\na,fog,50\na,snow,51\nb,fog,52\n", "it has a column corruption"),
        ("method,seed,accuracy\na,0,0.5\na,1,51\n", "shares of 1 mixed with points; got 0.5 and 51, expected one unit"),
        ("method,seed,accuracy\na,0,50\na,1,x\n", "line 3: accuracy is not an accuracy; got x"),
        ("method,seed,accuracy\na,0,50\na,1,\n", "line 3: accuracy is not an accuracy; got nothing"),
        ("method,seed,accuracy\na,0,50\na,1,101\n", "line 3: accuracy is not an accuracy; got 101"),
        ("method,seed,accuracy\na,0.5,50\n", "line 2: seed is not an integer"),
        ("method,seed,acuracy\na,0,50\n", "--value: no such column; got accuracy. Did you mean acuracy"),
        ("method,seed,accuracy\n", "no rows"),
        ("", "cannot be read as CSV"),
    ],
)
def test_tables_that_are_not_one_number_per_run_are_refused(tmp_path, text, words):
    with pytest.raises(UserError) as caught:
        of_csv(table(tmp_path, text), "method", "accuracy")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_corruptions_as_runs_are_refused_with_the_reason(tmp_path):
    path = table(tmp_path, "method,seed,corruption,accuracy\na,0,fog,50\na,0,snow,51\n")
    with pytest.raises(UserError, match="one number per training run is needed.*inside each run first"):
        of_csv(path, "method", "accuracy")


def test_a_missing_table_is_told():
    with pytest.raises(UserError, match="nowhere.csv: not found") as caught:
        of_csv(comparison.Path("nowhere.csv"), "method", "accuracy")
    assert caught.value.exit_code == 3
