"""Endpoints, their addresses, and TLS that checks who answers and resumes its sessions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastserve.errors import DefinitionError
from fastserve.store.dynamodb.endpoint import Addresses, Endpoint, default_tls_context
from tests.store.dynamodb.conftest import Run


@pytest.mark.parametrize(
    "url, header",
    [
        ("https://dynamodb.eu-west-1.amazonaws.com", "dynamodb.eu-west-1.amazonaws.com"),
        ("https://dynamodb.eu-west-1.amazonaws.com:443/", "dynamodb.eu-west-1.amazonaws.com"),
        ("http://localhost:80", "localhost"),
        ("http://localhost:8000", "localhost:8000"),
        ("https://localhost:80", "localhost:80"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_the_host_header_has_the_port_where_it_is_not_the_schemes_own(url: str, header: str) -> None:
    assert Endpoint.of_url(url).host_header == header


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://x", "http://", "http://x/path", "http://x:y"])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(DefinitionError, match="endpoint: expected http://HOST:PORT or https://HOST"):
        Endpoint.of_url(url)


class FakeDns:
    """Replaces a loop's look-ups."""

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[list[str] | None] = []
        self.asked = 0
        monkeypatch.setattr(loop, "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.asked += 1
        await asyncio.sleep(0)
        answer = self.answers.pop(0)
        if answer is None:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answer]


def test_addresses_are_asked_for_again_after_a_while_and_kept_when_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        dns = FakeDns(loop, monkeypatch)
        addresses = Addresses(Endpoint("example.invalid", 80, tls=False))
        dns.answers = [["10.0.0.1", "10.0.0.2"], None, ["10.0.0.3"]]
        several = await asyncio.gather(addresses.next(), addresses.next())
        assert sorted(several) == [["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.1"]]
        assert dns.asked == 1
        addresses._known_until_s = 0.0
        assert sorted(await addresses.next()) == ["10.0.0.1", "10.0.0.2"]
        addresses._known_until_s = 0.0
        assert await addresses.next() == ["10.0.0.3"]

    asyncio.run(story())


def test_a_name_that_never_resolved_is_an_error_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        dns = FakeDns(asyncio.get_running_loop(), monkeypatch)
        dns.answers = [None, None]
        addresses = Addresses(Endpoint("example.invalid", 80, tls=False))
        for _ in range(2):
            with pytest.raises(OSError, match="not known"):
                await addresses.next()

    asyncio.run(story())


def test_an_unreadable_ca_bundle_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"AWS_CA_BUNDLE: expected a file of certificates, got '/none'"):
        default_tls_context("/none")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give a certificate for localhost that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    )
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


def serve_tls(listener: socket.socket, context: ssl.SSLContext, resumed: list[bool]) -> None:
    """Greet each connection until the listener is closed; write down whether its session was resumed."""
    with contextlib.suppress(OSError):
        while True:
            accepted, _ = listener.accept()
            with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as connection:
                resumed.append(bool(connection.session_reused))
                connection.sendall(b"hello\n")
                connection.recv(1)


@contextlib.contextmanager
def tls_server(certificate: tuple[Path, Path]) -> Iterator[tuple[int, list[bool]]]:
    """Run a TLS server in a thread; give its port and what it wrote down."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    resumed: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_tls, args=(listener, context, resumed))
        thread.start()
        yield listener.getsockname()[1], resumed
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_the_second_connection_resumes_the_firsts_session(run: Run, certificate: tuple[Path, Path]) -> None:
    async def story(port: int) -> None:
        context = default_tls_context(str(certificate[0]))
        for _ in range(3):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=context, server_hostname="localhost"
            )
            assert await reader.readline() == b"hello\n"
            writer.close()
            await writer.wait_closed()

    with tls_server(certificate) as (port, resumed):
        run(story(port))
    assert resumed == [False, True, True]


@pytest.mark.parametrize("trusted, name", [(True, "elsewhere"), (False, "localhost")])
def test_a_server_that_is_not_who_it_should_be_is_refused(
    run: Run, certificate: tuple[Path, Path], trusted: bool, name: str
) -> None:
    async def story(port: int) -> None:
        context = default_tls_context(str(certificate[0]) if trusted else None)
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)

    with tls_server(certificate) as (port, _):
        run(story(port))
