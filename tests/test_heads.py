"""Losses of S: every term against a plain loop over voxels."""

import math

import numpy as np
import pytest
import torch

from twostream.models.segmentation.config import LossConfig, SegmentationConfig
from twostream.models.segmentation.heads import ExclusiveHead, IndependentHead, dice_loss, head_of, non_overlap
from twostream.task import CERTAIN, IGNORE

HEADS = [IndependentHead(("pre", "post", "union")), ExclusiveHead()]
SHAPE = (2, 3, 2, 4, 4)


def random_case(seed, logits=3):
    rng = np.random.default_rng(seed)
    logit = torch.from_numpy(rng.normal(0, 2, (SHAPE[0], logits, *SHAPE[2:])).astype(np.float32)).requires_grad_()
    pre = rng.random(SHAPE[:1] + SHAPE[2:]) < 0.2
    post = (rng.random(pre.shape) < 0.2) & ~pre
    union = pre | post | (rng.random(pre.shape) < 0.1)
    target = np.stack([pre, post, union], 1).astype(np.uint8) * CERTAIN
    target[np.broadcast_to((rng.random(pre.shape) < 0.3)[:, None], SHAPE)] = IGNORE
    return logit, torch.from_numpy(target)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("seed", range(4))
def test_independent_loss_equals_the_loop(seed):
    logit, target = random_case(seed)
    config = LossConfig(cross_entropy=0.7, dice=0.4, non_overlap=2.0, max_positive_weight=3.0, dice_smooth=5.0)
    x, t = logit.detach().numpy(), target.numpy()
    wanted = 0.0
    for c in range(3):
        known = [(x[i], t[i]) for i in np.ndindex(SHAPE) if i[1] == c and t[i] != IGNORE]
        positive = sum(v == CERTAIN for _, v in known)
        weight = min(max((len(known) - positive) / positive, 1.0), 3.0)
        cost = sum(weight * -math.log(sigmoid(a)) if v else -math.log(1 - sigmoid(a)) for a, v in known)
        wanted += 0.7 * cost / (len(known) - positive + weight * positive) / 3
        shared = sum(sigmoid(a) for a, v in known if v)
        total = sum(sigmoid(a) for a, _ in known) + positive
        wanted += 0.4 * (1 - (2 * shared + 5) / (total + 5)) / 3
    voxels = [(b, *i) for b in range(SHAPE[0]) for i in np.ndindex(SHAPE[2:])]
    known = [v for v in voxels if t[v[0], 0, v[1], v[2], v[3]] != IGNORE]
    both = [math.prod(sigmoid(x[v[0], c, v[1], v[2], v[3]]) for c in range(3)) for v in known]
    wanted += 2.0 * sum(both) / len(known)
    head = IndependentHead(("pre", "post", "union"))
    assert head.loss(logit, target, config).item() == pytest.approx(wanted, rel=1e-4)


def published_loss(logits, targets, cross_entropy, dice, most, smooth):
    """The published loss of one target, voxel by voxel, from lists over crops of (logit, 0 or 1)."""
    costs, dices, number = 0.0, 0.0, sum(len(crop) for crop in logits)
    for crop, labels in zip(logits, targets, strict=True):
        share = min(max(sum(labels) / len(labels), 1 / (1 + most)), most / (1 + most))
        ratio = 1.0 if len(set(labels)) < 2 else max(share, 1 - share) / min(share, 1 - share)
        rare = 0 if share > 0.5 else 1
        for a, label in zip(crop, labels, strict=True):
            cost = -math.log(sigmoid(a)) if label else -math.log(1 - sigmoid(a))
            costs += cost * (ratio if label == rare else 1.0)
        shared = sum(sigmoid(a) for a, label in zip(crop, labels, strict=True) if label)
        total = sum(sigmoid(a) for a in crop) + sum(labels)
        dices += 1 - (2 * shared + smooth) / (total + smooth)
    return cross_entropy * costs / number + dice * dices / len(logits)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("channels", "targets"),
    [(("pre", "post", "union"), [(0, 1, 2)]), (("foreground", "contour"), [(0,), (1,)]), (("foreground",), [(0,)])],
)
def test_the_loss_per_crop_equals_the_published_one(seed, channels, targets):
    """The channels of polarity are one target; foreground and contour are one each, and the targets add up."""
    logit, target = (a[:, : len(channels)] for a in random_case(seed))
    if seed == 1:
        target[0][target[0] != IGNORE] = 0  # a crop without foreground
    if seed == 2:
        target[1] = torch.where(target[1] == IGNORE, target[1], CERTAIN - target[1])  # one with little background
    config = LossConfig(cross_entropy=0.7, dice=0.4, max_positive_weight=3.0, dice_smooth=5.0, reduction="crop")
    x, t = logit.detach().numpy(), target.numpy()
    wanted = 0.0
    for group in targets:
        known = [t[crop, group] != IGNORE for crop in range(len(t))]
        logits = [x[crop, group][k].tolist() for crop, k in enumerate(known)]
        labels = [(t[crop, group][k] == CERTAIN).astype(int).tolist() for crop, k in enumerate(known)]
        wanted += published_loss(logits, labels, 0.7, 0.4, 3.0, 5.0)
    assert IndependentHead(channels).loss(logit, target, config).item() == pytest.approx(wanted, rel=1e-4)


def test_the_loss_per_crop_equals_torch_on_fully_labelled_crops():
    """As published: binary_cross_entropy_with_logits with the weights, mean over all voxels."""
    logit, target = random_case(3)
    level = (target == CERTAIN).float()
    weight = torch.ones_like(level)
    for crop, labels in zip(weight, level, strict=True):
        share = labels.mean()
        crop[labels == 1] = min(19.0, float((1 - share) / share))
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logit, level, weight)
    config = LossConfig(dice=0.0, max_positive_weight=19.0, reduction="crop")
    levels = (level * CERTAIN).to(torch.uint8)
    assert IndependentHead(("pre", "post", "union")).loss(logit, levels, config).item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("seed", range(4))
def test_exclusive_loss_equals_the_loop(seed):
    logit, target = random_case(seed, logits=4)
    config = LossConfig(cross_entropy=0.7, dice=0.0, max_positive_weight=3.0)
    x, t = logit.detach().numpy(), target.numpy()
    cases = []
    for b in range(SHAPE[0]):
        for i in np.ndindex(SHAPE[2:]):
            pre, post, union = (t[(b, c, *i)] for c in range(3))
            if pre != IGNORE:
                label = 1 if pre else 2 if post else 3 if union else 0
                values = [x[(b, k, *i)] for k in range(4)]
                cases.append((label, -values[label] + math.log(sum(math.exp(v) for v in values))))
    count = [sum(k == label for label, _ in cases) for k in range(4)]
    weight = [1.0, *(min(max(count[0] / n, 1.0), 3.0) if n else 1.0 for n in count[1:])]
    wanted = 0.7 * sum(weight[k] * cost for k, cost in cases) / sum(weight[k] for k, _ in cases)
    assert ExclusiveHead().loss(logit, target, config).item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize(
    ("head", "reduction"),
    [(HEADS[0], "batch"), (HEADS[1], "batch"), (HEADS[0], "crop")],
    ids=["each", "exclusive", "crop"],
)
def test_ignored_voxels_have_no_gradient_and_do_not_change_the_loss(head, reduction):
    logit, target = random_case(0, head.num_logits)
    config = LossConfig(non_overlap=1.0, reduction=reduction)
    loss = head.loss(logit, target, config)
    loss.backward()
    hidden = (target[:, :1] == IGNORE).expand_as(logit)
    assert (logit.grad[hidden] == 0).all() and (logit.grad[~hidden] != 0).any()
    other = logit.detach().clone()
    other[hidden] += 5
    assert head.loss(other, target, config).item() == pytest.approx(loss.item())
    assert head.loss(logit, torch.full_like(target, IGNORE), config).item() == 0


@pytest.mark.parametrize(
    "head", [IndependentHead(("pre", "post", "union")), ExclusiveHead()], ids=["each", "exclusive"]
)
def test_a_head_built_from_its_description_gives_the_same_probabilities(head):
    logit, _ = random_case(1, head.num_logits)
    probability = head_of(head.description).probability(logit)
    assert probability.shape == SHAPE and probability.min() >= 0 and probability.max() <= 1
    assert torch.equal(probability, head.probability(logit))
    if isinstance(head, ExclusiveHead):  # the union is 1 - P(background), so it holds both sides
        assert (probability[:, 2] + 1e-6 >= probability[:, 0] + probability[:, 1]).all()


def test_the_loss_of_a_distance_channel_is_its_squared_error():
    head = IndependentHead(("foreground", "distance"))
    logit = torch.zeros(1, 2, 1, 1, 3)
    target = torch.tensor([[[[[IGNORE] * 3]], [[[0, CERTAIN, IGNORE]]]]], dtype=torch.uint8)
    assert head.loss(logit, target, LossConfig(distance=4.0)).item() == pytest.approx(4 * 0.25)


def test_overlapping_sides_are_penalised_and_the_union_gets_no_gradient():
    probability = torch.full((1, 3, 1, 1, 1), 0.5, requires_grad=True)
    cost = non_overlap(probability, torch.ones(1, 3, 1, 1, 1))
    cost.backward()
    assert cost.item() == pytest.approx(0.125)
    assert probability.grad.ravel().tolist() == pytest.approx([0.25, 0.25, 0.0])


def test_a_perfect_mask_has_no_dice_loss():
    wanted = torch.zeros(1, 1, 2, 4, 4)
    wanted[..., :2] = 1
    everywhere = torch.ones_like(wanted)
    assert dice_loss(wanted, wanted, everywhere, 1.0).item() == pytest.approx(0)
    assert dice_loss(1 - wanted, wanted, everywhere, 1.0).item() > 0.9
    assert dice_loss(1 - wanted, wanted, 0 * everywhere, 1.0).item() == 0


@pytest.mark.parametrize("head", HEADS, ids=["each", "exclusive"])
def test_graded_targets_have_the_gradient_of_a_cross_entropy(head):
    """Pseudo-labels are targets like any other: d cross-entropy / d logit = probability - target."""
    soft_target = head.probability(random_case(5, head.num_logits)[0].detach())
    level = torch.round(soft_target * CERTAIN).to(torch.uint8)
    soft_target = level / CERTAIN
    student = torch.zeros(len(soft_target), head.num_logits, *soft_target.shape[2:], requires_grad=True)
    head.loss(student, level, LossConfig(dice=0.0, max_positive_weight=1.0)).backward()
    if head.num_logits == 3:
        wanted = (0.5 - soft_target) / (soft_target.numel() / 3) / 3
    else:
        pre, post, union = soft_target.unbind(1)
        share = torch.stack([1 - union, pre, post, union - pre - post], 1)
        wanted = (0.25 - share) / (share.numel() / 4)
    torch.testing.assert_close(student.grad, wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("head", "reduction"),
    [(HEADS[0], "batch"), (HEADS[1], "batch"), (HEADS[0], "crop")],
    ids=["each", "exclusive", "crop"],
)
def test_a_voxel_of_weight_three_counts_as_three_voxels(head, reduction):
    """The first voxel along X, once with weight 3, gives the same loss as the same voxel repeated three times."""
    logit, target = random_case(2, head.num_logits)
    config = LossConfig(non_overlap=1.0, reduction=reduction)
    weight = torch.ones(len(logit), 1, *logit.shape[2:])
    weight[..., 0] = 3
    tripled = [torch.cat([a[..., :1], a[..., :1], a], -1) for a in (logit, target)]
    weighted = head.loss(logit, target, config, weight)
    assert weighted.item() == pytest.approx(head.loss(*tripled, config).item(), rel=1e-5)
    assert head.loss(logit, target, config, torch.ones_like(weight)).item() == pytest.approx(
        head.loss(logit, target, config).item()
    )


def test_exclusive_classes_have_no_published_loss():
    with pytest.raises(ValueError, match=r"loss\.reduction is crop.*set exclusive to false"):
        SegmentationConfig(exclusive=True, loss=LossConfig(reduction="crop"))
