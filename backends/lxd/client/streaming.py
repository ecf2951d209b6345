"""Requests whose headers count, or whose answer need not fit into memory: files of guests. One connection each."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import cast

from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client.answers import LARGEST, Answer
from reconciler.backends.lxd.client.timely import TimelyResponse
from reconciler.backends.lxd.client.websockets import connect, silence

_CHUNK = 256 * 1024


class _Connection(http.client.HTTPConnection):
    """HTTP on a socket of ours: a unix socket, or pinned TLS."""

    response_class = TimelyResponse

    def __init__(self, address: Address, timeout: float) -> None:
        super().__init__("lxd", timeout=timeout)
        self._address = address

    def connect(self) -> None:
        self.sock = connect(self._address, float(self.timeout or 0.0))


def ask(
    address: Address, method: str, target: str, timeout: float, sink: Callable[[bytes], None] | None = None
) -> Answer:
    """GET or HEAD. sink: gets the body of a good answer piece by piece, each within ``timeout`` seconds.

    Raises Unreachable, also when the answer ends too early; and whatever the sink raises, as it is.
    """
    with closing(_Connection(address, timeout)) as connection:
        with _hearing(address):
            connection.request(method, target)
            response = cast(TimelyResponse, connection.getresponse())
            headers = {name.lower(): value for name, value in response.headers.items()}
            if sink is None or not 200 <= response.status < 300:
                return Answer(response.status, "", response.read(LARGEST), headers)
        while data := _piece(address, response):
            sink(data)
        return Answer(response.status, "", b"", headers)


def _piece(address: Address, response: TimelyResponse) -> bytes:
    with _hearing(address):
        response.renew()
        data = response.read(_CHUNK)
        if not data and response.length:
            raise http.client.IncompleteRead(b"", response.length)
        return data


@contextmanager
def _hearing(address: Address) -> Iterator[None]:
    try:
        yield
    except (http.client.HTTPException, OSError) as error:
        raise silence(address, error) from error
