"""means.py: what the cells of a corruption benchmark come to: means, families, and ratios to a baseline.

D. Hendrycks, T. Dietterich 2019, arXiv 1903.12261. `mean15` is the mean over the 15 standard corruptions of the mean
over 5 severities of top-1 accuracy, `mean19` that over all 19, `mean14` that over the 15 without frost,
`mean_available` that over all that a size offers. The field mixes them, so a mean that cannot be stated is null and
says why. All are shares, 0 to 1. Nothing is called mCE that is not divided by a named baseline.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixcli.corruptions.catalogue import SEVERITIES, SUBSTITUTES
from mixcli.corruptions.parameters import EXTRA, FAMILIES, NAMES, STANDARD
from mixcli.errors import UserError

Cell = tuple[str, int]  # corruption, severity
CALIBRATION = ("nll", "brier", "ece15", "ece_adaptive", "rms_adaptive", "conf_minus_acc")
MEANS = ("mean15", "mean19", "mean14", "mean_available")
WITHOUT_FROST = tuple(name for name in STANDARD if name != "frost")


@dataclass(frozen=True)
class Panel:
    """Which cells a benchmark has.

    names           the corruptions evaluated
    severities      those evaluated
    offered         the corruptions that a whole evaluation would have
    column          of the parameters; "tiny" and one channel have headlines of their own
    channels        of the images
    not_available   applicable corruptions that cannot be made
    not_applicable  left out at this size
    """

    names: tuple[str, ...]
    severities: tuple[int, ...]
    offered: tuple[str, ...]
    column: str
    channels: int
    not_available: tuple[str, ...] = ()
    not_applicable: tuple[str, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        return [(name, severity) for name in self.names for severity in self.severities]

    @property
    def partial(self) -> bool:
        return self.severities != SEVERITIES or set(self.names) != set(self.offered)

    @property
    def headline(self) -> str:
        """The one mean that stands for this panel."""
        if self.column == "tiny":
            return "mean_available"
        return "mean15" if "frost" in self.offered and self.channels == 3 else "mean14"

    def of(self, mean: str) -> tuple[str, ...]:
        """The corruptions that a mean is taken over."""
        over = {"mean15": STANDARD, "mean19": NAMES, "mean14": WITHOUT_FROST, "mean_available": self.names}
        return over[mean]

    def told(self, mean: str) -> str:
        """What people call it."""
        if mean == "mean_available":
            substituted = sum(name in SUBSTITUTES.values() for name in self.names)
            kinds = f"{len(self.names) - substituted} reference + {substituted} substituted"
            kinds = "tiny profile" if self.column == "tiny" else kinds if substituted else "all available"
            return f"mean of {len(self.names)} ({kinds})"
        if mean == "mean14":
            return f"mean of 14 ({'1 channel' if self.channels == 1 else 'without frost'})"
        return f"mean acc ({mean.removeprefix('mean')})"

    def reason(self, mean: str) -> str | None:
        """Why a mean is null; None where it is not."""
        if self.partial:
            return "a partial list of corruptions or severities"
        missing = [name for name in self.of(mean) if name not in self.names]
        if not missing:
            return None
        kinds: dict[str, list[str]] = {}
        for name in missing:
            kinds.setdefault(self._lack(name), []).append(name)
        return "; ".join(f"{', '.join(names)} {kind}" for kind, names in kinds.items())

    def _lack(self, name: str) -> str:
        if name in self.not_applicable:
            return "not applicable"
        if name in self.not_available:
            return "not available"
        return f"substituted by {SUBSTITUTES[name]}" if SUBSTITUTES.get(name) in self.names else "not in the folder"


def means(panel: Panel, cells: Mapping[Cell, Mapping[str, Any]]) -> dict[str, Any]:
    """The four means, and those of corruptions, families, severities and calibration; null where partial.

    cells  (corruption, severity) -> its scores, with `top1` and those of `CALIBRATION`
    """
    over = panel.of(panel.headline)
    reasons = {mean: panel.reason(mean) for mean in MEANS}
    top1 = {name: _mean(cells[name, s]["top1"] for s in panel.severities) for name in panel.names}
    whole = reasons[panel.headline] is None
    return {
        **{mean: None if reasons[mean] else _mean(top1[name] for name in panel.of(mean)) for mean in MEANS},
        "headline": panel.headline,
        "headline_told": panel.told(panel.headline),
        "available_told": panel.told("mean_available"),
        "reasons": {mean: reason for mean, reason in reasons.items() if reason},
        "corruptions": {
            name: {
                "mean": None if panel.severities != SEVERITIES else top1[name],
                "severities": {str(s): cells[name, s]["top1"] for s in panel.severities},
            }
            for name in panel.names
        },
        "families": {family: _family(panel, top1, members) for family, members in FAMILIES.items()},
        "severities": {str(s): _mean(cells[n, s]["top1"] for n in over) if whole else None for s in SEVERITIES},
        "calibration": {
            key: _mean(cells[n, s][key] for n in over for s in SEVERITIES) if whole else None for key in CALIBRATION
        },
    }


def _family(panel: Panel, top1: Mapping[str, float], members: Sequence[str]) -> dict[str, Any]:
    """The mean of a family over its standard corruptions, and over how many; the extra ones stand beside."""
    standard = [name for name in members if name in STANDARD and name in top1]
    mean = None if panel.partial or not standard else _mean(top1[name] for name in standard)
    extra = [name for name in members if name in EXTRA and name in top1]
    return {"mean": mean, "of": len(standard), "standard": standard, "extra": extra}


def mean_without(panel: Panel, cells: Mapping[Cell, Mapping[str, Any]], seen: Iterable[str]) -> float | None:
    """The headline over the corruptions that were not met in training."""
    left = [name for name in panel.of(panel.headline) if name not in set(seen)]
    if panel.reason(panel.headline) or not left:
        return None
    return _mean(cells[name, s]["top1"] for name in left for s in SEVERITIES)


def relative(
    panel: Panel, scores: Mapping[Cell, float], base: Mapping[Cell, float], clean: tuple[float | None, float | None],
    name: str,
) -> dict[str, Any]:  # fmt: skip
    """Errors as ratios to those of a baseline on the same cells: CE of each corruption, their mean, and relative mCE.

    scores, base  top-1 accuracy of each cell, of the net and of the baseline; corruptions that the baseline lacks have
                  no ratio
    clean         clean accuracy of both; None where unknown, and then nothing is relative to it
    Raises UserError: data_corrupt for a baseline without an error.
    """
    ratios, gains = {}, {}
    severity = panel.severities[0]
    for corruption in (name for name in panel.names if (name, severity) in base):
        mine, theirs = (sum(1 - found[corruption, s] for s in panel.severities) for found in (scores, base))
        if theirs == 0:
            raise UserError("data_corrupt", name, f"{corruption} has error 0, ratio undefined")
        ratios[corruption] = mine / theirs
        if None not in clean:
            drops = [
                e - len(panel.severities) * (1 - c) for e, c in zip((mine, theirs), clean, strict=True) if c is not None
            ]
            gains[corruption] = None if drops[1] == 0 else drops[0] / drops[1]
    over = panel.of(panel.headline)
    whole = panel.reason(panel.headline) is None
    known = gains and all(gains.get(n) is not None for n in over)
    return {
        "baseline": name,
        "told": f"{'mCE' if panel.headline == 'mean15' else f'mean CE of {len(over)}'} vs {name}",
        "mce": _mean(ratios[n] for n in over) if whole else None,
        "relative_mce": _mean(gains[n] for n in over) if whole and known else None,
        "ce": ratios,
    }


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)
