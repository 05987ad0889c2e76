"""Which addresses an agent's requests may be connected to: public ones, and networks that a setting names.

A URL cannot be checked for this. One address has many spellings, a name may lead to a private address, and to
another one a moment later, so the address that is connected to is what is checked, at the one place where
connections are made.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


class RefusedAddressError(OSError):
    """The address must not be connected to. An OSError: what opens connections reports nothing else."""

    def __init__(self) -> None:
        super().__init__(
            "its address is not a public one, and SIDECAR_WEB_PRIVATE_NETWORKS does not name it"
        )


class AddressGuard:
    """Opens sockets for permitted addresses only."""

    def __init__(self, private_networks: Iterable[Network]) -> None:
        self._private_networks = tuple(private_networks)

    def permits(self, address: Address) -> bool:
        """Return whether the address may be connected to."""
        meant = _unwrapped(address)
        if any(meant in network for network in self._private_networks):
            return True
        is_site_local = isinstance(meant, ipaddress.IPv6Address) and meant.is_site_local
        is_special = meant.is_multicast or meant.is_reserved or meant.is_unspecified
        return meant.is_global and not is_special and not is_site_local

    def check(self, host: str) -> None:
        """Raise RefusedAddressError unless the numeric address is permitted."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise RefusedAddressError from None
        if not self.permits(address):
            raise RefusedAddressError

    def socket_for(self, info: Sequence[Any]) -> socket.socket:
        """Return the socket that is to be connected to an address, in the form of `getaddrinfo`.

        Raises RefusedAddressError.
        """
        family, kind, protocol, _, address = info
        self.check(str(address[0]))
        return socket.socket(family=family, type=kind, proto=protocol)


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 one, where there is one: that is what is reached."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
