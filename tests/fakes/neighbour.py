"""A program of the same user beside the sidecar: `neighbour.py NAME`, with a secret in ABSTRACT.

Says that secret to whoever connects to the abstract socket NAME. Prints a line when it listens.
"""

import os
import socket
import sys

listener = socket.socket(socket.AF_UNIX)
listener.bind(f"\0{sys.argv[1]}")
listener.listen()
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(os.environ["ABSTRACT"].encode())
