"""The zipapp is the same to the byte, complete, and runs by itself."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from pathlib import Path

from dispatch_controller.fleet import bundle
from tests.wrapper.serving import Node


def test_is_built_the_same_to_the_byte() -> None:
    first = bundle.build()
    bundle.build.cache_clear()
    again = bundle.build()
    assert again.content == first.content
    assert first.sha256 == hashlib.sha256(first.content).hexdigest()
    assert first.name == f"wrapper-{first.sha256[:16]}.pyz"


def test_tells_its_own_hash_without_the_package_installed(node: Node) -> None:
    argv = [sys.executable, "-S", "-E", str(node.wrapper), "version"]
    said = subprocess.run(argv, capture_output=True, check=True, cwd="/", timeout=20)
    assert json.loads(said.stdout)["wrapper"] == bundle.build().sha256


def test_imports_only_itself_and_the_standard_library() -> None:
    for path in (Path(bundle.__file__).parent / "wrapper").glob("*.py"):
        for statement in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(statement, ast.Import):
                names = [alias.name for alias in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
            for name in names:
                ours = name.startswith("dispatch_controller.fleet.wrapper")
                assert ours or name.split(".")[0] in sys.stdlib_module_names, (path.name, name)


def test_parses_as_python_3_9() -> None:
    for path in (Path(bundle.__file__).parent / "wrapper").glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))
