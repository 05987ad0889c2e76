"""The command line: `opencode-sidecar serve` and what else operators need."""

from __future__ import annotations

from typing import Annotated

import typer

from sidecar import __version__
from sidecar import serve as serving
from sidecar.settings_table import markdown_table

app = typer.Typer(
    name="opencode-sidecar",
    help="opencode behind the Anthropic Managed Agents API, with every model your gateway offers.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def version(
    *, show: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> None:
    """Options of the program itself."""
    if show:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def serve() -> None:
    """Serve until Ctrl-C or SIGTERM. All settings come from the environment, see `config`."""
    raise typer.Exit(serving.main())


@app.command()
def config(
    *, markdown: Annotated[bool, typer.Option(help="Print the README's table of settings.")] = False
) -> None:
    """Show the settings."""
    if markdown:
        typer.echo(markdown_table())


def main() -> None:
    """Run the command line."""
    app()
