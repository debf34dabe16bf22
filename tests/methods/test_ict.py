from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mixcli.errors import UserError
from mixcli.methods import ict, supervised
from mixcli.mix import Mix
from mixcli.mixing import blend
from mixcli.sampling import Random
from mixcli.settings import ICT, MixUp, NoMixing
from tests import fakes


def planned(settings: ICT, step: int = 0):
    return ict.plan(settings, fakes.context(), Random(0, "mix", step))


def run(settings: ICT, plan: ict.Plan | None = None, batch=None):
    """Losses, the plan, student and teacher, after one forward."""
    learner = fakes.learner(settings)
    plan = plan or planned(settings)
    return learner(batch or fakes.batch(settings), plan), plan, learner


def slow_loss(settings: ICT, plan: ict.Plan) -> float:
    """METHODS 5.1, image by image and class by class."""
    batch, learner = fakes.batch(settings), fakes.learner(settings)
    total = supervised.loss(settings, learner.net, batch, supervised.Plan(plan.mix)).total.item()
    images = batch.unlabelled[0]
    with learner.teacher.frozen_batchnorm() if settings.teacher_bn == "eval" else torch.no_grad():
        taught = learner.teacher(images).detach()
    ratio, source = plan.unlabelled.ratio, plan.unlabelled.source
    mixed, targets = [], []
    for i in range(len(images)):
        shares = [float(ratio[k, i]) for k in range(len(ratio))]
        members = [int(source[k, i]) for k in range(len(ratio))]
        mixed.append(sum(w * images[j] for w, j in zip(shares, members, strict=True)))
        if settings.target == "probabilities":
            rows = [torch.softmax(taught[j], 0) for j in members]
            targets.append(sum(w * row for w, row in zip(shares, rows, strict=True)))
        else:
            targets.append(torch.softmax(sum(w * taught[j] for w, j in zip(shares, members, strict=True)), 0))
    seen = learner.net(torch.stack(mixed)).softmax(1).detach()
    squares = [
        (float(seen[i, c]) - float(targets[i][c])) ** 2 for i in range(len(images)) for c in range(seen.shape[1])
    ]
    return total + float(plan.weight) * sum(squares) / len(squares)


@pytest.mark.parametrize(
    "settings",
    [
        ICT(),
        ICT(target="logits", teacher_bn="eval"),
        ICT(points=3, per="sample", supervised="plain"),
        ICT(points=4, target="logits", concentration="total", fold="max"),
        ICT(fold="max", alpha=0.3, per="sample"),
    ],
    ids=fakes.label,
)
def test_the_loss_equals_a_slow_reference(settings):
    losses, plan, _ = run(settings)
    assert losses.total.item() == pytest.approx(slow_loss(settings, plan), rel=1e-5)


def test_parts_sum_to_the_total():
    parts = run(ICT())[0].parts
    whole = parts["supervised"] + parts["weight"] * parts["consistency"]
    assert torch.allclose(parts["loss"], whole, atol=1e-6) and parts["consistency"] > 0


@pytest.mark.parametrize(("settings", "twin"), [(ICT(unlabelled_weight=0), MixUp()),
                                                (ICT(unlabelled_weight=0, supervised="plain"), NoMixing()),
                                                (ICT(unlabelled_weight=0, points=3), MixUp(points=3))],
                         ids=["mixup", "none", "three points"])  # fmt: skip
def test_a_weight_of_zero_is_the_supervised_method_bit_for_bit(settings, twin):
    losses, _, learner = run(settings)
    losses.total.backward()
    plain = fakes.learner(twin)
    other = plain(fakes.batch(twin), supervised.plan(twin, fakes.context(), Random(0, "mix")))
    other.total.backward()
    assert torch.equal(losses.total, other.total)
    for a, b in zip(learner.net.parameters(), plain.net.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for name, value in plain.net.state_dict().items():  # running statistics among them
        assert torch.equal(learner.net.state_dict()[name], value)


def test_a_ratio_of_one_is_consistency_on_the_images_themselves_and_so_is_one_point():
    plan = planned(ICT())
    whole = replace(plan.unlabelled, keep=torch.ones_like(plan.unlabelled.keep), form="any")
    one = run(ICT(), replace(plan, unlabelled=whole))[0]
    single = run(ICT(points=1), replace(plan, unlabelled=None))[0]
    assert torch.equal(one.total, single.total)
    learner, batch = fakes.learner(ICT()), fakes.batch(ICT())
    learner.net(batch.images)  # the labelled pass moves statistics, not the batch's own
    direct = (learner.net(batch.unlabelled[0]).softmax(1) - learner.teacher(batch.unlabelled[0]).softmax(1)) ** 2
    assert torch.allclose(single.parts["consistency"], direct.mean(), atol=1e-7)


def test_one_point_leaves_the_labelled_images_mixed_by_twos():
    assert planned(ICT(points=1)).unlabelled is None
    assert torch.equal(planned(ICT(points=1)).mix.source, planned(ICT()).mix.source)


@pytest.mark.parametrize("settings", [ICT(), ICT(target="logits")], ids=fakes.label)
def test_two_points_as_weights_equal_the_pair(settings):
    plan = planned(settings)

    def weights(mix: Mix) -> Mix:
        keep = mix.keep[None, :, :, :, :]
        return Mix(mix.source, weight=torch.cat([keep, 1 - keep]), drawn=mix.drawn, notes=mix.notes)

    many = replace(plan, mix=weights(plan.mix), unlabelled=weights(plan.unlabelled))
    assert torch.allclose(run(settings)[0].total, run(settings, many)[0].total, rtol=1e-5)


def test_the_teacher_gets_no_gradient_and_the_student_does():
    losses, _, learner = run(ICT())
    losses.total.backward()
    assert all(p.grad is None for p in learner.teacher.parameters())
    assert all(p.grad is not None for p in learner.net.parameters())


@pytest.mark.parametrize(
    ("settings", "student", "teacher"),
    [(ICT(), 2, 1), (ICT(teacher_bn="eval"), 2, 0), (ICT(points=1), 2, 1), (ICT(unlabelled_weight=0), 1, 0)],
    ids=["batch", "eval", "one point", "no weight"],
)
def test_ledger_25_batchnorm_moves_as_often_as_the_file_says(settings, student, teacher):
    _, _, learner = run(settings)
    moved = [int(net.stages["stem"][1].num_batches_tracked) for net in (learner.net, learner.teacher)]
    assert moved == [student, teacher]


def test_ledger_21_the_student_sees_the_mixed_images():
    seen = []
    learner = fakes.learner(ICT())
    learner.net.stages["stem"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    plan, batch = planned(ICT()), fakes.batch(ICT())
    learner(batch, plan)
    assert torch.equal(seen[0], plan.mix.images(batch.images))
    assert torch.equal(seen[1], plan.unlabelled.images(batch.unlabelled[0]))


def test_the_ramp_is_the_papers_sigmoid_in_epochs_and_its_length_a_quarter_unless_given():
    settings = ICT(unlabelled_weight=50, ramp=8)
    weights = [settings.weight_at(epoch, 20) for epoch in (0, 4, 8, 15)]
    assert weights == pytest.approx([50 * 0.0067379, 50 * 0.2865048, 50, 50], rel=1e-5)
    assert ICT().weight_at(2.5, 20) == pytest.approx(100 * math.exp(-1.25)) and ICT().weight_at(5, 20) == 100
    assert ICT(ramp=0).weight_at(0, 20) == 100
    assert ICT(ramp_shape="linear", ramp=4).weight_at(1, 20) == 25
    plan = ict.plan(settings, replace(fakes.context(), epoch=4.0, epochs=20), Random(0, "mix"))
    assert float(plan.weight) == pytest.approx(50 * 0.2865048)


@pytest.mark.parametrize(("points", "concentration"), [(2, "per_point"), (3, "per_point"), (8, "total")])
def test_folding_gives_the_largest_share_to_the_image_itself_and_keeps_the_rest(points, concentration):
    mixing = MixUp(points=points, concentration=concentration, per="sample", alpha=0.7)
    mix = blend.draw(mixing, fakes.context(500), Random(0, "mix"))
    before, after = mix.ratio, blend.folded(mix).ratio
    assert torch.equal(after[0], before.max(0).values)
    assert torch.allclose(before.sort(0).values, after.sort(0).values, atol=1e-7)
    assert torch.allclose(blend.folded(mix).drawn.float(), after[0], atol=1e-6)


@pytest.mark.parametrize("points", [2, 4])
def test_fold_gives_both_mixes_their_largest_share_first_and_none_leaves_them(points):
    folded = planned(ICT(points=points, fold="max", per="sample"))
    plain = planned(ICT(points=points, per="sample"))
    for one, other in ((folded.mix, plain.mix), (folded.unlabelled, plain.unlabelled)):
        assert torch.equal(one.ratio[0], other.ratio.max(0).values)
        assert (other.ratio[0] < other.ratio.max(0).values).any()


def test_unlabelled_images_are_not_paired_by_labels_that_are_not_there():
    """A Context of unlabelled images knows no label, so a draw that asks for one raises."""
    assert fakes.context().of(6).labels is None
    with pytest.raises(UserError, match="needs labels"):
        ICT(pairing="same-class")
