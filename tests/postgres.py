"""A PostgreSQL cluster for the tests: Debian's server, in a temporary directory, as an ordinary user.

`make test` installs the package when it is missing. Without it tests fail; they never skip.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import psycopg

from tests.ports import free_port

_FOLDERS = "/usr/lib/postgresql/*/bin"
_USER = "postgres"
"""The server refuses to run as root; where the tests do, it runs as this or else as `nobody`."""
_FAST = {"fsync": "off", "full_page_writes": "off"}


class PostgresCluster:
    """One server with one database; `url()` gives each caller a schema of its own."""

    def __init__(self, **settings: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="sidecar-postgres-"))
        self._data = self.directory / "data"
        self._settings = settings or _FAST
        self._user = _ordinary_user()
        self._numbers = itertools.count()
        self.port = free_port()
        if self._user is not None:
            shutil.chown(self.directory, self._user)

    def start(self) -> None:
        """Create the cluster if it is new, and start the server."""
        if not self._data.exists():
            self._run("initdb", "-U", _USER, "-A", "trust", "-E", "UTF8", "--no-sync", "-N")
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.directory),
            "max_connections": "300",
            **self._settings,
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._run(
            "pg_ctl", "-w", "-t", "60", "-l", str(self.directory / "log"), "-o", options, "start"
        )

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server; `immediate` is a crash."""
        self._run("pg_ctl", "-m", mode, "-w", "stop")

    def close(self) -> None:
        """Stop the server and remove everything."""
        if (self._data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, *, role: str = _USER) -> str:
        """Return the URL of an empty schema."""
        schema = f"t{os.getpid()}_{next(self._numbers)}"
        with psycopg.connect(self.base_url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}")
            if role != _USER:
                connection.execute(f"GRANT ALL ON SCHEMA {schema} TO {role}")
        return f"{self.base_url(role)}?options={quote(f'-csearch_path={schema}')}"

    def require_password(self, role: str) -> None:
        """Refuse that role without its password from now on; all others are trusted."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {role} all scram-sha-256\n{rules.read_text()}")
        self._run("pg_ctl", "reload")

    def base_url(self, role: str = _USER) -> str:
        """Return the URL of the database."""
        return f"postgresql://{role}@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(binary(program)), "-D", str(self._data), *arguments]
        output = self.directory / f"{program}.out"
        with output.open("w") as stream:  # a pipe would stay open in the server
            done = subprocess.run(
                command,
                user=self._user,
                group=pwd.getpwnam(self._user).pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
                cwd=self.directory,
                stdout=stream,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=120,
            )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{output.read_text()}")


def binary(program: str) -> Path:
    """Return a program of the newest installed server. Raises RuntimeError with the remedy."""
    found = sorted(Path("/").glob(f"{_FOLDERS.lstrip('/')}/{program}"))
    if not found:
        raise RuntimeError(
            f"no PostgreSQL server in {_FOLDERS}: run `make postgres` or `apt-get install postgresql`"
        )
    return found[-1]


def _ordinary_user() -> str | None:
    if os.geteuid():
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return _USER if _USER in known else "nobody"
