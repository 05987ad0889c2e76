"""`opencode-sidecar child-env`: what the other container must be given, in attach mode."""

from __future__ import annotations

from pathlib import Path

from sidecar.commands import output
from sidecar.commands.gateway import load_settings
from sidecar.config import Settings
from sidecar.errors import SettingsError
from sidecar.opencode.confinement import Confinement, Surroundings, prepare
from sidecar.opencode.environment import ChildFiles, RelayAccess, attached_environment


def main(*, as_json: bool) -> int:
    """Print the environment, and write into the data directory what confines opencode.

    Raises CommandError when the settings are not those of attach mode, or when opencode cannot be confined as
    they require.
    """
    settings = load_settings()
    if settings.child.url is None:
        raise output.CommandError(
            "OPENCODE_URL is not set: without it the sidecar starts opencode itself and needs no "
            "environment for another container",
            exit_code=output.EXIT_USAGE,
        )
    files = ChildFiles(Path(settings.storage.data_dir).absolute() / "opencode")
    output.quiet_logs(is_verbose=True)  # stdout is what the other container reads
    try:
        confinement = _confine(settings, files)
    except SettingsError as error:
        raise output.CommandError(error.message, exit_code=output.EXIT_FAILED) from error
    environment = environment_of(settings, files, confinement)
    if as_json:
        output.print_json(environment)
    else:
        output.print_text("\n".join(f"{name}={value}" for name, value in environment.items()))
    return output.EXIT_OK


def environment_of(
    settings: Settings, files: ChildFiles, confinement: Confinement
) -> dict[str, str]:
    """Return the environment that fits these settings, which are those of attach mode."""
    relay, password = settings.relay, settings.child.password
    assert relay.token is not None
    assert password is not None
    return attached_environment(
        files,
        password=password.get_secret_value(),
        relay=RelayAccess(
            relay.url or f"http://127.0.0.1:{relay.port}/v1", relay.token.get_secret_value()
        ),
        confining=confinement.command,
    )


def _confine(settings: Settings, files: ChildFiles) -> Confinement:
    """Put in place what the launcher refers to: the other container may start before the sidecar does."""
    try:
        files.prepare()
        settings.storage.workspaces_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if settings.confinement.mode == "required":
            raise SettingsError(f"DATA_DIR: {error.filename}: {error.strerror}") from error
        return Confinement("off", (f"DATA_DIR cannot be written here: {error.strerror}",))
    return prepare(settings.confinement, Surroundings.of(settings, files, None))
