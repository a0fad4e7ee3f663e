"""Candidates: what a generator wrote, measured as hand-written specs are, and more.

A candidate that passes is written anew from its parsed fields, so that nothing but those gets
into a spec file, with its id and its marks: generated_by, generation, evidence, evidence_key.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from dispatch_controller.core import fields, front_matter, paths
from dispatch_controller.core.spec import (
    DEFAULT_EXECUTOR,
    DEFAULT_MINUTES,
    DEFAULT_PRIORITY,
    DEFAULT_RETRIES,
    LEAST_TIMEOUT,
    Document,
    Spec,
    SpecError,
    parse,
)

_NAME = "S0-candidate.md"
"""Named like a spec, so that front matter without a task_id is one."""
MOST = 100
"""Candidates of one answer at most."""

_MOST_EVIDENCE = 20
_START = re.compile(
    r"^---[ \t]*\n(?=[\"']?(?:task_id|title|project|priority|estimated_minutes|depends_on|modifies"
    r"|verify|evidence|evidence_key|executor|exclusive)[\"']?[ \t]*:)",
    re.MULTILINE,
)
_OPEN = re.compile(r"^<spec>[ \t]*$", re.MULTILINE)
_CLOSE = re.compile(r"^</spec>[ \t]*$", re.MULTILINE)
_ACCEPTANCE = re.compile(r"acceptance|done when|definition of done|验收", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
_CITED_PLACE = re.compile(r"([^\s:`'\"()\[\]]+):[0-9]+")
_CITED_TASK = re.compile(r"\btask[: ]+([A-Za-z0-9][A-Za-z0-9._@-]*)", re.ASCII | re.IGNORECASE)
_CITED_LINK = re.compile(r"https?://[^\s)>\]\"']+")


@dataclass(frozen=True, slots=True)
class Candidate:
    """The text of one spec. `complete` is false where the answer broke off inside it."""

    text: str
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Accepted:
    spec: Spec
    evidence: tuple[str, ...]
    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Repeated:
    """The same evidence was used before."""

    key: str


@dataclass(frozen=True, slots=True)
class Rejected:
    reason: str


Verdict = Accepted | Repeated | Rejected


@dataclass(frozen=True, slots=True)
class Measure:
    """What a project's candidates are measured against."""

    project: str
    seen: Collection[str]
    tasks: Collection[str]
    """Ids, registered and as written."""
    exists: Callable[[str], bool] | None
    """Whether a path is in the checkout; None where there is none to look at."""
    links: Collection[str] = ()
    """Addresses that the research notes named."""


def split(answer: str, *, whole: bool = True) -> list[Candidate]:
    """Return the specs in a generator's answer; prose around them is passed over.

    Either each stands between lines <spec> and </spec>, or each begins with its front matter.
    `whole` says whether the answer itself came to its end.
    """
    text = answer.replace("\r\n", "\n").replace("\r", "\n")
    if _OPEN.search(text):
        return _between_tags(text)
    starts = [found.start() for found in islice(_START.finditer(text), MOST)]
    ends = [*starts, len(text)][1:]
    pieces = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        piece = text[start:end].rstrip()
        before = text[max(0, start - 100) : start].rstrip()
        if before.rpartition("\n")[2].startswith("```"):
            piece = _without_fence(piece)
        pieces.append(Candidate(piece + "\n", whole or number < len(starts) - 1))
    return pieces


def _between_tags(text: str) -> list[Candidate]:
    pieces: list[Candidate] = []
    position = 0
    while len(pieces) < MOST and (opening := _OPEN.search(text, position)) is not None:
        following = _OPEN.search(text, opening.end())
        limit = following.start() if following else len(text)
        closing = _CLOSE.search(text, opening.end(), limit)
        inside = text[opening.end() : closing.start() if closing else limit]
        pieces.append(Candidate(inside.strip("\n") + "\n", closing is not None))
        position = closing.end() if closing else limit
    return pieces


def _without_fence(piece: str) -> str:
    """Take off what follows the end of the fence that the spec itself stands in."""
    lines = piece.split("\n")
    inside = False
    for number, line in enumerate(lines):
        if line.startswith("```"):
            if line.strip() == "```" and not inside:
                return "\n".join(lines[:number]).rstrip()
            inside = not inside
    return piece


def check(candidate: Candidate, measure: Measure) -> Verdict:
    """Return what is to become of a candidate. Calls `measure.exists`, which may block."""
    if not candidate.complete:
        return Rejected("the answer broke off inside this spec")
    text = _CONTROL.sub("", candidate.text)
    parsed = parse(
        _NAME,
        text.encode(),
        project=measure.project,
        default_project=measure.project,
    )
    match parsed:
        case Document():
            return Rejected("no front matter")
        case SpecError():
            return Rejected(f"line {parsed.line}: {parsed.reason}")
        case Spec():
            return _check(parsed, text, measure)


def _check(spec: Spec, text: str, measure: Measure) -> Verdict:
    if spec.warnings:
        return Rejected("; ".join(spec.warnings))
    try:
        evidence = evidence_of(text)
    except fields.Odd as odd:
        return Rejected(f"evidence: {odd.reason}")
    if not evidence:
        return Rejected("evidence is missing: cite file and line, task and error, or a link")
    digest = digest_of(evidence)
    key = (spec.evidence_key or digest)[:200]
    if key in measure.seen or digest in measure.seen:
        return Repeated(key)
    if not spec.title:
        return Rejected("it has neither a title nor a heading")
    if paths.WHOLE_PROJECT in map(paths.normalise, spec.modifies):
        return Rejected("modifies names the whole project; name the files")
    if not spec.verify and not _has_acceptance(spec.body):
        return Rejected(
            "neither verify nor an acceptance section: nobody could tell when it is done"
        )
    if len(spec.body.strip()) < 20:
        return Rejected("the text below the front matter says too little")
    unknown = [other for other in spec.depends_on if other not in measure.tasks]
    if unknown:
        return Rejected(f"depends_on names no known task: {', '.join(unknown[:5])}")
    if not any(_holds(item, measure) for item in evidence):
        return Rejected(
            "no evidence can be found: "
            + "; ".join(evidence)[:300]
            + " names no file:line of the checkout, no task of the project, no link of its notes"
        )
    return Accepted(spec, evidence, key, digest)


def _has_acceptance(body: str) -> bool:
    """Whether something stands under a heading that speaks of acceptance."""
    under = False
    for line in body.splitlines():
        if line.startswith("#"):
            under = _ACCEPTANCE.search(line[:200]) is not None
        elif under and line.strip():
            return True
    return False


def evidence_of(text: str) -> tuple[str, ...]:
    """Return what the front matter of a spec cites. Raises fields.Odd."""
    block = front_matter.split(text)
    keys = (front_matter.load(block) if block is not None and block.closed else None) or {}
    _, node = keys.get("evidence", (0, None))
    if node is None:
        return ()
    if isinstance(node, front_matter.Sequence):
        found = [fields.text(item) for item in node.items]
    else:
        found = fields.text(node).splitlines()
    cleaned = [" ".join(item.split())[:500] for item in found]
    return tuple(item for item in cleaned if item)[:_MOST_EVIDENCE]


def _holds(item: str, measure: Measure) -> bool:
    if any(found in measure.tasks for found in _CITED_TASK.findall(item)):
        return True
    if any(link.rstrip(".,;") in measure.links for link in _CITED_LINK.findall(item)):
        return True
    if measure.exists is None:
        return False
    return any(
        paths.problem(place) is None and measure.exists(place)
        for place in _CITED_PLACE.findall(item)
    )


def digest_of(evidence: Sequence[str]) -> str:
    """Return a key made of the evidence itself, whatever order it stands in."""
    joined = "\n".join(sorted(" ".join(item.split()).casefold() for item in evidence))
    return "sha:" + hashlib.sha256(joined.encode()).hexdigest()[:24]


def slug(title: str) -> str:
    """Return what of a title can be in an id."""
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return words[:40].rstrip("-") or "spec"


def compose(
    accepted: Accepted,
    task_id: str,
    *,
    generated_by: str,
    generation: int,
    executor: str | None,
) -> str:
    """Return the text of the spec file."""
    spec = replace(accepted.spec, task_id=task_id)
    own = spec.executor if spec.executor != DEFAULT_EXECUTOR else None
    chosen = executor or own
    odd: dict[str, tuple[object, object]] = {
        "priority": (spec.priority, DEFAULT_PRIORITY),
        "estimated_minutes": (spec.estimated_minutes, DEFAULT_MINUTES),
        "depends_on": (list(spec.depends_on), []),
        "exclusive": (spec.exclusive, False),
        "executor": (chosen, None),
        "max_retries": (spec.max_retries, DEFAULT_RETRIES),
        "timeout_minutes": (
            spec.timeout_minutes,
            max(LEAST_TIMEOUT, 4 * spec.estimated_minutes),
        ),
        "verify": (spec.verify, None),
    }
    keys: dict[str, object] = {
        "task_id": task_id,
        "project": spec.project,
        "title": spec.title,
        "modifies": list(spec.modifies),
        **{name: value for name, (value, default) in odd.items() if value != default},
        "generated_by": generated_by,
        "generation": generation,
        "evidence_key": accepted.key,
        "evidence": list(accepted.evidence),
    }
    lines = [f"{name}: {yaml_value(value)}" for name, value in keys.items()]
    body = spec.body.strip()
    if not re.search(r"^# ", body, re.MULTILINE):
        body = f"# {spec.title}\n\n{body}"
    return "\n".join(["---", *lines, "---", "", body, ""])


def yaml_value(value: object) -> str:
    """Return a value as JSON, which YAML reads as well."""
    if isinstance(value, list):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    if isinstance(value, str):
        value = _CONTROL.sub("", value)
    return json.dumps(value, ensure_ascii=False)
