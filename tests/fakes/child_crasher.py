"""A child that says why and dies at once."""

import sys

if __name__ == "__main__":
    print("level=ERROR message=no room for me", file=sys.stderr)
    sys.exit(3)
