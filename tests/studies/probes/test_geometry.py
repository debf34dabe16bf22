"""Geometry against simplexes with known answers, slow loops of the definitions, and identities between its numbers."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from mixcli.errors import UserError
from mixcli.methods.supervised import cross_entropy
from mixcli.sampling import Random
from mixcli.studies.probes import geometry
from mixcli.studies.probes.geometry import cka, clusters, numbers


def rng(name: str = "test") -> np.random.Generator:
    return Random(0, name).host


def simplex(classes: int, dimensions: int) -> np.ndarray:
    """(classes, dimensions) unit vectors, every pair at cosine -1 / (classes - 1)."""
    corners = np.eye(classes) - 1 / classes
    rows = np.zeros((classes, max(dimensions, classes)))
    rows[:, :classes] = corners / np.linalg.norm(corners, axis=1, keepdims=True)
    return rows[:, :dimensions]


def spread(classes: int = 5, per_class: int = 30, dimensions: int = 12, seed: str = "spread", offset: float = 0.7):
    """Clusters of unequal size and shape about random means."""
    host = rng(seed)
    labels = np.repeat(np.arange(classes), per_class + 3 * np.arange(classes))
    z = host.normal(size=(classes, dimensions))[labels] + 0.8 * host.normal(size=(len(labels), dimensions)) + offset
    order = host.permutation(len(labels))
    return z[order], labels[order]


def rotation(dimensions: int) -> np.ndarray:
    return np.linalg.qr(rng("rotation").normal(size=(dimensions, dimensions)))[0]


# -------------------------------------------------------------------------------------------------------- known answers


@pytest.mark.parametrize("classes", [3, 10])
def test_a_simplex_without_noise_has_collapsed_and_its_classes_stand_as_far_apart_as_they_can(classes):
    means = simplex(classes, classes + 4)
    labels = np.repeat(np.arange(classes), 6)
    z = means[labels]
    found = numbers(clusters(z, labels), Random(0, "geometry"), weight=3 * means + 5)  # softmax ignores a common row
    for name in ("nc1", "nc1_cdnv", "nc2_norm", "nc2_angle", "nc2_norm_head", "nc2_angle_head", "nc3"):
        assert found[name] == pytest.approx(0, abs=1e-12), name
    assert geometry.nc4(z, labels, means, np.arange(classes)) == 0
    assert found["separability_centred"] == pytest.approx(classes / (classes - 1), abs=1e-12)
    for name in ("cohesion", "cohesion_pair", "silhouette"):
        assert found[name] == pytest.approx(1, abs=1e-12), name


def test_a_simplex_with_noise_has_the_collapse_that_its_noise_says():
    classes = dimensions = 10
    noise, per_class = 0.1, 20_000
    labels = np.repeat(np.arange(classes), per_class)
    z = simplex(classes, dimensions)[labels] + noise * rng().normal(size=(len(labels), dimensions))
    found = clusters(z, labels)
    assert geometry.nc1(found) == pytest.approx(noise**2 * (classes - 1) ** 2 / classes, rel=0.01)  # 0.081
    assert geometry.nc1_cdnv(found) == pytest.approx(dimensions * noise**2 * (classes - 1) / (2 * classes), rel=0.01)
    assert geometry.fisher(found, found.z) == pytest.approx(1 / (dimensions * noise**2), rel=0.01)


def test_every_number_equals_the_loop_of_its_definition():
    z, labels = spread()
    found = numbers(clusters(z, labels), Random(0, "geometry"))
    classes = np.unique(labels)
    u = np.array([row / np.linalg.norm(row) for row in z])
    c = [u[labels == k].mean(0) for k in classes]
    m = [z[labels == k].mean(0) for k in classes]
    middle = np.mean(m, 0)
    pairs = [(k, other) for k in classes for other in classes if k < other]

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    def all_pairs(k):
        rows = u[labels == k]
        return [rows[i] @ rows[j] for i in range(len(rows)) for j in range(len(rows)) if i != j]

    between = sum((m[k] - middle)[:, None] * (m[k] - middle) for k in classes) / len(classes)
    within = sum((z[i] - m[k])[:, None] * (z[i] - m[k]) for i, k in enumerate(labels)) / len(z)
    values, vectors = np.linalg.eigh(between)
    top = vectors[:, -(len(classes) - 1) :]
    variance = [np.square(z[labels == k] - m[k]).sum(1).mean() for k in classes]
    v = np.array([row / np.linalg.norm(row) for row in z - middle])
    b = [v[labels == k].mean(0) for k in classes]
    expected = {
        "cohesion": np.mean([np.mean([cosine(row, c[k]) for row in u[labels == k]]) for k in classes]),
        "cohesion_pair": np.mean([np.mean(all_pairs(k)) for k in classes]),
        "separability": np.mean([1 - cosine(c[a], c[b]) for a, b in pairs]),
        "separability_min": min(1 - cosine(c[a], c[b]) for a, b in pairs),
        "separability_centred": np.mean([1 - cosine(b[k], b[o]) for k, o in pairs]),
        "separability_centred_min": min(1 - cosine(b[k], b[o]) for k, o in pairs),
        "intra": np.mean([np.linalg.norm(u[labels == k] - c[k], axis=1).mean() for k in classes]),
        "inter": np.mean([np.linalg.norm(c[a] - c[b]) for a, b in pairs]),
        "nc1": np.trace(within @ top @ np.diag(1 / values[-(len(classes) - 1) :]) @ top.T) / len(classes),
        "nc1_cdnv": np.mean([(variance[a] + variance[b]) / 2 / np.sum((m[a] - m[b]) ** 2) for a, b in pairs]),
        "nc2_norm": np.std([np.linalg.norm(row - middle) for row in m])
        / np.mean([np.linalg.norm(row - middle) for row in m]),
        "nc2_angle": np.mean([abs(cosine(m[a] - middle, m[b] - middle) + 1 / (len(classes) - 1)) for a, b in pairs]),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-10), name


def test_the_mean_cosine_of_pairs_does_not_depend_on_the_number_of_images_and_cohesion_does():
    means = rng().normal(size=(4, 64))
    small, large = (
        clusters(means[labels] + 2 * rng(f"n {n}").normal(size=(len(labels), 64)), labels)
        for n in (8, 800)
        for labels in [np.repeat(np.arange(4), n)]
    )
    assert geometry.cohesion_pair(small) == pytest.approx(geometry.cohesion_pair(large), abs=0.03)
    assert geometry.cohesion(small) > geometry.cohesion(large) + 0.05


def test_nc1_of_many_dimensions_is_not_blown_up_by_directions_that_are_rounding():
    labels = np.repeat(np.arange(10), 100)
    z = (simplex(10, 512)[labels] + 0.1 * rng().normal(size=(1000, 512))).astype(np.float32)
    assert 0.05 < geometry.nc1(clusters(z, labels)) < 0.1  # 0.081 in the limit; a default inverse in float32: 1.6e9


def test_nc4_is_the_share_of_images_whose_nearest_mean_is_another_class_than_the_answer():
    means, classes = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]), np.array([3, 5, 9])
    z = np.array([[1.0, 1.0], [9.0, 1.0], [1.0, 9.0], [8.0, 0.0]])
    assert geometry.nc4(z, np.array([3, 5, 9, 5]), means, classes) == 0
    assert geometry.nc4(z, np.array([3, 5, 3, 9]), means, classes) == 0.5


# ----------------------------------------------------------------------------------------------------------- identities


def test_fisher_is_calinski_harabasz_and_cohesion_and_alignment_are_lengths_of_the_centres():
    z, labels = spread()
    found = clusters(z, labels)
    table = numbers(found, Random(0, "geometry"))
    n, c = len(z), len(found.classes)
    assert table["fisher"] == pytest.approx(table["calinski_harabasz"] * (c - 1) / (n - c), abs=1e-10)
    towards = np.einsum("ij,ij->i", found.u, geometry.unit(found.centres)[found.labels])
    assert table["cohesion"] == pytest.approx(found.mean(towards).mean(), abs=1e-10)
    apart = [np.square(rows[:, None] - rows).sum(-1)[~np.eye(len(rows), dtype=bool)].mean()
             for rows in (found.u[found.labels == k] for k in range(c))]  # fmt: skip
    assert table["alignment"] == pytest.approx(np.mean(apart), abs=1e-10)


def test_no_number_changes_under_a_rotation_of_features_and_head():
    z, labels = spread()
    weight, turn = rng("head").normal(size=(5, 12)), rotation(12)
    before, after = (numbers(clusters(rows, labels), Random(0, "geometry"), weight=head)
                     for rows, head in ((z, weight), (z @ turn, weight @ turn)))  # fmt: skip
    assert len(before) == len(after) > 20
    for name, value in before.items():
        assert after[name] == pytest.approx(value, abs=1e-8), name


def test_no_angle_changes_with_the_scale_of_the_features():
    z, labels = spread()
    before, after = (numbers(clusters(rows, labels), Random(0, "geometry")) for rows in (z, 0.01 * z))
    for name, value in before.items():
        assert after[name] == pytest.approx(value, abs=1e-8), name


def test_uniformity_on_the_sphere_is_near_minus_four_and_in_a_point_zero():
    z = rng().normal(size=(20_000, 128))
    found = clusters(z, np.arange(20_000) % 10)
    assert geometry.uniformity(found, Random(0, "pairs")) == pytest.approx(-4 + 8 / 128, abs=0.01)
    point = clusters(np.ones((50, 3)) + 1e-9 * z[:50, :3], np.arange(50) % 2)
    assert geometry.uniformity(point, Random(0, "pairs")) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_effective_rank_of_equal_directions_is_their_number(rank):
    corners = np.concatenate([np.eye(8)[:rank], -np.eye(8)[:rank]])
    assert geometry.effective_rank(clusters(np.repeat(corners, 4, 0), np.arange(8 * rank) % 2)) == pytest.approx(rank)


# ------------------------------------------------------------------------------------------------------------------ CKA


def test_a_net_is_like_itself_turned_scaled_and_moved():
    x = rng().normal(size=(200, 12))
    for other in (x, 7 * x @ rotation(12) + 3):
        (row,) = cka({"pooled": x}, {"pooled": other})
        assert row["cka_biased"] == pytest.approx(1, abs=1e-9) and row["cka_debiased"] == pytest.approx(1, abs=1e-9)


def test_independent_features_look_alike_to_the_biased_number_alone():
    x, y = rng().normal(size=(2, 500, 512))
    (row,) = cka({"a": x}, {"b": y})
    assert abs(row["cka_debiased"]) < 0.03 and row["cka_biased"] == pytest.approx(0.51, abs=0.02)


def test_the_debiased_number_equals_the_published_formula():
    x, y = rng().normal(size=(40, 5)), rng("y").normal(size=(40, 7)) + 2
    y[:, :5] += x

    def hsic(a, b):
        n = len(a)
        k, l_ = (rows @ rows.T * (1 - np.eye(n)) for rows in (a, b))
        one = np.ones(n)
        whole = (
            np.trace(k @ l_) + (one @ k @ one) * (one @ l_ @ one) / (n - 1) / (n - 2) - 2 * one @ k @ l_ @ one / (n - 2)
        )
        return whole / n / (n - 3)

    (row,) = cka({"a": x}, {"b": y})
    assert row["cka_debiased"] == pytest.approx(hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y)), abs=1e-10)


def test_all_pairs_of_sites_are_compared():
    x, y = rng().normal(size=(2, 30, 4))
    rows = cka({"stem": x, "pooled": y}, {"stem": y, "layer1": x, "pooled": x + y})
    assert [(r["site"], r["other_site"]) for r in rows][:3] == [
        ("stem", "stem"),
        ("stem", "layer1"),
        ("stem", "pooled"),
    ]
    assert len(rows) == 6 and rows[1]["cka_debiased"] == pytest.approx(1)


# -------------------------------------------------------------------------------------------------- scores of libraries


def test_the_silhouette_is_taken_on_one_sample_each_class_in_turn():
    labels = np.repeat(np.arange(7), [3000, 10, 2000, 2000, 100, 900, 900])
    rows = geometry.stratified(labels, 5000, Random(0, "silhouette"))
    again = geometry.stratified(labels, 5000, Random(0, "silhouette"))
    counts = np.bincount(labels[rows])
    assert (rows == again).all() and len(np.unique(rows)) == 5000
    assert counts[1] == 10 and counts[4] == 100 and counts[5] == 900 and abs(counts[0] - counts[2]) <= 1
    assert (geometry.stratified(labels, 5000, Random(1, "silhouette")) != rows).any()


def test_neighbours_of_random_labels_are_right_by_chance_and_of_separate_classes_always():
    host = rng()
    z, labels = host.normal(size=(4000, 16)), host.integers(0, 10, 4000)
    chance = geometry.nearest_neighbours(z[:2000], labels[:2000], z[2000:], labels[2000:])
    assert chance == pytest.approx(0.1, abs=3 * math.sqrt(0.09 / 2000))
    apart = 20 * np.eye(16)[labels] + 0.1 * z
    assert geometry.nearest_neighbours(apart[:2000], labels[:2000], apart[2000:], labels[2000:]) == 1


@pytest.mark.parametrize("k", [0, -1, 11])
def test_neighbours_that_are_not_there_are_refused(k):
    with pytest.raises(UserError, match=r"--k: out of range; got -?\d+, expected 1 .. 10 training images") as told:
        geometry.nearest_neighbours(np.eye(10), np.arange(10), np.eye(10), np.arange(10), k)
    assert told.value.exit_code == 2


def test_a_logistic_probe_says_whether_it_converged():
    z, labels = spread(offset=0)
    assert geometry.logistic(z, labels, z, labels) == (pytest.approx(1, abs=0.1), True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, converged = geometry.logistic(z, labels, z, labels, iterations=1)
    assert not converged


@pytest.mark.parametrize("c", [0, -1, math.nan, math.inf])
def test_a_penalty_that_is_none_is_refused(c):
    z, labels = spread()
    with pytest.raises(UserError, match="--C: out of range"):
        geometry.logistic(z, labels, z, labels, c)


# ---------------------------------------------------------------------------------------------- what cannot be measured


def test_classes_of_one_image_and_features_of_norm_zero_are_left_out_and_told():
    z, labels = spread()
    whole = numbers(clusters(z, labels), Random(0, "geometry"))
    more = clusters(np.vstack([z, np.zeros((3, 12)), np.ones((1, 12))]), np.append(labels, [0, 1, 9, 7]))
    assert more.left_out == ("3 features of norm 0, left out", "class 7: cohesion undefined (n = 1), left out")
    assert numbers(more, Random(0, "geometry")) == pytest.approx(whole, nan_ok=True)
    assert (more.rows == np.arange(len(z))).all() and (more.classes == np.arange(5)).all()


def test_features_that_say_nothing_are_refused_with_their_site():
    z, labels = spread()
    z[3, 2], z[7] = np.nan, np.inf
    with pytest.raises(UserError, match="layer3: non-finite in 2 rows") as told:
        clusters(z, labels, "layer3")
    assert told.value.exit_code == 4
    with pytest.raises(UserError, match="stem: no variance") as told:
        clusters(np.ones((8, 3)), np.arange(8) % 2, "stem")
    assert told.value.exit_code == 4
    with pytest.raises(UserError, match="pooled: 1 class with at least two images; expected two or more") as told:
        clusters(rng().normal(size=(8, 3)), np.array([0] * 7 + [1]), "pooled")
    assert told.value.exit_code == 3


# ------------------------------------------------------------------------------------------- what the numbers must face


def test_a_blend_never_pulls_harder_than_the_same_images_alone():
    """CE(g(sum w_i f_i), c) <= sum w_i CE(g(f_i), c): the head is affine and the loss convex in the logits."""
    host, draws, members, dimensions, classes = rng("inequality"), 20_000, 4, 6, 5
    features = torch.from_numpy(3 * host.normal(size=(draws, members, dimensions)))
    weight, bias = (
        torch.from_numpy(host.normal(size=size)) for size in ((draws, classes, dimensions), (draws, 1, classes))
    )
    share = torch.from_numpy(host.dirichlet(np.ones(members), draws))
    rows = torch.nn.functional.one_hot(torch.from_numpy(host.integers(0, classes, draws)), classes).double()

    def loss(points):  # (draws, k, dimensions) -> (draws, k)
        logits = torch.einsum("nkd,ncd->nkc", points, weight) + bias
        return cross_entropy(logits.flatten(0, 1), rows.repeat_interleave(points.shape[1], 0)).view(draws, -1)

    blended = loss((share[:, :, None] * features).sum(1, keepdim=True))[:, 0]
    alone = (share * loss(features)).sum(1)
    assert float((blended - alone).max()) <= 1e-12 and float((alone - blended).mean()) > 0.1
    equal = features[:, :1].expand(-1, members, -1)
    gap = loss((share[:, :, None] * equal).sum(1, keepdim=True))[:, 0] - (share * loss(equal)).sum(1)
    assert float(gap.abs().max()) <= 1e-12
