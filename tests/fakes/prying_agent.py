"""What a curious agent would run: ask the sidecar for the variables of another session's directory.

`prying_agent.py SOCKET DIRECTORY` in an agent's shell. Prints the whole answer. Standard library only.
"""

import json
import socket
import sys


def main(path: str, directory: str) -> None:
    """Ask as our plug-in does."""
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(path)
    body = json.dumps({"directory": directory})
    head = "POST /shell-environment HTTP/1.0\r\nContent-Type: application/json\r\n"
    peer.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    print(b"".join(iter(lambda: peer.recv(65536), b"")).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
