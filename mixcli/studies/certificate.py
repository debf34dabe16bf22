"""certificate.py: a mixing or method put through every law, measured beside MixUp, and drawn: what `check` finds.

A law that is not met, or that a crash ends, is broken, with one line of what was found; the others go on. The cost is a
measurement and no law.
"""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mixcli import own_code
from mixcli.engine import device
from mixcli.errors import UserError, printable
from mixcli.mixing import foreign
from mixcli.recipe import Train
from mixcli.settings import Method, Mixing, MixUp
from mixcli.studies import contact_sheet, laws
from mixcli.studies.bench import mixing_cost

HOLDS, BROKEN, EXCUSED = "holds", "broken", "not applicable"


@dataclass(frozen=True)
class Finding:
    """What became of one law: `verdict` is holds, broken or not applicable; `evidence` one line."""

    law: laws.Law
    verdict: str
    evidence: str

    def row(self) -> dict[str, str]:
        return {"law": self.law.name, "claim": self.law.claim, "row": self.law.row, "verdict": self.verdict,
                "evidence": self.evidence}  # fmt: skip


@dataclass(frozen=True)
class Certificate:
    """What was found of one method.

    cost   beside MixUp, see `mixing_cost.beside`; None for what is no mixing, or cannot be measured
    sheet  None for what is no mixing, or cannot be drawn
    """

    method: Method
    findings: tuple[Finding, ...]
    cost: Mapping[str, Any] | None
    sheet: contact_sheet.Sheet | None
    environment: Mapping[str, Any]

    @property
    def broken(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict == BROKEN)

    def error(self) -> UserError | None:
        """What `check` ends with where a law is broken."""
        if not self.broken:
            return None
        names, more = ", ".join(finding.law.name for finding in self.broken[:3]), len(self.broken) - 3
        names += f" and {more} more" if more > 0 else ""
        count = f"{len(self.broken)} {'law is' if len(self.broken) == 1 else 'laws are'} broken"
        return UserError("broken_laws", self.method.label(), count, hint=names)

    def document(self) -> dict[str, Any]:
        verdicts = [finding.verdict for finding in self.findings]
        return {
            "method": self.method.label(), "reference": self.method.reference or self.method.name,
            "summary": self.method.summary, **{name: verdicts.count(name) for name in (HOLDS, BROKEN, EXCUSED)},
            "laws": [finding.row() for finding in self.findings], "cost": self.cost, "environment": self.environment,
        }  # fmt: skip


def certify(train: Train, images: int, told: Callable[[int, int], None] = lambda done, of: None) -> Certificate:
    """Tries every law on the method of these settings.

    images  on the contact sheet, of the settings' data set
    told    is called after each law with how many are done
    """
    method, findings = train.method, []
    asked = [*(laws.MIXING_LAWS if isinstance(method, Mixing) else []), *laws.METHOD_LAWS]
    for law in asked:
        findings.append(_tried(law, method))
        told(len(findings), len(asked))
    cost = sheet = None
    if isinstance(method, Mixing):
        other = MixUp.model_validate({"per": getattr(method, "per", "batch")})
        cost = _or_none(lambda: {**mixing_cost.beside(method, other), "calls": _calls(method)})
        with foreign.seeded(0):
            sheet = _or_none(lambda: contact_sheet.sheet(contact_sheet.per_image(train), images))
    environment = device.prepare(train.model_copy(update={"device": "cpu"})).describe()
    return Certificate(method, tuple(findings), cost, sheet, environment)


def _calls(method: Mixing) -> int | None:
    """How often an adapter calls the library that it shows, to draw, to mix and for the targets; None without one."""
    return 3 if isinstance(laws.drawn(method), foreign.Foreign) else None


def _tried(law: laws.Law, method: Method) -> Finding:
    with warnings.catch_warnings(), foreign.seeded(0):  # the card of what draws from global generators repeats too
        warnings.simplefilter("ignore")  # of libraries, about what a law does on purpose
        try:
            return Finding(law, HOLDS, law.holds(method))
        except laws.Broken as found:
            return Finding(law, BROKEN, str(found))
        except laws.Excused as why:
            return Finding(law, EXCUSED, str(why))
        except Exception as error:
            return Finding(law, BROKEN, _crash(error, method))


def _crash(error: Exception, method: Method) -> str:
    """Kind and message of an exception, and the last line of the method's own file on its way."""
    own = own_code.file_of(type(method))
    lines = [f"line {f.lineno}: " for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
    told = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    why = re.search(r"reason: (.+?)[)`]*$", str(error), re.MULTILINE)  # dynamo's, of what it was told not to trace
    text = re.sub(r"(?:/[^\s/`'\"]+)+/(?=[^\s/])", "", why.group(1) if why else told[0])  # no folders of this machine
    return printable(f"{lines[-1] if lines else ''}{type(error).__name__}: {text}", limit=200)


def _or_none(call: Callable[[], Any]) -> Any:
    """What a call gives; None where the mixing crashes, which its laws have told. What users can mend is raised."""
    try:
        return call()
    except UserError:
        raise
    except Exception:
        return None
