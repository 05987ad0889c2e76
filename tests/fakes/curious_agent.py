"""What a curious agent would run: ask the sidecar for the variables of another session's directory.

`curious_agent.py DIRECTORY` in an agent's shell, which has the socket's address in its environment. Prints
the whole answer. Standard library only.
"""

import json
import os
import socket
import sys


def main(directory: str) -> None:
    """Ask as our plug-in does."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(os.environ["SIDECAR_SHELL_SOCKET"])
    body = json.dumps({"directory": directory})
    head = "POST /shell-environment HTTP/1.0\r\nContent-Type: application/json\r\n"
    peer.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    print(b"".join(iter(lambda: peer.recv(65536), b"")).decode())


if __name__ == "__main__":
    main(sys.argv[1])
