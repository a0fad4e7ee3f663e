"""The wrapper as one file: a zipapp, the same to the byte every time it is built."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "dispatch_controller/fleet/wrapper"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAIN = f"""import sys
if sys.version_info < (3, 9):
    sys.exit("the wrapper needs Python 3.9 or newer; this is " + sys.version.split()[0])
from {PACKAGE.replace("/", ".")}.__main__ import main
sys.exit(main(sys.argv))
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The zipapp's bytes and their SHA-256 (hex)."""

    content: bytes
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Return a bundle that was kept in a file. Raises OSError."""
        content = path.read_bytes()
        return cls(content, hashlib.sha256(content).hexdigest())

    @property
    def name(self) -> str:
        """File name on a node: releases stand side by side."""
        return f"wrapper-{self.sha256[:16]}.pyz"


@functools.cache
def build() -> Bundle:
    """Build the zipapp from the modules beside this file. Raises OSError.

    Stored, not compressed: compressors differ between machines, and the hash is the version.
    """
    folder = Path(__file__).parent / "wrapper"
    files = {f"{PACKAGE}/{path.name}": path.read_bytes() for path in folder.glob("*.py")}
    files["__main__.py"] = _MAIN.encode()
    for package in ("dispatch_controller", "dispatch_controller/fleet"):
        files[f"{package}/__init__.py"] = b""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3
            info.external_attr = 0o644 << 16
            out.writestr(info, files[name])
    content = b"#!/usr/bin/env python3\n" + archive.getvalue()
    return Bundle(content, hashlib.sha256(content).hexdigest())
