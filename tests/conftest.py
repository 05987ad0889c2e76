"""What tests of all folders share: how they run side by side, the stores' engines, and `rg` on the path."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from sidecar.store.interface import Store
from tests.postgres import PostgresCluster
from tests.stores import ENGINES, open_store

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

_TESTS = Path(__file__).parent
_LONGEST_FIRST = ("e2e", "integration", "unit")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which `make test` leaves out, and then makes up for, the tests marked `alone`."""
    parser.addoption("--alone", choices=("skip", "only"), help="leave out, or run only, these")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--alone only`, import only files with such a test: importing all takes as long as those run."""
    if config.getoption("--alone") != "only" or not collection_path.name.startswith("test_"):
        return None
    return (collection_path.is_file() and "mark.alone" not in collection_path.read_text()) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Apply `--alone`; where several processes run the tests, begin with the longest."""
    wanted = config.getoption("--alone")
    if wanted is not None:
        left_out = [i for i in items if bool(i.get_closest_marker("alone")) != (wanted == "only")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _rank(item.path.relative_to(_TESTS).parts[0]))


def _rank(tier: str) -> int:
    return _LONGEST_FIRST.index(tier) if tier in _LONGEST_FIRST else len(_LONGEST_FIRST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Have one process run what shares fixtures, or must not run side by side."""
    return _ByGroup(config, log)


class _ByGroup(LoadScopeScheduling):
    """A group is a file, with two exceptions."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, name = nodeid.partition("::")
        if "/test_walls" in file and "[other" in name:
            return "another user"  # whose processes the kernel counts together
        if "/bad_input/" in file:  # all files share one sidecar for each engine
            return next((engine for engine in ENGINES if f"[{engine}" in name), file)
        return file


@pytest.fixture
def hang_ups() -> Iterator[None]:
    """Have SIGHUP end what the test starts, also where `nohup` runs the tests and it is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session", autouse=True)
def ripgrep(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have `rg` on PATH, where opencode looks for it, also on a machine that has none.

    In a folder of its own: with the whole virtual environment on PATH, its Python would be the agents'.
    """
    if shutil.which("rg") is None:
        folder = tmp_path_factory.mktemp("programs")
        folder.chmod(0o755)
        shutil.copy(Path(sys.executable).with_name("rg"), folder / "rg")
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A PostgreSQL server of the tests' own."""
    cluster = PostgresCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(params=ENGINES)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store, once in each engine."""
    async with open_store(request, tmp_path) as opened:
        yield opened
