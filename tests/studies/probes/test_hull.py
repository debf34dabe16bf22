"""The hull against polytopes whose distances are known, another solver, and Gaussians that it must find nothing in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from mixcli.errors import UserError
from mixcli.sampling import Random
from mixcli.studies.probes import class_blends, hull
from mixcli.studies.probes.hull import density, distances, gap, law, member, reference


def rng(name: str = "test") -> np.random.Generator:
    return Random(0, name).host


def of(points: np.ndarray, queries: np.ndarray, dims: int | None = None):
    found = reference(points, points.shape[1] if dims is None else dims)
    return distances(found.points, found.seen(queries))


@pytest.mark.parametrize("d", [2, 5, 16])
def test_distances_from_the_hull_of_the_unit_vectors_are_the_known_ones(d):
    """In all d dimensions, not only in the d - 1 of their hull, so that the origin is seen to lie outside."""
    corners = np.eye(d)
    centroid = corners.mean(0)
    found = distances(corners - centroid, np.stack([np.zeros(d), centroid, 2 * corners[0]]) - centroid)
    assert found.distance == pytest.approx([1 / np.sqrt(d), 0, 1], abs=1e-9)
    assert found.rel[:2] == pytest.approx([1, 0], abs=1e-9) and found.uncertain == 0


def test_distances_equal_those_of_a_general_minimiser():
    points, queries = rng().normal(size=(12, 4)), 1.5 * rng("queries").normal(size=(8, 4))
    points -= points.mean(0)
    found = distances(points, queries)
    start = np.full(12, 1 / 12)
    for query, value in zip(queries, found.distance, strict=True):
        other = minimize(lambda w, q=query: np.square(w @ points - q).sum(), start, bounds=[(0, 1)] * 12,
                         constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, tol=1e-14)  # fmt: skip
        assert value == pytest.approx(np.sqrt(other.fun), abs=1e-4)
    assert (found.distance > 0.1).any() and found.uncertain == 0


def test_rel_is_at_most_one_and_neither_rotation_nor_translation_changes_it():
    points, queries = rng().normal(size=(60, 10)), 3 * rng("queries").normal(size=(40, 10))
    turn = np.linalg.qr(rng("turn").normal(size=(10, 10)))[0]
    before, after = of(points, queries), of(points @ turn + 5, queries @ turn + 5)
    assert (before.rel <= 1).all() and before.rel.max() > 0.5
    assert after.rel == pytest.approx(before.rel, abs=1e-9)
    assert after.distance == pytest.approx(before.distance, abs=1e-9)


def test_blends_of_the_reference_are_inside():
    points = rng().normal(size=(100, 40)).astype(np.float32).astype(np.float64)
    drawn = class_blends.draw(100, 200, Random(0, "blends"))
    found = of(points, drawn.of(points), dims=16)
    assert found.rel.max() <= 1e-6 and found.uncertain == 0


def test_a_distance_that_is_not_the_minimum_is_counted(monkeypatch):
    points = rng().normal(size=(30, 4))
    points -= points.mean(0)
    queries = 4 * rng("queries").normal(size=(5, 4))
    assert distances(points, queries).uncertain == 0
    monkeypatch.setattr(hull, "nnls", lambda table, target: (np.full(table.shape[1], 1 / table.shape[1]), 0.0))
    assert distances(points, queries).uncertain == 5

    def gives_up(table, target):
        raise RuntimeError("maximum number of iterations reached")

    monkeypatch.setattr(hull, "nnls", gives_up)
    nearest = np.sqrt(np.square(queries[:, None] - points).sum(-1).min(1))
    assert distances(points, queries).distance == pytest.approx(nearest)


@pytest.mark.parametrize(("d", "rel"), [(2, 0.0), (8, 0.1), (16, 0.4), (32, 0.6), (64, 0.7)])
def test_fresh_points_of_one_gaussian_are_as_far_out_as_their_dimension_makes_them(d, rel):
    points, queries = rng(f"points {d}").normal(size=(500, d)), rng(f"fresh {d}").normal(size=(60, d))
    assert np.median(of(points, queries).rel) == pytest.approx(rel, abs=0.08)


def test_the_share_outside_the_subspace_is_what_pythagoras_leaves():
    host = rng()
    points = host.normal(size=(50, 12)) * np.arange(12, 0, -1)
    found, queries = reference(points, 4), host.normal(size=(20, 12))
    lost = np.linalg.norm((queries - found.centroid) - found.seen(queries) @ found.axes, axis=1) ** 2
    assert found.outside(queries) == pytest.approx(lost / np.square(queries - found.centroid).sum(1))
    assert reference(points, 12).outside(queries) == pytest.approx(0, abs=1e-12)


def test_fewer_points_than_dimensions_span_what_they_can_and_equal_ones_are_refused():
    assert reference(rng().normal(size=(6, 30)), 16).points.shape == (6, 5)
    dead = np.hstack([rng().normal(size=(40, 3)), np.ones((40, 9))])
    assert reference(dead, 16).points.shape == (40, 3)
    with pytest.raises(UserError, match="no variance") as told:
        reference(np.full((9, 4), 0.3), 2)
    assert told.value.exit_code == 4


def test_held_back_and_test_images_of_one_law_have_no_gap():
    inside = 0
    for study in range(30):
        host, held, test = rng(f"study {study}"), [], []
        for _ in range(4):
            points = host.normal(size=(80, 8))
            held.append(of(points, host.normal(size=(40, 8))).rel)
            test.append(of(points, host.normal(size=(40, 8))).rel)
        value, low, high = gap(held, test, Random(study, "gap"))
        inside += low <= 0 <= high
        assert low <= value <= high
    assert inside >= 26
    shifted, low, _ = gap(held, [rows + 0.3 for rows in test], Random(0, "gap"))
    assert shifted > 0.2 and low > 0


# -------------------------------------------------------------------------------------------------------------- density


@pytest.mark.parametrize(("few", "share"), [(2, 0.614), (3, 0.430), (5, 0.264)])
def test_blends_of_a_gaussian_are_nearer_its_middle_by_the_mean_of_their_squared_weights(few, share):
    host = rng(f"gaussian {few}")
    root = host.normal(size=(16, 16))
    found, held = law(host.normal(size=(8000, 16)) @ root), host.normal(size=(6000, 16)) @ root
    drawn = class_blends.draw(6000, 4000, Random(0, "blends"), few=(few, few))
    ratio = np.square(found.maha(drawn.of(held))).mean() / np.square(found.maha(held)).mean()
    assert ratio == pytest.approx(share, abs=0.02)
    assert ratio == pytest.approx(np.add.reduceat(drawn.weight**2, drawn.starts).mean(), abs=0.02)


def test_a_blend_of_one_image_is_its_member():
    host = rng()
    points, held = host.normal(size=(50, 6)), host.normal(size=(20, 6))
    found, drawn = law(points), class_blends.draw(20, 30, Random(0, "one"), few=(1, 1))
    blended = drawn.of(held)
    assert found.near(blended) == pytest.approx(found.near(held)[drawn.member])
    assert found.maha(blended) == pytest.approx(found.maha(held)[drawn.member])
    assert member(blended, held, drawn) == pytest.approx(1)


def test_the_nearest_members_cosine_equals_a_loop():
    held = rng().normal(size=(12, 5))
    drawn = class_blends.draw(12, 25, Random(0, "blends"))
    blended, ends = drawn.of(held), [*drawn.starts[1:], len(drawn.member)]
    for row, start, end, value in zip(blended, drawn.starts, ends, member(blended, held, drawn), strict=True):
        members = held[drawn.member[start:end]]
        assert row == pytest.approx(drawn.weight[start:end] @ members)
        near = members[np.linalg.norm(members - row, axis=1).argmin()]
        assert value == pytest.approx(near @ row / np.linalg.norm(near) / np.linalg.norm(row))
        assert 2 <= end - start <= 5 and len(set(drawn.member[start:end])) == end - start


def test_a_gaussian_class_has_the_density_of_the_gaussian_beside_it():
    rows = []
    for seed in range(20):
        host = rng(f"class {seed}")
        found = density(*(host.normal(size=(n, 16)) for n in (400, 100, 100)), Random(seed, "density"))
        rows.append(found)
    own, other = (hull.mean_row([row[kind] for row in rows]) for kind in ("class", "gaussian"))
    for name, value in own.items():
        assert value == pytest.approx(other[name], abs=0.06), name
    assert own["maha_test"] == pytest.approx(1, abs=0.03) and own["near_test"] == pytest.approx(1, abs=0.03)
    assert own["maha_blend"] < 0.8 and own["below"] > 0.3 and own["above"] < 0.01


def test_a_class_of_two_clumps_is_told_from_its_gaussian():
    """Blends across the clumps fall between them, where no image is: further from the next than in a Gaussian."""
    host = rng()
    clumps = [host.normal(size=(n, 8)) + 12 * np.eye(8)[0] * host.choice([-1, 1], n)[:, None] for n in (400, 100, 100)]
    found = density(*clumps, Random(0, "density"))
    assert found["class"]["near_blend"] > found["gaussian"]["near_blend"] + 0.2


def test_the_bases_of_a_law_undo_each_other():
    points = rng().normal(size=(300, 5)) @ np.diag([3, 2, 1, 0.5, 0.1])
    found = law(points)
    assert found.root.T @ found.root @ found.whiten @ found.whiten.T == pytest.approx(np.eye(5), abs=1e-8)
    drawn = found.drawn(20_000, Random(0, "gaussian"))
    assert np.square(law(drawn).maha(drawn)).mean() == pytest.approx(5, rel=0.02)
