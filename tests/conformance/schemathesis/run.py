"""schemathesis against a gateway: `run.py URL KEY [--admin-key KEY] [--model NAME] [arguments for schemathesis …]`.

Sends what the OpenAPI document of the gateway allows, and what it forbids, and checks every answer: no 5xx, no status,
content type, header or field that is not documented, nothing forbidden taken, nothing allowed refused, no key left
unasked for. The last line is a JSON object: operations passed, failed and skipped (those of administrators where no
admin key is given), and the version.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import schemathesis

HERE = Path(__file__).parent
ADMINISTRATION = "Administration"
LIMIT_S = 900


def fetch(url: str, key: str = "") -> Any:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return json.load(answer)


def served_model(url: str, key: str) -> str:
    """The one that can do most."""
    models = fetch(f"{url}/v1/models", key)["data"]
    name: str = max(models, key=lambda model: len(model["capabilities"] or ()))["id"]
    return name


def operations_of(document: Any, tag: str) -> int:
    return sum(tag in operation["tags"] for methods in document["paths"].values() for operation in methods.values())


def run(folder: Path, url: str, key: str, admin_key: str, model: str, arguments: list[str]) -> dict[str, Any]:
    """The report of schemathesis; its output goes to ours."""
    document = fetch(f"{url}/openapi.json")
    (folder / "openapi.json").write_text(json.dumps(document))  # as a file: the address would not be tested itself
    for name in ("schemathesis.toml", "hooks.py"):  # looked for where it runs, and it leaves things there
        shutil.copy(HERE / name, folder)
    command = [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", url]
    command += ["--report", "json", "--report-json-path", "report.json"]
    command += [] if admin_key else ["--exclude-tag", ADMINISTRATION]
    known = {"CONFORMANCE_KEY": key, "CONFORMANCE_ADMIN_KEY": admin_key or "none"}
    known |= {"CONFORMANCE_MODEL": model or served_model(url, key)}
    subprocess.run(command + arguments, cwd=folder, env=os.environ | known, timeout=LIMIT_S, check=False)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    report["left_out"] = 0 if admin_key else operations_of(document, ADMINISTRATION)
    return report


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Operations; a run that could not begin has failed."""
    counts = report["operations"] or {"tested": 0, "skipped": 0}
    failing = {operation for failure in report["failures"] for operation in failure["operations"]}
    failed = max(len(failing), 1 if report["errors"] or not counts["tested"] else 0)
    return {
        "passed": max(0, counts["tested"] - failed),
        "failed": failed,
        "skipped": counts["skipped"] + report["left_out"],
        "version": schemathesis.__version__,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("key")
    parser.add_argument("--admin-key", default="")
    parser.add_argument("--model", default="", help="which is asked, thousands of times")
    chosen, further = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="schemathesis-") as name:
        address = chosen.url.rstrip("/")
        found = summary(run(Path(name), address, chosen.key, chosen.admin_key, chosen.model, further))
    print(json.dumps(found))
    sys.exit(1 if found["failed"] else 0)
