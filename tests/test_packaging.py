"""The wheel holds all that the program needs, and works where nothing else of the checkout is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from dispatch_controller import __version__
from dispatch_controller.fleet.bundle import build

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)),
        ],
        check=True,
        timeout=120,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a fresh environment; its dependencies are those of the tests' own."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"),
            *("--no-deps", "--no-index", str(wheel)),
        ],
        check=True,
        timeout=120,
    )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    # A folder behind this one on the path: its editable install of the checkout is not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "dispatch-controller"


def run(program: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program), *arguments],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ},
        cwd="/",
        timeout=60,
        check=False,
    )


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    package = ROOT / "dispatch_controller"
    wanted = {
        str(path.relative_to(ROOT))
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert wanted <= held
    assert "dispatch_controller/fleet/wrapper/serve.py" in held
    others = {name.partition("/")[0] for name in held} - {"dispatch_controller"}
    assert others == {f"dispatch_controller-{__version__}.dist-info"}


def test_the_installed_program_tells_its_version(program: Path) -> None:
    result = run(program, "--version")
    assert (result.returncode, result.stdout) == (0, f"{__version__}\n")


def test_the_installed_program_is_the_wheels_and_ships_the_same_wrapper(program: Path) -> None:
    code = (
        "import dispatch_controller, json\n"
        "from dispatch_controller.fleet.bundle import build\n"
        "print(json.dumps([dispatch_controller.__file__, build().sha256]))\n"
    )
    python = program.with_name("python")
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, cwd="/", check=True, timeout=60
    )
    file, wrapper = json.loads(done.stdout)
    assert file.startswith(str(program.parent.parent))
    assert wrapper == build().sha256


def test_the_installed_program_makes_and_examines_a_home(program: Path, tmp_path: Path) -> None:
    user = tmp_path / "user"
    user.mkdir()
    arguments = ["--node", "here", "--executor", "shell", "--home", str(tmp_path / "home")]
    result = run(program, "init", *arguments, HOME=str(user), CONTROLLER_PORT="0")
    assert f"wrote {tmp_path}/home/nodes.json" in result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("shell", "mark"),
    [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete --command")],
)
def test_the_installed_program_completes_in_every_shell(
    program: Path, shell: str, mark: str
) -> None:
    source = run(program, _DISPATCH_CONTROLLER_COMPLETE=f"source_{shell}")
    assert mark in source.stdout
    given = {
        "_DISPATCH_CONTROLLER_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "dispatch-controller serv",
        "COMP_WORDS": "dispatch-controller serv",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert "service" in run(program, **given).stdout


def test_what_it_needs_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(name).decode()
    assert f"Version: {__version__}" in metadata
    assert "Requires-Python: <3.14,>=3.11" in metadata
    for dependency in ("trio", "asyncssh", "quart-trio", "hypercorn", "typer", "httpx"):
        assert f"Requires-Dist: {dependency}" in metadata
