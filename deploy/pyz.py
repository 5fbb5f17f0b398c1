"""Packs kvdb into one file that Python runs: `python3 deploy/pyz.py TARGET`, `make pyz`.

`python3 kvdb.pyz` is `python3 -m kvdb`, on any Python from 3.11 on. The code is compiled
for the Python that packs it, which starts in half the time; another one compiles it at each start.
"""

from __future__ import annotations

import py_compile
import shutil
import sys
import tempfile
import zipapp
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "kvdb"


def build(target: Path) -> None:
    """Write the archive, which is executable on systems that have that."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        unwanted = shutil.ignore_patterns("__pycache__", "*.pyc", "README.md")
        shutil.copytree(PACKAGE, root / "kvdb", ignore=unwanted)
        for source in (root / "kvdb").rglob("*.py"):
            py_compile.compile(
                str(source),
                cfile=str(source.with_suffix(".pyc")),
                dfile=str(Path("kvdb.pyz", source.relative_to(root))),  # as tracebacks have it
                doraise=True,
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )
        shutil.copy(PACKAGE / "__main__.py", root)
        target.parent.mkdir(parents=True, exist_ok=True)
        zipapp.create_archive(root, target, interpreter="/usr/bin/env python3", compressed=True)
        target.chmod(0o755)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 deploy/pyz.py TARGET")
    build(Path(sys.argv[1]))
