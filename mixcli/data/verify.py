"""verify.py: what lies under the data directory against what was published: sums of files, or counts of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixcli.data import sources
from mixcli.data.downloads import Published
from mixcli.data.fetch import sum_of
from mixcli.errors import UserError
from mixcli.recipe import SIDES, Train

OK, DIFFERS, MISSING, INCOMPLETE = "md5 ok", "md5 differs", "missing", "not as published"


@dataclass(frozen=True)
class Check:
    """One file or folder: its path below the data directory, what was found, and in numbers."""

    file: str
    state: str
    told: str = ""

    @property
    def failed(self) -> bool:
        return self.state in (DIFFERS, MISSING, INCOMPLETE)


def verify(name: str, known: Published, data: Path) -> list[Check]:
    """What can be checked of a set, every byte of what has a published sum.

    Raises UserError: data_missing where nothing of it is there; data_corrupt where its layout is not one that is read.
    """
    checks = [_compared(data, one.file, one.md5) for one in known.downloads
              if one.file not in known.sums and (data / one.file).is_file()]  # fmt: skip
    if any((data / file).is_file() for file in known.sums):
        return [*checks, *(_compared(data, file, sum_) for file, sum_ in known.sums.items())]
    if name in sources.KNOWN:
        return [*checks, _counted(name, data)]
    if not checks:
        raise UserError("data_missing", name, f"not found under {data}", hint=f"mixcli data fetch {name}")
    return checks


def _compared(data: Path, file: str, expected: str) -> Check:
    if not (data / file).is_file():
        return Check(file, MISSING)
    got = sum_of(data / file)
    return Check(file, OK if got == expected else DIFFERS, got)


def _counted(name: str, data: Path) -> Check:
    """A set without sums of its own, by its images; none is decoded."""
    train = Train.model_validate({"dataset": name, "data_dir": str(data)})
    path, known = sources.locate(train), sources.KNOWN[name]
    assert path is not None
    if path.is_dir() and name in SIDES:  # listed for a side that any memory holds
        train = train.model_copy(update={"resize": 8})
    facts = sources.look(train)
    whole = (facts.images, facts.test_images) == (known.images, known.test_images)
    told = f"{facts.images} training and {facts.test_images} test images"
    if not whole:
        told += f", published {known.images} and {known.test_images}"
    return Check(str(path.relative_to(data)), "complete, no published sum" if whole else INCOMPLETE, told)
