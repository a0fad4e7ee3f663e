"""Gaps: what a project's own evidence says is missing, each as one thing to do.

Every gap has a key that stays the same while the gap does, wherever its line moves, and that is
never used twice (loops.md, Factory).
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dispatch_controller.core import ids, paths
from dispatch_controller.core.candidates import yaml_value
from dispatch_controller.core.comments import comments
from dispatch_controller.core.dependencies import Names, UnknownId
from dispatch_controller.model import Cause, Task, TaskStatus

_MARKER = re.compile(r"^\W{0,3}(TODO|FIXME)\b|\b(TODO|FIXME)(?:\([^)\n]{0,80}\))?:")
_BOX = re.compile(r"^[ \t]*[-*+][ \t]+\[ \][ \t]+(\S.*)$")
_HEADING = re.compile(r"^(#{1,6})[ \t]+(.*)$")
_ACCEPTANCE = re.compile(r"acceptance|criteria|done when|definition of done|验收", re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*(```|~~~)")
_CODE = re.compile(r"`([^`\n]{1,200})`")
_PATH = re.compile(r"(?:[\w.@+-]+/)*[\w@+-][\w.@+-]*\.\w{1,8}")
_FAILED_TEST = re.compile(
    r"^(?:FAILED|ERROR) ([^\s:]+::[^\s]+)|^(?:FAIL|ERROR): (\w+) \(([\w.]+)\)", re.MULTILINE
)
_PLACE = re.compile(r"(?<![\w./@+-])([\w./@+-]{1,300}\.\w{1,8})(?::|\", line |\()(\d+)")
_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd\u2028\u2029].*", re.DOTALL)
_NUMBERS = re.compile(r"0x[0-9a-fA-F]+|\d+")
_LONGEST = 200
_LONGEST_LINE = 500
_CONTEXT = 3
_MOST_FILES = 20
_NOT_THE_PROJECT = (Cause.OPERATOR, Cause.NODE, Cause.EXECUTOR)


@dataclass(frozen=True, slots=True)
class Gap:
    """One thing that is missing."""

    key: str
    title: str
    modifies: tuple[str, ...]
    evidence: tuple[str, ...]
    text: str
    """Markdown: what is wrong and where."""
    done: str
    """One sentence: when it is closed."""
    verify: str | None = None
    """Fails now and passes then, where the evidence allows to say so."""
    priority: int = 2


@dataclass(frozen=True, slots=True)
class Ended:
    """A task that failed or is dead, and whose fault that was."""

    task: Task
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """The spec of a completed task."""

    task: Task
    body: str


@dataclass(frozen=True, slots=True)
class CheckRun:
    """A command of the project that failed in its checkout."""

    command: str
    code: int
    output: str


def marker_gaps(path: str, text: str) -> Iterator[Gap]:
    """Yield the TODO and FIXME remarks in the comments of one file; the same words are one gap."""
    lines = text.split("\n")
    found: dict[str, list[int]] = {}
    for comment in comments(path, text):
        marker = _MARKER.search(comment.text)
        if marker is None or comment.line > len(lines):
            continue
        start = comment.text.index(marker[1] or marker[2], marker.start())
        said = _NOT_PRINTABLE.sub("", comment.text[start:])[:_LONGEST].rstrip()
        if said:
            found.setdefault(said, []).append(comment.line)
    for said, places in found.items():
        word = said[:5].strip(":( ").upper()
        what = re.sub(r"^(TODO|FIXME)(\([^)]*\))?[:\s-]*", "", said).strip()
        first = places[0]
        where = ", ".join(f"{path}:{line}" for line in places[:5])
        title = f"{what or f'Resolve the {word} in {path} line {first}'}"
        yield Gap(
            key=f"marker:{path}:{_hash(said)}",
            title=title[:120],
            modifies=(path,),
            evidence=tuple(f"{path}:{line}: {said}" for line in places[:5]),
            text=f"A comment in {where} says that something is missing:\n\n"
            + _quoted(lines, first)
            + "\n\nDo what it asks for, then remove the comment. Removing it alone is not enough.",
            done=f"what the comment asks for is done, and `{said[:80]}` no longer stands there",
            verify=_gone(said, path, lines, places),
            priority=1 if word == "FIXME" else 2,
        )


def _gone(said: str, path: str, lines: Sequence[str], places: Sequence[int]) -> str:
    """Return a command that fails as long as the words stand in those lines."""
    words, file = shlex.quote(said), shlex.quote(path)
    others = sum(said in line for line in lines) - len(set(places))
    if others <= 0:
        return f"! grep -qF -e {words} -- {file}"
    # The same words stand elsewhere too: in a string, or as the beginning of another remark.
    return f'test "$(grep -cF -e {words} -- {file})" -le {others}'


def _quoted(lines: Sequence[str], line: int) -> str:
    first = max(0, line - 1 - _CONTEXT)
    around = lines[first : line + _CONTEXT]
    return "\n".join(f"    {first + n + 1}: {text[:160].rstrip()}" for n, text in enumerate(around))


def box_gaps(specs: Iterable[Completed], files: Iterable[str]) -> Iterator[Gap]:
    """Yield the unticked acceptance boxes of completed specs; the same words are one gap.

    `files` are the paths of the checkout: those that a box names are what it is about.
    """
    known = frozenset(files)
    seen: dict[str, list[tuple[Completed, str]]] = {}
    for spec in specs:
        for said in _unticked(spec.body):
            seen.setdefault(" ".join(said.split()).casefold(), []).append((spec, said))
    for words, places in seen.items():
        spec, said = places[0]
        named = [code.strip() for code in _CODE.findall(said)]
        own = [path for path in named if path in known]
        missing = [
            path for path in named
            if path not in known and _PATH.fullmatch(path) and paths.problem(path) is None
        ]  # fmt: skip
        modifies = tuple(dict.fromkeys([*own, *missing])) or spec.task.modifies
        if not modifies:
            continue
        yield Gap(
            key=f"box:{_hash(words)}",
            title=_plain(said)[:120],
            modifies=modifies[:_MOST_FILES],
            evidence=tuple(
                f"task {one.task.id}: acceptance box not ticked: {text[:_LONGEST]}"
                for one, text in places[:5]
            ),
            text=f"Task {spec.task.id} is completed, but this line of its acceptance list is not "
            f"ticked:\n\n    {said}\n\nLook whether it holds. Where it does not, make it hold.",
            done="what the line says holds",
            verify=" && ".join(f"test -e {shlex.quote(path)}" for path in missing) or None,
        )


def _unticked(body: str) -> list[str]:
    """Return the open boxes under acceptance headings; all of them where there is no such one."""
    inside: list[str] = []
    everywhere: list[str] = []
    depth, fenced, has_heading = 0, False, False
    for line in body.split("\n"):
        if _FENCE.match(line):
            fenced = not fenced
        if fenced:
            continue
        heading = _HEADING.match(line)
        if heading is not None:
            if _ACCEPTANCE.search(heading[2]):
                depth, has_heading = len(heading[1]), True
            elif depth and len(heading[1]) <= depth:
                depth = 0
            continue
        box = _BOX.match(line)
        if box is not None:
            said = _NOT_PRINTABLE.sub("", box[1]).strip()[:400]
            everywhere.append(said)
            if depth:
                inside.append(said)
    return [said for said in (inside if has_heading else everywhere) if said]


def ended_gaps(ended: Iterable[Ended], verify: Mapping[str, str | None]) -> Iterator[Gap]:
    """Yield the tasks that failed for good, and for which the project has to do something.

    What the operator ended, and what was a node's or an agent program's fault, is not the
    project's to mend. `verify` gives what checks a task, by its id.
    """
    for one in ended:
        task = one.task
        if one.cause in _NOT_THE_PROJECT or not task.modifies:
            continue
        error = _NOT_PRINTABLE.sub("", (task.error or "no error was recorded").strip()) or "unknown"
        yield Gap(
            key=f"task:{task.id}",
            title=f"Mend what {task.id} failed of"[:120],
            modifies=task.modifies[:_MOST_FILES],
            evidence=(f"task {task.id}: {task.status}: {error[:_LONGEST]}",),
            text=f"Task {task.id} ({task.spec_file}) is {task.status} after {task.attempt} "
            f"attempts. Its last error:\n\n{_indented(task.error or '')}\n\n"
            "Find the cause of this error and mend it, in small steps; do what the task asked for "
            "as far as that is possible now.",
            done=f"what stopped {task.id} is mended",
            verify=verify.get(task.id),
            priority=1,
        )


def dependency_gaps(tasks: Sequence[Task], names: Names) -> Iterator[Gap]:
    """Yield the dependencies of waiting tasks that nothing provides."""
    waiting: dict[tuple[str, str], list[Task]] = {}
    for task in tasks:
        for dependency in task.depends_on or ():
            if isinstance(names.resolve(dependency, task.project), UnknownId):
                waiting.setdefault((task.project, dependency), []).append(task)
    for (project, dependency), who in sorted(waiting.items()):
        modifies = tuple(dict.fromkeys(path for task in who for path in task.modifies))
        if not modifies:
            continue
        shown = dependency if ids.problem(dependency) is None else ids.shown(dependency)
        listed = ", ".join(task.id for task in who[:5])
        yield Gap(
            key=f"dependency:{project}:{_hash(dependency)}",
            title=f"Provide what {shown} stands for"[:120],
            modifies=modifies[:_MOST_FILES],
            evidence=tuple(
                f"task {task.id}: depends_on {shown}, which names no task" for task in who[:5]
            ),
            text=f"These tasks wait for {shown}, and no task has that id: {listed}.\n\n"
            "Find out from their specs and from the code what they expect to be there already, "
            "and do that part. Say in your report which id they should depend on instead.",
            done=f"what {listed} expect of {shown} is there",
            priority=1,
        )


def check_gaps(run: CheckRun, files: Iterable[str]) -> Iterator[Gap]:
    """Yield what a failed command shows: one gap for each failing test, else one in all."""
    known = frozenset(files)
    command = run.command.strip()
    lines = [line[:_LONGEST_LINE] for line in run.output.rstrip().splitlines()]
    output, tail = "\n".join(lines), "\n".join(lines[-40:])
    blocks = list(dict.fromkeys(_failing_tests(output)))
    for test in blocks or [""]:
        named = _files_of(output, test, known)
        if not named:
            named = tuple(sorted({path.partition("/")[0] for path in known}))[:_MOST_FILES]
        named = tuple(path for path in named if paths.problem(path) is None)
        if not named:
            continue
        last = _NOT_PRINTABLE.sub("", tail.rpartition("\n")[2].strip())[:_LONGEST]
        what = f"test {test}" if test else f"`{command}`"
        signature = test or _NUMBERS.sub("0", last)
        evidence = f"`{command}` exits with {run.code}: {test or last}"
        places = [f"{path}:{line}" for path, line in _places(output, known)][:3]
        yield Gap(
            key=f"check:{_hash(command)}:{_hash(signature)}",
            title=f"Make {what} pass"[:120],
            modifies=named,
            evidence=(evidence, *places),
            text=f"`{command}` fails in the project's folder with exit code {run.code}. The end "
            f"of what it printed:\n\n{_indented(tail)}\n\nMend the code, not the check.",
            done=f"{what} passes",
            verify=_narrowed(command, test),
            priority=0,
        )


def _narrowed(command: str, test: str) -> str:
    """Return the command for one test alone, where that is plainly possible."""
    if "::" in test and re.fullmatch(
        r"(?:[\w./-]*python[\d.]*\s+-m\s+)?pytest(?:\s+-\w+)*", command
    ):
        return f"{command} {shlex.quote(test)}"
    return command


def _failing_tests(output: str) -> Iterator[str]:
    for found in _FAILED_TEST.finditer(output):
        name = found[3] or ""
        # Python 3.11 names the method in the brackets as well, earlier ones do not.
        yield found[1] or (name if name.endswith(f".{found[2]}") else f"{name}.{found[2]}")


def _places(output: str, known: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield (path, line) of the checkout that the output names, each once."""
    seen = set()
    for found in _PLACE.finditer(output):
        path = found[1].removeprefix("./")
        while path not in known and "/" in path:
            path = path.partition("/")[2]
        if path in known and (path, found[2]) not in seen:
            seen.add((path, found[2]))
            yield path, found[2]


def _files_of(output: str, test: str, known: frozenset[str]) -> tuple[str, ...]:
    """Return the files that a failure is about: those named in its part of the output."""
    named = [path for path, _ in _places(_part(output, test), known)]
    own = test.partition("::")[0] if "::" in test else ""
    if own in known:
        named.append(own)
    return tuple(dict.fromkeys(named))[:5]


def _part(output: str, test: str) -> str:
    """Return what the output says of one test: from its headline to the next one."""
    name = re.split(r"::|\.", test)[-1].partition("[")[0]
    start = re.search(
        rf"^(?:_+ .*\b{re.escape(name)}\b.*_+|FAIL: {re.escape(name)}\b.*)$", output, re.M
    )
    if not test or start is None:
        return output
    end = re.search(r"^(?:_{3,} .* _{3,}|={10,}.*)$", output[start.end() :], re.MULTILINE)
    return output[start.start() : start.end() + end.start()] if end else output[start.start() :]


def standing(tasks: Iterable[Task], now: float) -> list[Task]:
    """Return those that failed for good: a failed one is retried within a minute, if at all."""
    return [
        task
        for task in tasks
        if task.status is TaskStatus.DEADLETTER
        or (
            task.status is TaskStatus.FAILED
            and (task.attempt > task.max_retries or now - (task.updated_at or now) > 600)
        )
    ]


def spec_text(gap: Gap) -> str:
    """Return the gap as a spec, for the same checks as any other."""
    keys = {
        "title": gap.title,
        "modifies": list(gap.modifies),
        "priority": gap.priority,
        **({"verify": gap.verify} if gap.verify else {}),
        "evidence_key": gap.key,
        "evidence": list(gap.evidence),
    }
    head = "\n".join(f"{name}: {yaml_value(value)}" for name, value in keys.items())
    verify = f"\n\n`{gap.verify}` succeeds." if gap.verify and "`" not in gap.verify else ""
    return (
        f"---\n{head}\n---\n\n# {gap.title}\n\n{gap.text}\n\n"
        f"## Acceptance\n\n{gap.done[:1].upper()}{gap.done[1:]}.{verify}\n"
    )


def _plain(text: str) -> str:
    return text.replace("`", "").replace("**", "").strip()


def _indented(text: str) -> str:
    lines = text.strip().splitlines()[-40:]
    return "\n".join(f"    {line[:300]}" for line in lines) or "    (nothing)"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
