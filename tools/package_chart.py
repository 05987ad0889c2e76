"""Package deploy/chart as `helm package` does, with the image's repository of a release in its values.

python tools/package_chart.py [--repository ghcr.io/OWNER/opencode-sidecar] FOLDER
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import helm_python

CHART = Path(__file__).resolve().parents[1] / "deploy" / "chart"
PLACEHOLDER = "registry.example.com/opencode-sidecar"


def package(folder: Path, repository: str) -> None:
    """Write FOLDER/opencode-sidecar-VERSION.tgz."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, CHART.name)
        shutil.copytree(CHART, copy)
        values = copy / "values.yaml"
        text = values.read_text()
        assert text.count(PLACEHOLDER) == 1
        values.write_text(text.replace(PLACEHOLDER, repository))
        folder.mkdir(parents=True, exist_ok=True)
        helm_python.package(str(copy), destination=str(folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repository", default=PLACEHOLDER)
    arguments = parser.parse_args()
    package(arguments.folder, arguments.repository)
