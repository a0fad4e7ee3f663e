"""Drafts: generated specs that wait for a person, and those that did not pass the checks.

`<home>/drafts/<project>/<id>.md` is the spec, which a person may edit; `<id>.json` beside it says
why it is there. Blocking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dispatch_controller.core import ids
from dispatch_controller.factory.files import read_json, write_json, write_new

HELD = "held"
"""It passed, and waits for approval (dry_run)."""
REJECTED = "rejected"
MOST_REJECTED = 100
"""Rejected drafts that are kept for a project; the oldest ones go."""


@dataclass(frozen=True, slots=True)
class Draft:
    id: str
    project: str
    state: str
    reason: str
    generator: str
    generation: int
    at: str
    """When it was written, ISO 8601."""
    evidence_key: str | None = None
    digest: str | None = None
    evidence: tuple[str, ...] = ()


class Drafts:
    """The drafts folder of a home."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def save(self, draft: Draft, text: str) -> Path:
        """Keep a draft; return its file. Raises OSError."""
        path = self.path(draft.project, draft.id)
        write_json(path.with_suffix(".json"), asdict(draft))
        write_new(path, text)
        if draft.state == REJECTED:
            self._prune(draft.project)
        return path

    def all(self, project: str | None = None) -> list[Draft]:
        """Return the drafts by project and id."""
        found = []
        for folder in _sorted(self._root):
            if folder.is_dir() and project in (None, folder.name):
                found += [
                    _draft(path, folder.name)
                    for path in _sorted(folder)
                    if path.suffix == ".md" and not path.name.startswith(".")
                ]
        return found

    def text(self, project: str, draft_id: str) -> str:
        """Return what the file says. Raises OSError (FileNotFoundError where there is none)."""
        return self.path(project, draft_id).read_bytes().decode("utf-8-sig", "replace")

    def get(self, project: str, draft_id: str) -> Draft:
        """Return a draft. Raises FileNotFoundError."""
        path = self.path(project, draft_id)
        if not path.is_file():
            raise FileNotFoundError(path)
        return _draft(path, project)

    def remove(self, project: str, draft_id: str) -> None:
        path = self.path(project, draft_id)
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)

    def path(self, project: str, draft_id: str) -> Path:
        """Return where a draft lies. Raises FileNotFoundError for what cannot be an id."""
        if ids.problem(project) or ids.problem(draft_id):
            raise FileNotFoundError(f"{project}/{draft_id}")
        return self._root / project / f"{draft_id}.md"

    def _prune(self, project: str) -> None:
        rejected = [draft for draft in self.all(project) if draft.state == REJECTED]
        rejected.sort(key=lambda draft: (draft.at, draft.id))
        for draft in rejected[: max(0, len(rejected) - MOST_REJECTED)]:
            self.remove(project, draft.id)


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _draft(path: Path, project: str) -> Draft:
    data: Mapping[str, Any] = read_json(path.with_suffix(".json"))
    generation, evidence = data.get("generation"), data.get("evidence")
    state, key, digest = data.get("state"), data.get("evidence_key"), data.get("digest")
    return Draft(
        id=path.stem,
        project=project,
        state=HELD if state == HELD else REJECTED,
        reason=str(data.get("reason", "what was known of it is lost")),
        generator=str(data.get("generator", "unknown")),
        generation=generation if isinstance(generation, int) else 0,
        at=str(data.get("at", "")),
        evidence_key=key if isinstance(key, str) else None,
        digest=digest if isinstance(digest, str) else None,
        evidence=tuple(map(str, evidence)) if isinstance(evidence, list) else (),
    )
