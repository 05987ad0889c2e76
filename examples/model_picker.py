"""Pick a valid model for a runtime and print its exact id.

    python examples/model_picker.py                    # all configured runtimes
    python examples/model_picker.py cursor opencode    # only these
    MODEL=$(python examples/model_picker.py opencode)  # the id alone goes to standard output

Keys come from the environment: ANTHROPIC_API_KEY, CURSOR_API_KEY, GEMINI_API_KEY, SIDECAR_BASE_URL and
SIDECAR_API_KEY, or LITELLM_BASE_URL and LITELLM_API_KEY. Without a terminal the menu is printed and
nothing is picked. Exit code 1: there is nothing to pick from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sidecar.sdk import AllModels, Client, ModelInfo


def describe(model: ModelInfo) -> str:
    """Return one menu line; the id is shown whole because that is what gets sent."""
    facts = []
    if model.display_name != model.id:
        facts.append(model.display_name)
    if model.max_input_tokens:
        facts.append(f"{model.max_input_tokens:,} tokens in")
    if model.max_tokens:
        facts.append(f"{model.max_tokens:,} out")
    if model.lifecycle != "active":
        facts.append(model.lifecycle)
    return f"{model.id}  ({', '.join(facts)})" if facts else model.id


def show(found: AllModels) -> list[ModelInfo]:
    """Print the menu on standard error; return the models in the order of their numbers."""
    numbered: list[ModelInfo] = []
    for runtime, page in found.pages.items():
        say(f"\n{runtime}" if len(page) else f"\n{runtime}: no models")
        for model in page:
            numbered.append(model)
            say(f"{len(numbered):5}  {describe(model)}")
    for problem in [*found.errors.values(), *found.unconfigured.values()]:
        say(f"\n{problem}")
    return numbered


def pick(models: Sequence[ModelInfo]) -> ModelInfo | None:
    """Ask until a number or an exact id is typed; None at the end of input."""
    by_id = {model.id: model for model in models}
    while True:
        say(f"\nNumber or id [1-{len(models)}]: ", end="")
        typed = sys.stdin.readline()
        if not typed:
            return None
        choice = typed.strip()
        if choice in by_id:
            return by_id[choice]
        if choice.isdecimal() and 1 <= int(choice) <= len(models):
            return models[int(choice) - 1]
        say(f"{choice!r} is neither a number of the list nor an id in it.", end="")


def say(text: str, *, end: str = "\n") -> None:
    """Write for the person, beside the id on standard output."""
    sys.stderr.write(f"{text}{end}")
    sys.stderr.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the picker; return the exit code."""
    parser = argparse.ArgumentParser(description="Pick a valid model for a runtime.")
    parser.add_argument("runtimes", nargs="*", help="default: all that are configured")
    names = parser.parse_args(arguments).runtimes
    with Client() as client:
        found = client.models.list_all(names or None)
    models = show(found)
    if not models:
        return 1
    if sys.stdin.isatty() and (chosen := pick(models)):
        sys.stdout.write(f"{chosen.id}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
