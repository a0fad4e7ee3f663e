"""What generators are told of a project: as JSON for programs, as a prompt for models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from string import Template
from typing import Any

from dispatch_controller.core import gaps
from dispatch_controller.factory.generator import GeneratorFailed, Request

SHIPPED = Path(__file__).with_name("prompt.md")
_MOST_FILES = 400
_MOST_TASKS = 30
_MOST_MARKERS = 40
_MOST_NOTES = 4000
_MOST_INSTRUCTIONS = 4000


def context(request: Request) -> dict[str, Any]:
    """Return what is known of the project, JSON-able. Reads its files: blocking."""
    return {
        "project": request.project,
        "generation": request.generation,
        "wanted": request.wanted,
        "checkout": None if request.root is None else str(request.root),
        "instructions": request.instructions[:_MOST_INSTRUCTIONS],
        "checks": list(request.checks),
        "failed": [
            {
                "task": one.task.id,
                "status": one.task.status.value,
                "error": (one.task.error or "")[:500],
                "modifies": list(one.task.modifies[:20]),
            }
            for one in list(request.ended)[:_MOST_TASKS]
        ],
        "completed": [one.task.id for one in list(request.completed)[:_MOST_TASKS]],
        "evidence": list(_evidence(request)),
        "used_evidence_keys": sorted(request.seen)[:500],
        "files": list(request.checkout.files[:_MOST_FILES]) if request.checkout else [],
        "notes": request.notes[:_MOST_NOTES],
    }


def _evidence(request: Request) -> Iterator[dict[str, Any]]:
    """Yield the gaps that can be read off without running anything."""
    if request.checkout is None:
        return
    count = 0
    for path, text in request.checkout.sources():
        for gap in gaps.marker_gaps(path, text):
            if gap.key in request.seen:
                continue
            yield {"evidence_key": gap.key, "evidence": list(gap.evidence)}
            count += 1
            if count >= _MOST_MARKERS:
                return


def render(request: Request, template: Path | None) -> str:
    """Return the prompt for a model. Blocking. Raises GeneratorFailed for a bad template.

    A template holds $project, $wanted and $context; anything else of it is the user's.
    """
    path = template or SHIPPED
    try:
        text = path.read_text("utf-8")
        return Template(text).substitute(
            project=request.project,
            wanted=request.wanted,
            context=json.dumps(context(request), ensure_ascii=False, indent=1),
        )
    except (OSError, UnicodeDecodeError) as error:
        raise GeneratorFailed(f"prompt {path}: cannot be read: {error}") from error
    except KeyError as error:
        raise GeneratorFailed(
            f"prompt {path}: {error} is none of $project, $wanted, $context; write $$ for a $"
        ) from error
    except ValueError as error:
        raise GeneratorFailed(f"prompt {path}: {error}; write $$ for a $") from error
