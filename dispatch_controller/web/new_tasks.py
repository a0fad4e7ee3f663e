"""A task created over HTTP: a spec file first, then the same registration as any other."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import yaml

from dispatch_controller.loops.context import Context
from dispatch_controller.store import tasks, views
from dispatch_controller.web.answers import refuse
from dispatch_controller.web.parts import Parts
from dispatch_controller.web.types import NewTask

_KEYS = (
    "priority", "estimated_minutes", "timeout_minutes", "max_retries", "executor", "verify",
)  # fmt: skip


def spec_text(new: NewTask) -> str:
    """Return the spec file of a new task."""
    front = {
        "task_id": new.task_id,
        "project": new.project,
        **{key: value for key in _KEYS if (value := getattr(new, key)) is not None},
        "depends_on": new.depends_on,
        "modifies": new.modifies,
    }
    if new.exclusive:
        front["exclusive"] = True
    block = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=1000)
    heading = f"# {new.title or new.task_id}\n"
    return f"---\n{block}---\n\n{heading}" + (f"\n{new.body.strip()}\n" if new.body.strip() else "")


async def create(here: Parts, new: NewTask) -> str:
    """Write and register a task; return the id it got. Raises Problem (409, 422)."""
    context = here.context
    known = await context.store.read(tasks.get, new.task_id)
    if known is not None and known.project == new.project:
        refuse(409, f"there is a task {new.task_id} in {new.project} already")
    path = folder(context, new.project) / f"{new.task_id}.md"
    try:
        await context.run_sync(_write_new, path, spec_text(new))
    except FileExistsError:
        refuse(409, f"{path} exists already: it is never overwritten")
    except OSError as error:
        refuse(503, f"{path} cannot be written: {error.strerror}")
    result = await here.registrar.register([path], new.project)
    if result["errors"]:
        await context.run_sync(path.unlink)
        refuse(422, "; ".join(str(error["reason"]) for error in result["errors"]))
    real = await context.run_sync(os.path.realpath, path)
    registered = await context.store.read(views.id_of_spec, str(real))
    if registered is None:
        refuse(409, f"{path} was written but did not become a task: see `register` for why")
    return registered


def folder(context: Context, project: str) -> Path:
    """Return the folder of a project's specs."""
    named = context.knowledge.project(project).specs_dir
    if named is not None:
        return context.settings.projects / Path(named).expanduser()
    return context.settings.specs / project


def _write_new(path: Path, text: str) -> None:
    """Write a file that does not exist yet, whole or not at all; it survives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with beside.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
