"""`python -m sidecar.compat`: the same as `opencode-sidecar doctor --compat`."""

from sidecar.commands.compat import main

if __name__ == "__main__":
    raise SystemExit(main(as_json=False, is_verbose=False))
