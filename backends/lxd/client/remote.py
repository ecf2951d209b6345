"""Talk over https: pylxd's connection, trust and API nodes, never its model objects.

Two of its habits are taken away from it: letting REQUESTS_CA_BUNDLE of the environment override the pinned certificate,
and giving an answer that drips as long as it likes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pylxd.client
import pylxd.exceptions
import requests
import urllib3
from cryptography import x509

from reconciler.backends.lxd.address import Address
from reconciler.backends.lxd.client.answers import LARGEST, Answer, TooMuch
from reconciler.backends.lxd.client.local import hint_for, reason
from reconciler.backends.lxd.client.timely import TimelyResponse
from reconciler.problems import Interrupted, Problem, Refused, Unreachable

_CHUNK = 256 * 1024


class _Connection(urllib3.connection.HTTPSConnection):
    response_class = TimelyResponse


class _Connections(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Connection


def open_session(address: Address) -> tuple[str, requests.Session]:
    """The endpoint as pylxd wants it, and a session for it that nothing in the environment can change."""
    endpoint = str(address.url)
    session = pylxd.client.get_session_for_url(
        endpoint,
        verify=str(address.server_certificate),  # pylxd pins by the fingerprint of exactly this certificate
        cert=(str(address.client_certificate), str(address.client_key)),
    )
    session.trust_env = False
    session.get_adapter(endpoint).poolmanager.pool_classes_by_scheme = {"https": _Connections}
    session.hooks["response"].append(_whole)
    return endpoint, session


def _whole(response: requests.Response, *_: Any, **__: Any) -> None:
    """Read the answer, as long as it is no longer than any that is meant well."""
    content = bytearray()
    for part in _parts(response):
        content += part
        if len(content) > LARGEST:
            response.close()
            raise TooMuch(LARGEST)
    response._content = bytes(content)  # where requests itself puts it


def _parts(response: requests.Response) -> Iterator[bytes]:
    """What comes, as it comes: whoever waits for a whole chunk waits for ever for one that drips."""
    try:
        while part := response.raw.read1(_CHUNK, decode_content=True):
            yield part
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ConnectionError(error) from error


class RemoteTalk:
    """Sends requests through pylxd's API nodes; safe for several threads."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._client: pylxd.client.Client | None = None

    def send(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str],
        timeout: float,
        json: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request. Raises Unreachable when LXD certainly did not get it, Interrupted when it may have."""
        node = self._connect(timeout).api
        for part in path:
            node = node[quote(part, safe="")]
        call = {"params": dict(query), "timeout": timeout, "headers": dict(headers or {})}
        if method == "GET":
            call["is_api"] = False
        else:
            call |= {"json": json, "data": data}
        try:
            response = getattr(node, method.lower())(**call)
        except pylxd.exceptions.LXDAPIException as error:
            response = error.response
        except requests.exceptions.RequestException as error:
            raise self._lost(error, method) from error
        return Answer(response.status_code, response.headers.get("ETag", "").strip('"'), response.content)

    def close(self) -> None:
        if self._client:
            self._client.api.session.close()

    def _connect(self, timeout: float) -> pylxd.client.Client:
        with self._lock:
            if self._client is None:
                self._client = self._open(timeout)
            return self._client

    def _open(self, timeout: float) -> pylxd.client.Client:
        self._check_files()
        endpoint, session = open_session(self._address)
        try:
            client = pylxd.client.Client(endpoint=endpoint, session=session, cert=session.cert, timeout=timeout)
        except (pylxd.exceptions.ClientConnectionFailed, requests.exceptions.RequestException) as error:
            session.close()
            raise self._silence(error) from error
        except pylxd.exceptions.LXDAPIException as error:
            session.close()
            raise Unreachable(Problem(f"LXD at {self._address} does not answer as it should: {error}")) from error
        except ValueError as error:
            session.close()
            raise Unreachable(Problem(f"what answers at {self._address} is not an LXD")) from error
        if not client.trusted:
            session.close()
            raise Refused(
                Problem(
                    f"LXD at {self._address} does not trust this client certificate",
                    hint=f"on its host: lxc config trust add {self._address.client_certificate}",
                )
            )
        return client

    def _check_files(self) -> None:
        """An https address needs all three files; saying which is missing, or is something else, beats a TLS error."""
        needed = {
            "serverCertificate": self._address.server_certificate,
            "clientCertificate": self._address.client_certificate,
            "clientKey": self._address.client_key,
        }
        for name, path in needed.items():
            if path is None or not path.is_file():
                raise Refused(Problem(f"{name}: there is no file {path}", hint="name a PEM file in the Host"))
            try:
                data = path.read_bytes()
                if name == "serverCertificate":
                    x509.load_pem_x509_certificate(data)
            except OSError as error:
                raise Refused(Problem(f"{name}: {path} cannot be read: {error.strerror}")) from error
            except ValueError as error:
                raise Refused(Problem(f"{name}: {path} holds no certificate in PEM")) from error

    def _lost(self, error: requests.exceptions.RequestException, method: str) -> Unreachable | Interrupted:
        cause = error.args[0] if error.args else None
        inner = getattr(cause, "reason", cause)
        never_sent = isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.SSLError) or isinstance(
            inner, urllib3.exceptions.NewConnectionError
        )
        if never_sent or method == "GET":
            return self._silence(error)
        return Interrupted(Problem(f"LXD at {self._address} got the request and did not answer: {_words(error)}"))

    def _silence(self, error: Exception) -> Unreachable:
        return Unreachable(
            Problem(f"no answer from LXD at {self._address}: {_words(error)}", hint=hint_for(_root(error)))
        )


def _root(error: BaseException) -> BaseException:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error


def _words(error: BaseException) -> str:
    text = str(error)
    if "Fingerprint" in text or "fingerprint" in text:
        return "its certificate is not the pinned one"
    return reason(_root(error))
