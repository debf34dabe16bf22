"""The commands geometry, embed, hull, gradient-noise and all, on two small runs: files, refusals, equal bytes."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from mixcli.cli import main
from mixcli.report.export import Section
from mixcli.report.probes import findings
from mixcli.settings import MixUp, SynerMix
from tests.engine import harness

SHORT = ["--batches", "2", "--draws", "4", "--points", "1,2"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A run whose loss has two parts and one that mixes, of a few dozen steps each."""
    root = tmp_path_factory.mktemp("runs")
    found = {}
    for method in (SynerMix(beta=0.3), MixUp()):
        made = harness.run_through(root, harness.settings(method))
        found[method.name] = made.run.folder
    return found


def probe(capsys, *words: object) -> tuple[int, str, str]:
    code = main(["probe", *map(str, words)])
    told = capsys.readouterr()
    return code, told.out, told.err


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_geometry_of_two_runs_by_site_with_references_and_likeness(runs, capsys, tmp_path):
    own, other = runs["synermix"], runs["mixup"]
    code, out, err = probe(capsys, "geometry", own, "--against", other, "--stages", "all", "--full", "--out", tmp_path)
    assert code == 0, err
    assert {f"geometry-joint{what}.{kind}" for what in ("", "-depth", "-likeness") for kind in ("png", "pdf")} | {
        "geometry-joint.csv", "geometry-joint.json"} == names(tmp_path)  # fmt: skip
    found = rows(tmp_path / "geometry-joint.csv")
    assert {r["role"] for r in found} == {"main", "against", "untrained"}
    assert {r["row"] for r in found} == {"numbers", "class", "cka"} and len({r["site"] for r in found}) == 6
    same = [r for r in found if r["row"] == "numbers" and r["role"] == "main" and r["split"] == "test"]
    assert len(same) == 6 and all(float(r["cohesion_pair"]) <= float(r["cohesion"]) for r in same)
    fresh = [r for r in found if r["role"] == "untrained" and r["row"] == "numbers"]
    assert len(fresh) == 3 * 6 and all(0 < float(r["knn"]) <= 1 for r in fresh)
    assert [r["site"] for r in found if r["nc3"]] == ["pooled"] * 4  # of two runs, on test and on training images
    told = json.loads((tmp_path / "geometry-joint.json").read_text())
    assert set(told["headline"][own.name]) == {"cohesion_pair", "separability_centred", "nc1"}
    assert "separability_centred" in out and "of these two files alone" in out
    assert (own / "studies/geometry.csv").is_file() and (other / "studies/geometry.csv").is_file()


def test_without_full_the_costly_numbers_are_not_taken(runs, capsys, tmp_path):
    code, out, _ = probe(capsys, "geometry", runs["mixup"], "--linear", "--out", tmp_path)
    found = rows(tmp_path / "geometry.csv")
    assert code == 0 and "silhouette" not in found[0] and found[0]["site"] == "pooled"
    assert 0.1 < float(found[0]["linear"]) <= 1 and 0.1 < float(found[0]["knn"]) <= 1
    assert "no reference run" in out and "kNN" in out


def test_probes_of_pooled_features_share_one_pass_over_plain_images(runs, capsys, tmp_path):
    assert probe(capsys, "geometry", runs["mixup"], "--out", tmp_path)[0] == 0
    code, _, err = probe(capsys, "embed", runs["mixup"], "--how", "pca", "--out", tmp_path)
    assert code == 0 and "no forward passes: the features are cached" in err


def test_a_map_is_a_table_of_points_that_repeats_bit_for_bit(runs, capsys, tmp_path):
    tables = []
    for place in ("one", "two"):
        words = ("embed", runs["synermix"], "--overlay", "blend", "--perplexity", "20", "--out", tmp_path / place)
        code, out, err = probe(capsys, *words)
        assert code == 0 and "carry no meaning" in out and "by construction" in out, err
        tables.append((tmp_path / place / "embed-tsne.csv").read_bytes())
    assert tables[0] == tables[1] and names(tmp_path / "one") >= {"embed-tsne.png", "embed-tsne.pdf", "embed-tsne.json"}
    found = rows(tmp_path / "one" / "embed-tsne.csv")
    wanted = ["x", "y", "index", "label", "prediction", "confidence", "kind", "checkpoint", "seed"]
    assert list(found[0])[:9] == wanted
    real, blends = ([r for r in found if r["kind"] == kind] for kind in ("real", "blend"))
    assert 0 < len(blends) <= 0.1 * len(real) and not blends[0]["index"] and not blends[0]["prediction"]
    assert len({sum(r["label"] == name for r in real) for name in "0123456789"}) == 1


def test_repeats_and_several_runs_stand_side_by_side_with_the_same_images(runs, capsys, tmp_path):
    code, out, _ = probe(capsys, "embed", runs["synermix"], "--against", runs["mixup"], "--repeats", "2", "--classes",
                         "3,7", "--perplexity", "9", "--out", tmp_path)  # fmt: skip
    found = rows(tmp_path / "embed-tsne-joint.csv")
    maps: dict[tuple[str, str], list[str]] = {}
    for row in found:
        maps.setdefault((row["checkpoint"], row["seed"]), []).append(row["index"])
    assert code == 0 and len(maps) == 4 and len({tuple(index) for index in maps.values()}) == 1
    assert {r["label"] for r in found} == {"3", "7"} and "positions cannot be compared" in out


def test_geometry_refuses_a_map(runs, capsys, tmp_path):
    assert probe(capsys, "embed", runs["mixup"], "--how", "pca", "--out", tmp_path)[0] == 0
    code, _, err = probe(capsys, "geometry", tmp_path / "embed-pca.csv")
    assert code == 2 and "is a table, as of a map, and no net" in err


def test_the_page_of_a_map_needs_nothing_else(runs, capsys, tmp_path):
    pytest.importorskip("plotly")
    code, _, err = probe(capsys, "embed", runs["mixup"], "--how", "pca", "--html", "--out", tmp_path)
    page = (tmp_path / "embed-pca.html").read_text()
    assert code == 0 and len(page) > 1_000_000 and not re.findall(r'<(?:script|link)[^>]*(?:src|href)="http', page), err


def test_hull_keeps_its_control_beside_every_distance(runs, capsys, tmp_path):
    code, out, err = probe(capsys, "hull", runs["synermix"], "--dims", "2,4", "--out", tmp_path)
    assert code == 0, err
    found = rows(tmp_path / "hull.csv")
    kinds = {r["query"] for r in found if r["row"] == "class"}
    assert {"held back", "test", "blends of reference", "blends of test", "nearest other class", "augmented 1"} <= kinds
    inside = [float(r["rel"]) for r in found if r["query"] == "blends of reference"]
    assert max(inside) <= 1e-6 and all(0 <= float(r["rel"]) <= 1 for r in found if r["rel"])
    gap = next(r for r in found if r["row"] == "gap")
    assert float(gap["gap_low"]) <= float(gap["gap_test"]) <= float(gap["gap_high"])
    assert {r["law"] for r in found if r["row"] == "density"} == {"class", "gaussian"}
    assert "hull-dims.png" in names(tmp_path) and "Gaussians" in out


def test_gradient_noise_looks_at_training_batches_and_moves_nothing(runs, capsys, tmp_path):
    before = (runs["synermix"] / "run.ckpt").read_bytes()
    code, out, err = probe(capsys, "gradient-noise", runs["synermix"], *SHORT, "--out", tmp_path)
    assert code == 0 and "training batches, 120 images" in out, err
    found = [r for r in rows(tmp_path / "gradient-noise.csv") if r["place"] == "total"]
    by = {r["row"]: r for r in found}
    assert set(by) == {"noise", "cosine", "control", "check", "share"} and float(by["noise"]["trace_cov"]) > 0
    shares = [float(by["share"][f"share_{name}"]) for name in ("blends", "augment", "batch")]
    assert float(by["share"]["share_blends_low"]) <= shares[0] <= float(by["share"]["share_blends_high"])
    controls = {r["weights"]: float(r["cosine_blends"]) for r in found if r["row"] == "control"}
    assert set(controls) == {"equal", "single"} and all(0.5 < value <= 1 for value in controls.values())
    assert "each image alone" in out and "95 % low" in out
    assert sum(shares) == pytest.approx(1) and 0 < shares[0] < 0.5
    assert -1 <= float(by["cosine"]["cosine"]) <= 1 and "late-training noise only" in out
    assert (runs["synermix"] / "run.ckpt").read_bytes() == before


def test_a_loss_without_random_parts_has_no_noise_to_look_at(runs, capsys):
    code, _, err = probe(capsys, "gradient-noise", runs["mixup"])
    assert code == 2 and "mixup: this method has no random part named intra" in err


@pytest.mark.parametrize(("words", "line"), [
    (["geometry", "--stages", "layer9"], "--stages: unknown; got layer9. Did you mean layer"),
    (["geometry", "--stages", "softmax"], "--stages: features are measured, not images or probabilities"),
    (["geometry", "--k", "0"], "--k: out of range"),
    (["geometry", "--k", "5000"], "--k: out of range"),
    (["geometry", "--linear", "--C", "0"], "--C: out of range"),
    (["geometry", "--linear", "--C", "nan"], "--C"),
    (["geometry", "--images", "5"], "--images: 5 images of 10 classes"),
    (["embed", "--perplexity", "360"], "--perplexity: out of range"),
    (["embed", "--how", "umap", "--neighbors", "1"], "--neighbors: out of range"),
    (["embed", "--how", "tsen"], "--how"),
    (["embed", "--classes", "3,x"], "--classes: no such class"),
    (["embed", "--out", "map.bmpx"], "--out: suffix"),
    (["hull", "--dims", "0"], "--dims"),
    (["gradient-noise", "--draws", "1"], "--draws"),
])  # fmt: skip
def test_a_value_that_cannot_be_is_refused_in_one_line(words, line, runs, capsys):
    name, *rest = words
    code, _, err = probe(capsys, name, runs["synermix"], *rest)
    last = err.strip().splitlines()[-1]
    assert code in (2, 3) and line in last and last.startswith("mixcli probe: error: "), err


def test_all_probes_stand_in_one_folder_with_a_report_that_needs_nothing_else(runs, capsys, tmp_path, monkeypatch):
    from mixcli.studies.probes import overview

    few = {**overview.OPTIONS, "gradient-noise": {"draws": 4, "batches": 2, "points": (1,)}, "embed": {"how": "pca"}}
    monkeypatch.setattr(overview, "OPTIONS", few)
    code, out, err = probe(capsys, "all", runs["synermix"], "--images", "60", "--out", tmp_path)
    assert code == 0 and "report.html" in "".join(out.split()), err
    page, text = ((tmp_path / f"report.{kind}").read_text() for kind in ("html", "md"))
    order = [page.index(f'<h2 id="{name}">') for name in overview.ORDER]
    assert order == sorted(order) and page.count("data:image/png;base64,") >= 6
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    shown = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(shown) >= 6 and set(shown) <= names(tmp_path)
    assert all((tmp_path / f"{name}.csv").is_file() for name in ("linearity", "geometry", "embed-pca", "hull"))


def test_a_probe_that_does_not_fit_is_left_out_and_the_rest_is_made(runs, capsys, tmp_path, monkeypatch):
    from mixcli.studies.probes import overview

    monkeypatch.setattr(overview, "ORDER", ("gradient-noise", "calibration"))
    code, out, _ = probe(capsys, "all", runs["mixup"], "--out", tmp_path)
    assert code == 0 and "left out: mixup: this method has no random part named intra" in " ".join(out.split())
    assert "left out" in (tmp_path / "report.md").read_text() and (tmp_path / "calibration.csv").is_file()


def test_a_reference_that_a_probe_does_not_fit_is_left_out_of_it_alone(runs, capsys, tmp_path, monkeypatch):
    from mixcli.studies.probes import overview

    few = {"gradient-noise": {"draws": 4, "batches": 2, "points": (1,)}, "embed": {"overlay": "blend"}}
    monkeypatch.setattr(overview, "OPTIONS", few)
    monkeypatch.setattr(overview, "ORDER", ("embed", "gradient-noise"))
    words = ("all", runs["synermix"], "--against", runs["mixup"], "--images", "30", "--out", tmp_path)
    code, _, err = probe(capsys, *words)
    assert code == 0 and "left out" not in (tmp_path / "report.md").read_text(), err
    told = " ".join(err.split())
    assert "gradient-noise without digits-small-mixup" in told and "embed: perplexity 10 for 30 images" in told
    found = [row["checkpoint"] for row in rows(tmp_path / "gradient-noise.csv")]
    assert found and not any("mixup" in name for name in found)
    assert {row["checkpoint"].split("-")[2] for row in rows(tmp_path / "embed-tsne.csv")} == {"synermix", "mixup"}


def test_a_dry_run_tells_the_cost_of_every_probe_and_writes_nothing(runs, capsys, tmp_path):
    code, out, err = probe(capsys, "all", runs["synermix"], "--dry-run", "--out", tmp_path / "none")
    assert code == 0 and "nothing was started" in out and not (tmp_path / "none").exists()
    assert all(f"{name}: " in err for name in ("linearity", "geometry", "hull", "gradient-noise"))


def test_the_table_of_a_net_of_many_stages_stands_upright_and_fits_80_characters():
    sites = tuple(f"block{n}" for n in range(20))
    table = Section(("dev_spread", *sites), (("mixup, seed 0", *(f"{n}.000" for n in range(20))),))
    page = SimpleNamespace(sections=lambda *_: [table])
    written = io.StringIO()
    console = Console(file=written, width=80)
    console.print(findings.shown(SimpleNamespace(page=page, table=None, about={"told": "told"}, remarks=())))
    lines = [line.split() for line in written.getvalue().splitlines()]
    assert all([site, f"{n}.000"] in lines for n, site in enumerate(sites))
