"""Maps: what they are made of, what they refuse, and that no score but trustworthiness comes out of one."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from mixcli.errors import UserError
from mixcli.sampling import Random
from mixcli.studies.probes import embedding
from mixcli.studies.probes.embedding import Map, check, equal_per_class, project, shown_classes


def rng(name: str = "test") -> np.random.Generator:
    return Random(0, name).host


def clouds(per_class: int = 30, dimensions: int = 60, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(classes), per_class)
    return 6 * np.eye(dimensions)[labels] + rng().normal(size=(len(labels), dimensions)), labels


def test_pca_is_the_projection_on_the_largest_directions_their_largest_loading_positive():
    z = rng().normal(size=(80, 6)) * [1, 5, 0.1, 3, 0.5, 0.2]
    found = project(z, "pca")
    centred = z - z.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    for place, share in ((-1, "1"), (-2, "2")):
        axis = vectors[:, place] * np.sign(vectors[np.abs(vectors[:, place]).argmax(), place])
        assert found.xy[:, -1 - place] == pytest.approx(centred @ axis)
        variance = 100 * values[place] / values.sum()
        assert found.axes[-1 - place] == f"component {share}, {variance:.1f} % of variance"
    assert project(-z, "pca").xy == pytest.approx(-found.xy)


@pytest.mark.parametrize("how", ["tsne", "pca"])
def test_neighbours_stay_neighbours_and_repeats_are_equal_bits(how):
    z, _ = clouds()
    one, two = project(z, how), project(z, how)
    assert one.xy.shape == (120, 2) and (one.xy == two.xy).all() and 0.8 < one.trust <= 1


def test_a_repeat_of_tsne_starts_elsewhere_since_no_seed_moves_the_first_map():
    z, _ = clouds()
    first, seed, again = project(z, "tsne"), project(z, "tsne", seed=1), project(z, "tsne", seed=1, again=True)
    assert (seed.xy == first.xy).all() and abs(again.xy - first.xy).max() > 1
    assert again.told and not first.told


def test_umap_repeats_are_equal_bits_and_its_compilation_is_announced():
    z, _ = clouds()
    told: list[str] = []
    one, two = project(z, "umap", tell=told.append), project(z, "umap")
    assert (one.xy == two.xy).all() and one.trust > 0.7 and told == ["umap: compiling, first run only"]


def test_a_failed_spectral_start_is_repeated_at_random_and_told(monkeypatch):
    class Fake:
        def __init__(self, **given):
            self.init = given["init"]

        def fit_transform(self, z):
            if self.init == "spectral":
                raise TypeError("Cannot use scipy.linalg.eigh for sparse A with k >= N")
            return z[:, :2]

    monkeypatch.setattr(embedding, "_umap", lambda: type("module", (), {"UMAP": Fake}))
    found = project(clouds()[0], "umap")
    assert found.told == ("spectral initialisation failed, random used",) and np.isfinite(found.xy).all()


def test_trustworthiness_is_one_for_a_true_map_and_chance_for_a_shuffled_one():
    z = np.column_stack([rng().normal(size=(400, 2)), np.zeros((400, 8))])
    assert embedding.trust(z, z[:, :2], Random(0, "trust")) == 1
    shuffled = z[rng("shuffle").permutation(400), :2]
    assert embedding.trust(z, shuffled, Random(0, "trust")) == pytest.approx(0.5, abs=0.05)


def test_a_map_has_no_score_but_trustworthiness():
    assert {one.name for one in dataclasses.fields(Map)} == {"xy", "axes", "trust", "told"}
    words = ("silhouette", "cohesion", "separability", "accuracy", "davies", "distance")
    assert not [c for c in embedding.COLUMNS if any(word in c for word in words)]


def test_neither_umap_nor_numba_is_imported_for_tsne():
    code = ("import sys, numpy as np\nfrom mixcli.studies.probes.embedding import project\n"
            "project(np.random.default_rng(0).normal(size=(60, 5)), 'tsne', perplexity=5)\n"
            "print({'umap', 'numba', 'pynndescent'} & set(sys.modules))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr


def test_a_umap_that_cannot_be_imported_names_the_other_ways(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match="--how: umap cannot be imported .*expected --how tsne or --how pca") as told:
        check("umap", 100)
    assert told.value.exit_code == 2


@pytest.mark.parametrize(("given", "line"), [
    ({"how": "tsen"}, "--how: unknown; got tsen. Did you mean tsne?"),
    ({"how": "tsne", "points": 30}, "--perplexity: out of range; got 30, expected 1 … below the 30 points"),
    ({"how": "umap", "points": 15}, "--neighbors: out of range; got 15, expected 2 … below the 15 points"),
    ({"how": "umap", "points": 15, "neighbours": 1}, "--neighbors: out of range; got 1, expected 2 … below"),
])  # fmt: skip
def test_what_cannot_be_drawn_is_refused_in_one_line(given, line):
    with pytest.raises(UserError) as told:
        check(**{"points": 100, **given})
    assert str(told.value).startswith(line) and told.value.exit_code == 2


def test_features_that_do_not_vary_are_refused_and_dead_dimensions_removed():
    with pytest.raises(UserError, match="no variance, projection impossible") as told:
        project(np.ones((40, 3)), "pca")
    assert told.value.exit_code == 4
    z = rng().normal(size=(50, 5))
    found = project(np.hstack([z, np.zeros((50, 12))]), "pca")
    assert found.told == ("12 dead dimensions removed",) and found.xy == pytest.approx(project(z, "pca").xy)
    assert project(np.hstack([z[:, :1], np.ones((50, 1))]), "tsne").xy.shape == (50, 2)
    with pytest.raises(UserError, match="non-finite in 2 rows"):
        project(np.where(np.arange(250).reshape(50, 5) < 6, np.nan, z), "pca")


# --------------------------------------------------------------------------------------------------- what is on the map


def test_ten_of_many_classes_are_drawn_and_named_ones_are_taken():
    many = [f"c{k}" for k in range(100)]
    drawn = shown_classes(many, None, Random(0, "classes"))
    assert len(set(drawn)) == 10 and (drawn == shown_classes(many, None, Random(0, "classes"))).all()
    assert list(shown_classes(many[:20], None, Random(0, "classes"))) == list(range(20))
    assert list(shown_classes(many, "17, c3,c17", Random(0, "classes"))) == [3, 17]
    for text, line in (("c101", "no such class; got c101. Did you mean c1"), (",", "must not be empty")):
        with pytest.raises(UserError, match="--classes: ") as told:
            shown_classes(many, text, Random(0, "classes"))
        assert line in str(told.value)


def test_points_are_equal_per_class_and_the_same_for_every_net():
    labels = rng().permutation(np.repeat(np.arange(4), [50, 20, 80, 30]))
    rows = equal_per_class(labels, np.array([0, 1, 3]), 5000, Random(0, "points"))
    assert (np.bincount(labels[rows], minlength=4) == [20, 20, 0, 20]).all() and (np.diff(rows) > 0).all()
    assert (rows == equal_per_class(labels, np.array([0, 1, 3]), 5000, Random(0, "points"))).all()
    assert len(equal_per_class(labels, np.array([0, 1, 3]), 31, Random(0, "points"))) == 30


def test_blends_on_a_map_are_of_one_class_each_and_a_tenth_of_the_points():
    z, labels = clouds(per_class=50)
    rows, of = embedding.blended(z, labels, Random(0, "overlay"))
    assert len(rows) == 20 and (np.bincount(of) == 5).all()
    for row, k in zip(rows, of, strict=True):
        own = z[labels == k]
        weights = np.linalg.lstsq(own.T, row, rcond=None)[0]
        assert own.T @ weights == pytest.approx(row, abs=1e-8) and row @ np.eye(60)[k] > 4
