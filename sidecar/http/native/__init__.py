"""opencode's own API on our port: what is forwarded, what the sidecar answers itself, and what is refused."""

from sidecar.http.native.api import NativeApi

__all__ = ["NativeApi"]
