"""`opencode-sidecar child-env`: what the other container must be given, in attach mode."""

from __future__ import annotations

from pathlib import Path

from sidecar.commands import output
from sidecar.commands.gateway import load_settings
from sidecar.config import Settings
from sidecar.opencode.environment import ChildFiles, RelayAccess, attached_environment


def main(*, as_json: bool) -> int:
    """Print the environment. Raises CommandError when the settings are not those of attach mode."""
    settings = load_settings()
    if settings.child.url is None:
        raise output.CommandError(
            "OPENCODE_URL is not set: without it the sidecar starts opencode itself and needs no "
            "environment for another container",
            exit_code=output.EXIT_USAGE,
        )
    environment = environment_of(settings)
    if as_json:
        output.print_json(environment)
    else:
        output.print_text("\n".join(f"{name}={value}" for name, value in environment.items()))
    return output.EXIT_OK


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the environment that fits these settings, which are those of attach mode."""
    relay, password = settings.relay, settings.child.password
    assert relay.token is not None
    assert password is not None
    return attached_environment(
        ChildFiles(Path(settings.storage.data_dir).absolute() / "opencode"),
        password=password.get_secret_value(),
        relay=RelayAccess(
            relay.url or f"http://127.0.0.1:{relay.port}/v1", relay.token.get_secret_value()
        ),
    )
