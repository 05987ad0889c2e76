"""The command line. Only options and help are here; each command's code is loaded when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sidecar import __version__
from sidecar.commands import output

_EPILOG = (
    "Exit codes: 0 fine; 1 something looked for is wrong (a check or the turn failed); 2 wrong option, "
    "model or setting; 3 something cannot be reached; 4 a key was refused; 130 interrupted."
)

app = typer.Typer(
    name="opencode-sidecar",
    help="opencode behind the Anthropic Managed Agents API, with every model your LiteLLM gateway offers.\n\n"
    "Begin with `opencode-sidecar serve`: without any setting it serves a demo gateway with scripted "
    "answers. Set LITELLM_BASE_URL and LITELLM_API_KEY for real models, `opencode-sidecar doctor` to "
    'see that all is well, and `opencode-sidecar run "hello"` to try a model.',
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on stdout; its shapes are in docs/cli.md.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show the log of what is started here on stderr.")
]
Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Ask this running sidecar, by default SIDECAR_BASE_URL; its key is SIDECAR_API_KEY.",
        show_default=False,
    ),
]


def _complete_runtime(incomplete: str) -> list[str]:
    names = ("anthropic", "cursor", "gemini", "opencode")
    return [name for name in names if name.startswith(incomplete)]


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
    """Serve until Ctrl-C or SIGTERM.

    All settings come from the environment: `opencode-sidecar config` lists them.
    """
    from sidecar import start  # noqa: PLC0415  # --help must not load the server

    raise typer.Exit(start.main())


@app.command()
def run(
    prompt: Annotated[str, typer.Argument(help='What to ask; "-" reads it from stdin.')],
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="ID",
            help="A model id of `opencode-sidecar models`; without it the default or first one.",
        ),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system prompt.")] = None,
    url: Url = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the data of the sidecar started here. Not the DATA_DIR of a running server. "
            "Without it everything is temporary.",
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Do not delete the session afterwards.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run one session with one prompt, to try a model.

    Talks to a running sidecar (--url or SIDECAR_BASE_URL), else starts one for the occasion. The answer
    goes to stdout, tools and progress to stderr. Ctrl-C interrupts the turn, a second one leaves at once.
    With --json each event of the session is one line.
    """
    from sidecar.commands import run as command  # noqa: PLC0415  # see serve

    options = command.Options(
        prompt=prompt,
        model=model,
        system=system,
        url=url,
        data_dir=data_dir,
        keep=keep,
        as_json=as_json,
        is_verbose=verbose,
    )
    output.finish(lambda: command.main(options), as_json=as_json)


@app.command()
def models(
    *,
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The list of this runtime: opencode (the default), anthropic, cursor, gemini.",
            autocompletion=_complete_runtime,
        ),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="The lists of all configured runtimes.")
    ] = False,
    hidden: Annotated[
        bool, typer.Option("--hidden", help="Also those left out of the list, and why.")
    ] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the models that can be picked, and who said each number."""
    from sidecar.commands import models as command  # noqa: PLC0415  # see serve

    output.finish(
        lambda: command.main(
            runtime=runtime, is_all=all_, show_hidden=hidden, url=url, as_json=as_json
        ),
        as_json=as_json,
    )


@app.command()
def doctor(
    *,
    completion: Annotated[
        bool, typer.Option("--completion", help="Also ask the gateway for one tiny completion.")
    ] = False,
    turn: Annotated[
        bool, typer.Option("--turn", help="Also run one turn on the default model, end to end.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not boot the scratch instance of opencode.")
    ] = False,
    compat: Annotated[
        bool,
        typer.Option(
            "--compat",
            help="Instead check, against the real opencode, each fact that the sidecar is built on. "
            "For another version than the pinned one; takes a minute.",
        ),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check everything the sidecar needs, and say how to fix what is wrong.

    May be used while a server runs: nothing of it is touched. Costs no tokens unless --completion or
    --turn is given.
    """
    if compat:
        from sidecar.commands import compat as checks  # noqa: PLC0415  # see serve

        output.finish(lambda: checks.main(as_json=as_json, is_verbose=verbose), as_json=as_json)
    from sidecar.commands import doctor as command  # noqa: PLC0415  # see serve

    output.finish(
        lambda: command.main(
            with_completion=completion,
            with_turn=turn,
            is_quick=quick,
            as_json=as_json,
            is_verbose=verbose,
        ),
        as_json=as_json,
    )


@app.command()
def config(
    *,
    schema: Annotated[bool, typer.Option("--schema", help="Print JSON Schema.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the README's table of settings.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the effective settings and where each comes from; secrets are masked."""
    from sidecar.commands import config as command  # noqa: PLC0415  # see serve

    output.finish(
        lambda: command.main(as_markdown=markdown, as_schema=schema, as_json=as_json),
        as_json=as_json,
    )


store = typer.Typer(no_args_is_help=True, help="Move or back up everything that is stored.")
app.add_typer(store, name="store")


@store.command("copy")
def store_copy(
    target: Annotated[
        Literal["postgres", "sqlite"],
        typer.Argument(help="Where to: `postgres` is DATABASE_URL, `sqlite` the file in DATA_DIR."),
    ],
    *,
    as_json: AsJson = False,
) -> None:
    """Copy everything between the data directory's SQLite and PostgreSQL. The target must be empty.

    No sidecar may run on either meanwhile. Files of sessions, and what opencode keeps, stay where they are.
    """
    from sidecar.commands import store as command  # noqa: PLC0415  # see serve

    output.finish(lambda: command.copy_main(target=target, as_json=as_json), as_json=as_json)


@store.command("backup")
def store_backup(
    target: Annotated[Path, typer.Argument(help="The file to make.")], *, as_json: AsJson = False
) -> None:
    """Make a consistent copy of the SQLite file, also while a server runs on it."""
    from sidecar.commands import store as command  # noqa: PLC0415  # see serve

    output.finish(lambda: command.backup_main(target=target, as_json=as_json), as_json=as_json)


@app.command("child-env")
def child_env(*, as_json: AsJson = False) -> None:
    """Print what opencode must be given when another container runs it (OPENCODE_URL is set).

    The lines fit an env file; they contain secrets.
    """
    from sidecar.commands import child_env as command  # noqa: PLC0415  # see serve

    output.finish(lambda: command.main(as_json=as_json), as_json=as_json)


def main() -> None:
    """Run the command line."""
    app(prog_name="opencode-sidecar")  # also when run as `python -m sidecar`
