"""Builds the image's contents without a container engine, by reading deploy/Dockerfile.

The instructions themselves are followed, so that the test breaks with the file: `COPY` takes only
what the Dockerfile names and .dockerignore lets through, `RUN` runs what it says. `/opt/sidecar` is
mapped to a fresh folder; the last stage's `RUN`, which needs a machine to itself, is not run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/opt/sidecar"
_BUILD_SECONDS = 600


@dataclass(frozen=True)
class Instruction:
    """One instruction; `flags` are its leading `--name=value` words."""

    name: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments; a JSON array is read as one."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)


@dataclass(frozen=True)
class Stage:
    """A stage: its base and what happens on it. The last one has no name."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        """Return the instructions of this name, in order."""
        return [item for item in self.instructions if item.name == name]

    def only(self, name: str) -> Instruction:
        """Return the one instruction of this name."""
        (found,) = self.all(name)
        return found


@dataclass(frozen=True)
class Image:
    """What was built, and how a container of it is started."""

    prefix: Path
    final: Stage

    def mapped(self, words: Sequence[str]) -> list[str]:
        """Return a command of the image as one that runs here."""
        return [word.replace(PREFIX, str(self.prefix)) for word in words]

    @property
    def environment(self) -> dict[str, str]:
        """The image's own variables."""
        pairs = (word.partition("=") for item in self.final.all("ENV") for word in item.words)
        return {name: value.replace(PREFIX, str(self.prefix)) for name, _, value in pairs}

    @property
    def command(self) -> list[str]:
        """Entry point and default command."""
        return self.mapped(self.final.only("ENTRYPOINT").words + self.final.only("CMD").words)

    @property
    def healthcheck(self) -> list[str]:
        """The health check's command."""
        text = self.final.only("HEALTHCHECK").text
        return self.mapped(json.loads(text.removeprefix("CMD ").strip()))


def read_stages(path: Path = ROOT / "deploy" / "Dockerfile") -> list[Stage]:
    """Parse the Dockerfile."""
    stages: list[Stage] = []
    for instruction in _instructions(path.read_text()):
        if instruction.name == "FROM":
            base, *alias = instruction.words
            stages.append(Stage(alias[1] if alias else "", base, ()))
        elif stages:
            last = stages.pop()
            stages.append(Stage(last.name, last.base, (*last.instructions, instruction)))
    return stages


def _instructions(text: str) -> Iterator[Instruction]:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for logical in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not logical.strip():
            continue
        name, rest = logical.split(maxsplit=1)
        flags = {}
        while found := re.match(r"--([\w-]+)=(\S+)\s+", rest):
            flags[found[1]] = found[2]
            rest = rest[found.end() :]
        yield Instruction(name, flags, rest)


def build(root: Path) -> Image:
    """Follow all stages below `root`, which must be empty. Raises CalledProcessError, AssertionError."""
    *stages, final = read_stages()
    image = Image(root / "prefix", final)
    for stage in stages:
        _follow(stage, root / stage.name, image)
    named = {stage.name for stage in stages}
    for copy in final.all("COPY"):
        assert copy.flags["from"] in named
        assert copy.words == [PREFIX, PREFIX], "a virtual environment cannot be moved"
    return image


def _follow(stage: Stage, filesystem: Path, image: Image) -> None:
    workdir = filesystem
    environment = {**os.environ, "PYTHON": getattr(sys, "_base_executable", sys.executable)}
    for item in stage.instructions:
        if item.name == "ARG":
            name, has_default, default = item.text.partition("=")
            if has_default:
                environment[name] = default
        elif item.name == "WORKDIR":
            workdir = filesystem / item.text.lstrip("/")
            workdir.mkdir(parents=True, exist_ok=True)
        elif item.name == "COPY":
            *sources, target = item.words
            into_prefix = target.replace(PREFIX, str(image.prefix))
            _copy(sources, workdir / into_prefix, is_folder=target.endswith("/"))
        elif item.name == "RUN":
            if item.words[0] == "apt-get":
                continue  # a compiler; this machine has its own, see tools/setup.sh
            workdir.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["/bin/sh", "-euc", item.text.replace(PREFIX, str(image.prefix))],
                cwd=workdir,
                env=environment,
                check=True,
                timeout=_BUILD_SECONDS,
            )
        else:
            raise AssertionError(f"unexpected in a build stage: {item.name}")


def _copy(sources: list[str], target: Path, *, is_folder: bool) -> None:
    rules = read_ignore_rules()
    for source in sources:
        files = [path for path in context_files(rules) if _is_under(path, source)]
        assert files, f"COPY {source}: not in the build context, see .dockerignore"
        for path in files:
            rest = path.removeprefix(source).lstrip("/")
            end = rest or (Path(source).name if is_folder else "")
            (target / end).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, target / end)


def _is_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


Rule = tuple[bool, re.Pattern[str]]
"""Whether the pattern lets in again what an earlier one left out, and the pattern."""


def read_ignore_rules() -> list[Rule]:
    """Parse .dockerignore."""
    rules = []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if pattern := line.partition("#")[0].strip():
            lets_in = pattern.startswith("!")
            rules.append((lets_in, _glob(pattern.removeprefix("!").strip("/"))))
    return rules


def _glob(pattern: str) -> re.Pattern[str]:
    body = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
    return re.compile(f"{body}(/.*)?")  # what matches a folder matches all below it


def context_files(rules: list[Rule]) -> Iterator[str]:
    """Yield the build context's files, relative to the root. Git's folder and node_modules are not read."""
    for folder, names, files in os.walk(ROOT):
        names[:] = [name for name in names if name not in {".git", "node_modules", ".venv"}]
        for name in files:
            path = (Path(folder) / name).relative_to(ROOT).as_posix()
            verdicts = [lets_in for lets_in, pattern in rules if pattern.fullmatch(path)]
            if not verdicts or verdicts[-1]:
                yield path
