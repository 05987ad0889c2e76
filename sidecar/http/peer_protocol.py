"""What pods say to each other over the internal listener.

Every pod has that listener, with a key of its own. A request is forwarded once: a pod that is not the owner
answers 421, and the sender looks the owner up again. A stream over the hop is a sequence of records, each a
number (the last event before its end), a length, and the bytes for the client, so that the pod with the
client can go on elsewhere when the owner dies, without reading what it passes on.
"""

from __future__ import annotations

import struct

PREFIX = "/peer"
KEY_HEADER = "x-sidecar-peer-key"
ID_HEADER = "x-sidecar-forwarded-as"
"""The id under which a request is forwarded, also when it is sent again; stored with what it changed."""
REPEATED_HEADER = "x-sidecar-repeated"
"""Sent with a request that may have been accepted under its id before: only then is it looked for."""
BOOT_HEADER = "x-sidecar-boot"
"""In every answer: the boot that gives it. An address is given again, to a pod or to another program."""
CLAIM_HEADER = "x-sidecar-may-claim"
"""Sent by a pod that is stopping: the receiver may become the owner."""

RECORD = struct.Struct(">QI")
THE_END = RECORD.pack(0, 0)
"""The session is over, not only this pod."""
