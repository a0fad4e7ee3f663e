"""The house's rules of who may import whom (docs/architecture.md), checked on the syntax tree."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "dispatch_controller"
PACKAGE = "dispatch_controller"

ONLY_IN: dict[str, tuple[str, ...]] = {
    "sqlite3": ("store",),
    "asyncssh": ("fleet",),
    "trio_asyncio": ("fleet",),
    "quart": ("web",),
    "quart_trio": ("web",),
    "quart_schema": ("web",),
    "hypercorn": ("web",),
}
"""Third-party package → the folders that may import it."""

MAY_USE: dict[str, tuple[str, ...]] = {
    "model": (),
    "core": ("model", "core"),
    "runtime": ("runtime",),
    "store": ("model", "core", "runtime", "store"),
    "fleet/wrapper": ("fleet/wrapper",),
    "fleet": ("model", "core", "runtime", "fleet", "fleet/wrapper"),
    "loops": (
        "model", "core", "runtime", "store", "fleet", "factory", "loops", "settings", "catalog",
        "settings_sections",
        "node_files", "executors", "spec_files", "home",
    ),
}  # fmt: skip
"""Part of the house → the parts it may import; what is not named here may import all."""

MAY_NOT_USE: dict[str, tuple[str, ...]] = {"cli": ("store", "loops", "fleet", "web", "factory")}
"""The command line talks HTTP to the running controller."""

LOOPS = (
    "scheduling", "health_check", "probe_workers", "db_sync", "reaper", "guardian", "factory",
)  # fmt: skip


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    if relative.parts[:2] == ("fleet", "wrapper"):
        return "fleet/wrapper"
    return relative.parts[0].removesuffix(".py")


def own_parts(path: Path) -> set[str]:
    """Which of our own parts a module imports."""
    found = set()
    for name in imports(path):
        if name == PACKAGE:
            continue
        if name.startswith(f"{PACKAGE}.fleet.wrapper"):
            found.add("fleet/wrapper")
        elif name.startswith(f"{PACKAGE}."):
            part = name.split(".")[1]
            found.add(
                part if (ROOT / part).is_dir() or (ROOT / f"{part}.py").exists() else "__init__"
            )
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_part_may(path: Path) -> None:
    part, used = part_of(path), imports(path)
    for package, folders in ONLY_IN.items():
        if part not in folders:
            assert not {n for n in used if n.split(".")[0] == package}, f"{package} in {part}"
    allowed = MAY_USE.get(part)
    if allowed is not None:
        assert own_parts(path) <= {*allowed, part}
    assert not own_parts(path) & set(MAY_NOT_USE.get(part, ()))


@pytest.mark.parametrize("path", [*sorted(ROOT.glob("core/*.py")), ROOT / "model.py"], ids=str)
def test_the_rules_are_pure(path: Path) -> None:
    assert not {n.split(".")[0] for n in imports(path)} & {
        "trio",
        "sqlite3",
        "os",
        "time",
        "socket",
    }
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "open" not in calls


def test_the_vocabulary_and_the_wrapper_need_the_standard_library_only() -> None:
    for path in [ROOT / "model.py", *sorted((ROOT / "fleet" / "wrapper").glob("*.py"))]:
        foreign = {n.split(".")[0] for n in imports(path)} - set(sys.stdlib_module_names)
        assert foreign <= {PACKAGE}, path


def test_loops_do_not_import_each_other() -> None:
    for loop in LOOPS:
        files = [ROOT / "loops" / f"{loop}.py", *sorted((ROOT / "loops" / loop).glob("*.py"))]
        for path in files:
            if path.exists():
                others = {
                    name
                    for name in imports(path)
                    for other in LOOPS
                    if other != loop and name.startswith(f"{PACKAGE}.loops.{other}")
                }
                assert not others, path


def test_threads_are_started_in_one_place() -> None:
    for path in modules():
        if path != ROOT / "runtime" / "threads.py":
            assert not {n for n in imports(path) if n.startswith("trio.to_thread")}, path
