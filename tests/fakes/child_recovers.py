"""A child that dies at its first two starts in a directory and is healthy from the third."""

import sys
from pathlib import Path

from child_healthy import serve

if __name__ == "__main__":
    diary = Path("starts")
    starts = int(diary.read_text()) + 1 if diary.exists() else 1
    diary.write_text(str(starts))
    if starts <= 2:
        sys.exit(4)
    serve(sys.argv)
