"""Another process of the same user that reads what /proc says of a process: `environ_reader.py PID SECRET`.

Reads until that has ended, and prints as JSON what the interpreter in it showed: how often its environment
could be read and how often not, what the last try was, and whether its command line had the secret.
"""

import json
import sys
from pathlib import Path

process, secret = Path("/proc", sys.argv[1]), sys.argv[2].encode()
seen = {"open": 0, "closed": 0, "last": "", "is_in_arguments": False}
while True:
    try:
        arguments = (process / "cmdline").read_bytes()
        if not (process / "comm").read_text().startswith("python") or not arguments:
            if " Z" in (process / "stat").read_text().rpartition(")")[2][:3]:
                break
            continue
        seen["is_in_arguments"] |= secret in arguments
        try:
            is_open = secret in (process / "environ").read_bytes()
        except PermissionError:
            is_open = False
        if (process / "cmdline").read_bytes():  # it has not ended meanwhile
            seen["last"] = "open" if is_open else "closed"
            seen[seen["last"]] += 1
    except (FileNotFoundError, ProcessLookupError):
        break
print(json.dumps(seen))
