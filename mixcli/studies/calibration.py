"""calibration.py: whether a net's confidence can be believed: proper scores, calibration errors and their floor.

Sources: Brier 1950 (`brier`, summed over the classes, 0 to 2); Naeini, Cooper, Hauskrecht 2015 (`ece15`, 15 bins of
equal width); Nguyen and O'Connor 2015 (`ece_adaptive`, `rms_adaptive`, bins of equal count); Guo et al. 2017, arXiv
1706.04599 (`temperature`). Chosen: logits go to float64 before the softmax, since float32 saturates at a margin of 17
and saturated confidences would meet in one bin; bins are closed on the right, so a confidence of 1 lies in the last.
A perfectly calibrated net has an error above 0 on a finite number of images: `floor` says how much.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from mixcli.sampling import Random

BINS = 15  # of equal width
BIN = 100  # images in a bin of equal count; what is left over joins the last
BIASED_BELOW = 1000  # images; with fewer the three errors are noticeably too large


@dataclass(frozen=True)
class Calibration:
    """Scores of one set of images.

    n               images
    correct         of them, the most probable class is theirs
    top1, top5      shares, 0 to 1; top5 of as many classes as there are, if fewer
    nll             mean negative log-likelihood, nats
    brier           mean over images of the squared distance to the one-hot label, 0 to 2
    ece15           expected calibration error, bins of equal width, 0 to 1
    ece_adaptive    the same over bins of equal count
    rms_adaptive    root of the weighted mean square over these bins
    conf_minus_acc  mean confidence minus accuracy: above 0 a net is over-confident
    """

    n: int
    correct: int
    top1: float
    top5: float
    nll: float
    brier: float
    ece15: float
    ece_adaptive: float
    rms_adaptive: float
    conf_minus_acc: float

    def row(self) -> dict[str, float]:
        return asdict(self)


def calibration(logits: Tensor, labels: Tensor) -> Calibration:
    """Scores of (n, classes) logits against (n,) labels. Raises ValueError where a logit is not finite."""
    if not bool(torch.isfinite(logits).all()):
        raise ValueError(f"non-finite logits in {int((~torch.isfinite(logits)).any(1).sum())} images")
    log_p = logits.double().log_softmax(1)
    p, n = log_p.exp(), len(labels)
    confidence, hit = p.max(1).values, p.argmax(1) == labels
    top5 = p.topk(min(5, p.shape[1]), 1).indices.eq(labels[:, None]).any(1)
    brier = (p.square().sum(1) - 2 * p.gather(1, labels[:, None])[:, 0] + 1).mean()
    sure, right = confidence.cpu().numpy(), hit.cpu().numpy()
    gaps, weights = adaptive_gaps(sure, right)
    return Calibration(
        n, int(right.sum()), float(right.mean()), float(top5.double().mean()),
        nll=float(-log_p.gather(1, labels[:, None]).mean()), brier=float(brier),
        ece15=float(ece15(sure, right)), ece_adaptive=float(weights @ np.abs(gaps)),
        rms_adaptive=float(math.sqrt(weights @ gaps**2)), conf_minus_acc=float(sure.mean() - right.mean()),
    )  # fmt: skip


def reliability(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the 15 bins of equal width: images (15,), mean confidence and accuracy (15,), NaN where a bin is empty."""
    place = _bin(confidence)
    counts = np.bincount(place, minlength=BINS)
    with np.errstate(invalid="ignore"):
        sure, right = (np.bincount(place, values, BINS) / counts for values in (confidence, correct.astype(float)))
    return counts, sure, right


def ece15(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Expected calibration error over 15 bins of equal width; (..., n) correctness in, (...) out."""
    place = np.eye(BINS)[_bin(confidence)]  # (n, 15)
    return np.abs((correct - confidence) @ place).sum(-1) / len(confidence)


def adaptive_gaps(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy minus confidence of each bin of 100 images by confidence, ties by their order, and each bin's weight."""
    order = np.argsort(confidence, kind="stable")
    starts = np.arange(max(1, len(order) // BIN)) * BIN
    counts = np.diff(np.append(starts, len(order)))
    return np.add.reduceat((correct - confidence)[order], starts) / counts, counts / len(order)


def floor(confidence: np.ndarray, random: Random, draws: int = 200) -> tuple[float, float, float]:
    """`ece15` of a perfectly calibrated net with these confidences: mean and the 2.5 and 97.5 % points over draws.

    Each draw makes every image right with the chance that its confidence states.
    """
    right = random.host.random((draws, len(confidence))) < confidence
    errors = ece15(confidence, right)
    low, high = np.quantile(errors, [0.025, 0.975])
    return float(errors.mean()), float(low), float(high)


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The T > 0 whose logits / T have the least nll; to be fitted on a validation split, never on test images."""
    logits, labels = logits.double().cpu(), labels.cpu()

    def nll(log_t: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / math.exp(log_t), labels))

    found = minimize_scalar(nll, bounds=(math.log(0.02), math.log(50)), method="bounded", options={"xatol": 1e-6})
    return math.exp(float(found.x))  # type: ignore[attr-defined]


def _bin(confidence: np.ndarray) -> np.ndarray:
    """The bin (k / 15, (k + 1) / 15] of each confidence; rounding names no sixteenth."""
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
