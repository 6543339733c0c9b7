"""Packages outside the repository, as if they were installed: folders for PYTHONPATH."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

EXTENDING = Path(__file__).parents[1] / "docs" / "extending.md"
_FILE = re.compile(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def documented_files(section: str) -> dict[str, str]:
    """Name → text of the files in one section of docs/extending.md."""
    _, _, text = EXTENDING.read_text(encoding="utf-8").partition(f"\n## {section}\n")
    return dict(_FILE.findall(text.partition("\n## ")[0]))


def project_files(project: Path) -> dict[str, str]:
    """Path → text of the files of a project in the repository."""
    found = [project / "pyproject.toml", *project.rglob("*.py")]
    return {str(path.relative_to(project)): path.read_text(encoding="utf-8") for path in found}


def install(folder: Path, files: dict[str, str]) -> None:
    """What pip would leave of a project with these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")


def path_with(folder: Path) -> str:
    """PYTHONPATH on which it is found."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
