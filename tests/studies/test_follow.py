"""What a study follows is measured once per run, becomes columns and metric, and goes on where it was stopped."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mixcli.cli import main
from mixcli.errors import UserError
from mixcli.studies import design, follow
from mixcli.studies.corruptions import robustness as corruption_robustness
from mixcli.studies.probes import probing
from mixcli.studies.scores import Score
from mixcli.studies.written import Typed
from tests.studies.study import ARMS, TINY, digests, write

FOLLOWING = 'metric = "corruptions.mean"\nfollow = ["corruptions", "calibration"]\n' + TINY + ARMS


@pytest.fixture(autouse=True)
def following(here, undrawn_corruptions):
    write(FOLLOWING)


@pytest.fixture
def evaluated(monkeypatch):
    """The runs that are evaluated, as they are."""
    found, evaluate = [], corruption_robustness.evaluate

    def counted(asked, reporter, stop=None):
        found.append(Path(asked.checkpoints[0]).name)
        return evaluate(asked, reporter, stop)

    monkeypatch.setattr(corruption_robustness, "evaluate", counted)
    return found


def rows():
    with Path("studies/small/runs.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_run_is_evaluated_once_and_its_mean_is_what_the_study_compares(capsys, evaluated):
    assert main(["ablate", "small.toml", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)["result"]["report"]
    assert len(evaluated) == len(set(evaluated)) == 4
    summaries = [json.loads(p.read_text()) for p in Path("runs").glob("*/studies/corruptions/*/summary.json")]
    means = {s["checkpoint"]: s for s in summaries}
    for row in rows():
        [found] = [s for name, s in means.items() if name.endswith(row["run"])]
        assert float(row["corruptions.mean"]) == pytest.approx(100 * found["mean_available"])
        assert float(row["corruptions.noise"]) == pytest.approx(100 * found["families"]["noise"]["mean"])
        assert float(row["calibration.ece15"]) == pytest.approx(found["clean"]["ece15"])
        assert float(row["calibration.corrupted_nll"]) == pytest.approx(found["calibration"]["nll"])
        assert row["corruptions.mean15"] == ""
    assert report["facts"]["mean acc, corrupted"] == "mean_available"
    assert report["facts"]["metric"] == "corruptions.mean in points, last epoch, mean_available"
    assert any(note.startswith("mean acc (15): glass_blur, snow, frost") for note in report["notes"])
    assert report["arms"][0]["columns"]["corruptions.mean15"] is None
    before = digests(Path("studies/small"))
    assert main(["ablate", "small.toml", "--quiet"]) == 0
    assert len(evaluated) == 4 and digests(Path("studies/small")) == before


def test_a_study_that_was_stopped_while_it_follows_up_goes_on_there(capsys, evaluated, monkeypatch):
    evaluate, stopped = corruption_robustness.evaluate, []

    def third(asked, reporter, stop=None):
        if len(evaluated) == 2 and not stopped:
            stopped.append(True)
            stop.deadline = 0.0
        return evaluate(asked, reporter, stop)

    monkeypatch.setattr(corruption_robustness, "evaluate", third)
    assert main(["ablate", "small.toml", "--quiet"]) == 75
    err = capsys.readouterr().err
    assert "while it follows up; all 4 cells done" in err and "Continue: mixcli ablate small.toml" in err
    assert len(evaluated) == 3
    assert main(["ablate", "small.toml", "--quiet"]) == 0
    assert len(evaluated) == 5 and evaluated[2] == evaluated[3]  # the one that was cut off, and the last


def test_a_report_alone_measures_nothing_and_says_what_is_missing(capsys, evaluated):
    write(FOLLOWING.replace('metric = "corruptions.mean"\n', ""))
    plain = FOLLOWING.replace('metric = "corruptions.mean"\nfollow = ["corruptions", "calibration"]\n', "")
    write(plain, "plain.toml")
    assert main(["ablate", "plain.toml", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["ablate", "small.toml", "--report"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "corruptions: missing for 4 of 4 runs" in out and evaluated == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('follow = ["corruption"]\n', "small.toml field follow: unknown; got corruption. Did you mean corruptions?"),
        ('follow = ["corruptions", "corruptions"]\n', "small.toml field follow: corruptions given twice"),
        ('metric = "corruptions.mean"\n', 'is measured by corruptions. Set follow = ["corruptions"]'),
    ],
)
def test_mistakes_in_what_is_followed_are_one_line(lines, words):
    with pytest.raises(UserError) as caught:
        design.read(Typed(write(lines + TINY + ARMS)), {}, {})
    assert words in str(caught.value)


def test_the_compared_mean_is_the_first_that_all_runs_have():
    def common(*runs):
        scores = [Score("a", k, {f"corruptions.{key}": v for key, v in run.items()}) for k, run in enumerate(runs)]
        found = follow._with_common(follow.Followed(scores))
        return found.facts.get("mean acc, corrupted"), [one.values.get(follow.COMMON) for one in found.scores]

    whole, frostless = {"mean15": 1.0, "mean14": 2.0, "mean_available": 3.0}, {"mean14": 4.0, "mean_available": 5.0}
    assert common(whole, whole) == ("mean15", [1.0, 1.0])
    assert common(whole, frostless | {"mean15": None}) == ("mean14", [2.0, 4.0])
    assert common(whole, {"mean15": None, "mean14": None, "mean_available": 6.0}) == ("mean_available", [3.0, 6.0])
    assert common({"mean15": None}) == (None, [None])


@pytest.fixture
def probed(monkeypatch, undrawn_probes):
    """What is probed: (probe, run), each time."""
    found, headlines = [], probing.headlines

    def counted(asked, checkpoint, reporter):
        found.append((asked.probe, checkpoint.parent.name))
        return headlines(asked, checkpoint, reporter)

    monkeypatch.setattr(probing, "headlines", counted)
    return found


PROBES = 'follow = ["linearity", "geometry", "gradient-noise"]\n' + TINY + ARMS


def test_a_followed_probe_is_made_once_per_run_and_its_headline_numbers_are_columns(capsys, probed):
    write(PROBES)
    assert main(["ablate", "small.toml", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)["result"]["report"]
    assert sorted(name for name, _ in probed) == ["geometry"] * 4 + ["gradient-noise"] * 4 + ["linearity"] * 4
    for row in rows():
        assert 0 < float(row["linearity.dev_spread.layer1"]) < 2 and -1 < float(row["geometry.cohesion_pair"]) <= 1
        assert "gradient-noise.share" not in row  # no run has it
    assert report["facts"]["linearity"] == "digits, test split, 360 images"
    assert "gradient-noise: mixup: this method has no random part named intra" in " ".join(report["notes"])
    assert main(["ablate", "small.toml", "--quiet"]) == 0
    assert main(["probe", "linearity", "--study", "small.toml", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["result"]
    assert len(probed) == 12 and found["planned"]
    assert main(["probe", "linearity", "--study", "small.toml", "--images", "100", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["result"]
    assert len(probed) == 16 and not found["planned"]


def test_a_probe_that_is_followed_later_has_columns_but_was_not_planned(capsys, probed):
    write(TINY + ARMS)
    assert main(["ablate", "small.toml", "--quiet"]) == 0
    write('follow = ["geometry"]\n' + TINY + ARMS)
    assert main(["ablate", "small.toml", "--quiet"]) == 0
    assert all(row["geometry.cohesion_pair"] for row in rows()) and len(probed) == 4
    capsys.readouterr()
    assert main(["probe", "geometry", "--study", "small.toml", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)["result"]
    assert not found["planned"] and "exploratory" in " ".join(found["remarks"])


def test_the_named_studies_of_synermix_follow_probes():
    for name, followed in (("views", ("geometry", "hull", "corruptions")), ("p", ("geometry", "gradient-noise")),
                           ("controls", ("geometry",)), ("parts", ("gradient-noise",))):  # fmt: skip
        assert design.read(Typed(f"synermix-{name}", tiny=True), {}, {}).fields.follow == followed


def test_the_named_studies_of_robustness_follow_corruptions_and_calibration():
    for name in ("robustness", "miamix-self"):
        assert design.read(Typed(name, tiny=True), {}, {}).fields.follow == ("corruptions", "calibration")
    assert design.read(Typed("robustness", tiny=True), {}, {}).fields.metric == "corruptions.mean"
