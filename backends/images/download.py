"""APPLY, source ``url``: one file over https into the folder of its future cache entry, whole and as promised.

Plain http only from loopback; a redirect leads to https or, from loopback, to loopback. Nothing is resumed: what is not
whole is thrown away with its folder.
"""

from __future__ import annotations

import hashlib
import ipaddress
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

from reconciler.ports import Tell
from reconciler.problems import BackendError, Problem, Refused, Unreachable

CHUNK = 1 << 18
MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """size: bytes at most; silence: seconds without a byte; pace: bytes a second at least, after ``grace`` seconds."""

    size: int = 64 << 30
    silence: float = 30.0
    pace: float = 1024.0
    grace: float = 60.0


def download(url: str, sha256: str, path: Path, tell: Tell, limits: Limits | None = None) -> None:
    """Fetch ``url`` into ``path``. Raises Refused when what comes is not what was promised, Unreachable in silence."""
    check_url(url)
    with _named(url), _open(url, limits or Limits()) as response:
        found = _receive(response, path, _Meter(url, tell, limits or Limits()))
    if found != sha256:
        raise Refused(
            Problem(
                f"{url}: expected sha256 {sha256}, got {found}",
                hint="the file at this address is another one now: look where it comes from, then correct sha256",
            )
        )


def check_url(url: str, origin: str | None = None) -> None:
    """Raises Refused for addresses that we do not fetch from; origin: the address that redirected here."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise Refused(
            Problem("url: holds a user or a password", hint="an image address is shown and recorded: no secrets in it")
        )
    if parts.scheme == "https" and parts.hostname:
        return
    if (
        parts.scheme == "http"
        and _is_loopback(parts.hostname)
        and (origin is None or _is_loopback(urlsplit(origin).hostname))
    ):
        return
    where = f"{origin}: redirects to {url}" if origin else url
    raise Refused(Problem(f"{where}: expected https://", hint="plain http is accepted from this machine itself only"))


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message
    ) -> HTTPResponse | None:
        try:
            check_url(urljoin(req.full_url, headers.get("Location", "")), origin=req.full_url)
        except Refused:
            fp.close()
            raise
        return super().http_error_302(req, fp, code, msg, headers)  # type: ignore[arg-type]

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _open(url: str, limits: Limits) -> HTTPResponse:
    """Only the handlers that we mean: no file:, no ftp:, and no proxy on the way to ourselves."""
    opener = urllib.request.OpenerDirector()
    proxies = urllib.request.ProxyHandler({} if _is_loopback(urlsplit(url).hostname) else None)
    for handler in (
        proxies,
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"User-Agent": "reconciler", "Accept-Encoding": "identity"})  # noqa: S310
    response: HTTPResponse = opener.open(request, timeout=limits.silence)
    return response


class _Meter:
    """Says how far a download is, and when it is too slow or too much."""

    def __init__(self, url: str, tell: Tell, limits: Limits) -> None:
        self._url, self._tell, self._limits = url, tell, limits
        self._begun = self._told = time.monotonic()
        self.count = 0
        self.total: int | None = None

    def expect(self, total: int | None) -> None:
        self.total = total
        if total is not None and total > self._limits.size:
            raise self._too_much(f"{total} bytes")

    def _too_much(self, what: str) -> Refused:
        summary = f"{self._url}: {what} are more than the {self._limits.size} that we accept"
        return Refused(Problem(summary, hint="is it the address of an image?"))

    def add(self, count: int) -> None:
        self.count += count
        now = time.monotonic()
        if self.count > self._limits.size:
            raise self._too_much("its bytes")
        elapsed = now - self._begun
        if elapsed > self._limits.grace and self.count < elapsed * self._limits.pace:
            raise Unreachable(Problem(f"{self._url}: too slow: {self.count} bytes in {elapsed:.0f} s"))
        if now - self._told >= 0.5:
            self._told = now
            self._tell(f"downloading: {self.count >> 20} {f'of {self.total >> 20} ' if self.total else ''}MiB")


def _receive(response: HTTPResponse, path: Path, meter: _Meter) -> str:
    announced = response.headers.get("Content-Length")
    meter.expect(int(announced) if announced and announced.isdigit() else None)
    digest = hashlib.sha256()
    with path.open("wb") as target:
        # read1: what is there, so that a slow server is noticed and not waited for until a whole chunk has come.
        while chunk := response.read1(CHUNK):
            digest.update(chunk)
            target.write(chunk)
            meter.add(len(chunk))
    if meter.total is not None and meter.count != meter.total:
        raise Refused(
            Problem(
                f"{response.url}: truncated: expected {meter.total} bytes, got {meter.count}",
                hint="apply again; nothing of it was kept",
            )
        )
    return digest.hexdigest()


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Whatever goes wrong on the network, by what the caller must do about it."""
    try:
        yield
    except BackendError:
        raise
    except urllib.error.HTTPError as error:
        error.close()
        raise _answered(url, error) from None
    except (urllib.error.URLError, HTTPException, OSError) as error:
        raise _unanswered(url, error) from None


def _answered(url: str, error: urllib.error.HTTPError) -> BackendError:
    if error.code >= 500 or error.code == 429:
        return Unreachable(
            Problem(f"{url}: the server has trouble: {error.code} {error.reason}", hint="try again later")
        )
    if 300 <= error.code < 400:
        return Refused(
            Problem(f"{url}: redirects in a circle, or more than {MAX_REDIRECTS} times", hint="correct the url")
        )
    return Refused(Problem(f"{url}: expected a file, got {error.code} {error.msg}", hint="correct the url"))


def _unanswered(url: str, error: Exception) -> BackendError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        hint = "the server's certificate is not trusted here; nothing is fetched without"
        return Refused(Problem(f"{url}: {reason.verify_message}", hint=hint))
    if isinstance(reason, TimeoutError):
        return Unreachable(Problem(f"{url}: no answer"))
    return Unreachable(Problem(f"{url}: {getattr(reason, 'strerror', None) or reason or type(error).__name__}"))
