"""OpenSSL and the X.509 verifier accept our certificates, both ways, in their strictest mode."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from common.crypto.certificates import Authority, TlsKey, make_certificate_request

NOW_S = int(time.time())


class _Pki:
    def __init__(self, folder: Path) -> None:
        self.authority = Authority.make("Test authority", TlsKey.generate(), now_s=NOW_S)
        self.ca = folder / "ca.pem"
        self.ca.write_text(self.authority.certificate_pem)
        self.server, server_key = folder / "server.pem", TlsKey.generate()
        self.server_key = folder / "server.key"
        server_key.write(self.server_key)
        self.server.write_text(
            self.authority.issue_server_certificate(
                ["localhost", "127.0.0.1"], server_key, now_s=NOW_S
            )
        )
        self.site, site_key = folder / "site.pem", TlsKey.generate()
        self.site_key = folder / "site.key"
        site_key.write(self.site_key)
        request = make_certificate_request(site_key, "north")
        self.site.write_text(self.authority.issue_site_certificate(request, "north", now_s=NOW_S))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> _Pki:
    return _Pki(tmp_path_factory.mktemp("pki"))


def _server_context(pki: _Pki) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(pki.server, pki.server_key)
    context.load_verify_locations(pki.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _client_context(pki: _Pki, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def _greet(pki: _Pki, client: ssl.SSLContext, host: str) -> str:
    """Return the name of the client as the server saw it, over a real connection."""
    seen: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    with _server_context(pki).wrap_socket(connection, server_side=True) as tls:
                        peer = tls.getpeercert()
                        seen.append(str(dict(item[0] for item in peer["subject"])["commonName"]))
                        tls.sendall(b"hello")
                except (ssl.SSLError, OSError):
                    seen.append("")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listener.getsockname()) as raw,
                client.wrap_socket(raw, server_hostname=host) as tls,
            ):
                assert tls.recv(5) == b"hello"
        finally:
            thread.join(timeout=20)
    return seen[0]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_site_and_server_accept_each_other(pki: _Pki, host: str) -> None:
    assert _greet(pki, _client_context(pki, pki.site, pki.site_key), host) == "north"


def test_the_server_is_refused_under_another_name(pki: _Pki) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        _greet(pki, _client_context(pki, pki.site, pki.site_key), "other.example.org")


def test_a_client_without_a_certificate_is_refused(pki: _Pki) -> None:
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        _greet(pki, _client_context(pki, None, None), "localhost")


def test_a_server_certificate_does_not_serve_as_a_sites(pki: _Pki) -> None:
    with pytest.raises((ssl.SSLError, OSError, AssertionError)):
        _greet(pki, _client_context(pki, pki.server, pki.server_key), "localhost")


def _policy(pki: _Pki, now_s: int) -> PolicyBuilder:
    store = Store([x509.load_pem_x509_certificate(pki.ca.read_bytes())])
    return (
        PolicyBuilder().store(store).time(datetime.datetime.fromtimestamp(now_s, tz=datetime.UTC))
    )


def test_the_web_profile_of_x509_accepts_the_server_certificate(pki: _Pki) -> None:
    certificate = x509.load_pem_x509_certificate(pki.server.read_bytes())
    verifier = _policy(pki, NOW_S).build_server_verifier(x509.DNSName("localhost"))
    assert len(verifier.verify(certificate, [])) == 2


@pytest.mark.parametrize("later_s", [-2 * 3600, 826 * 24 * 3600])
def test_a_certificate_is_refused_outside_its_dates(pki: _Pki, later_s: int) -> None:
    certificate = x509.load_pem_x509_certificate(pki.server.read_bytes())
    verifier = _policy(pki, NOW_S + later_s).build_server_verifier(x509.DNSName("localhost"))
    with pytest.raises(VerificationError):
        verifier.verify(certificate, [])
