"""The authority signs what it should and nothing else."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from common.crypto.certificates import (
    Authority,
    TlsKey,
    check_issued,
    make_certificate_request,
)
from common.errors import ConfigError, EnrolmentError, KeyFileError

NOW_S = 1_790_000_000


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make("Test authority", TlsKey.generate(), now_s=NOW_S)


def _names(certificate_pem: str) -> list[str]:
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


def test_a_server_certificate_names_hosts_and_addresses(authority: Authority) -> None:
    pem = authority.issue_server_certificate(
        ["fed.example.org", "127.0.0.1", "::1"], TlsKey.generate(), now_s=NOW_S
    )
    assert _names(pem) == ["fed.example.org", "127.0.0.1", "::1"]
    check_issued(authority.certificate_pem, pem, "fed.example.org")


@pytest.mark.parametrize(
    "hosts", [[], [""], ["no spaces"], ["-a"], ["a..b"], ["é"], ["a" * 40 + "!"], ["x." * 200]]
)
def test_a_host_that_is_no_name_is_refused(authority: Authority, hosts: list[str]) -> None:
    with pytest.raises(ConfigError):
        authority.issue_server_certificate(hosts, TlsKey.generate(), now_s=NOW_S)


def test_a_site_certificate_carries_the_admitted_name_whatever_the_request_says(
    authority: Authority,
) -> None:
    request = make_certificate_request(TlsKey.generate(), "someone-else")
    pem = authority.issue_site_certificate(request, "north", now_s=NOW_S)
    check_issued(authority.certificate_pem, pem, "north")
    with pytest.raises(EnrolmentError):
        check_issued(authority.certificate_pem, pem, "someone-else")


def test_a_site_certificate_is_for_clients_only_and_signs_nothing(authority: Authority) -> None:
    request = make_certificate_request(TlsKey.generate(), "north")
    pem = authority.issue_site_certificate(request, "north", now_s=NOW_S)
    found = x509.load_pem_x509_certificate(pem.encode()).extensions
    assert not found.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not found.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    usage = found.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [item.dotted_string for item in usage] == ["1.3.6.1.5.5.7.3.2"]


def _request_by(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    is_ed25519 = isinstance(key, ed25519.Ed25519PrivateKey)
    signed = builder.sign(key, None if is_ed25519 else SHA256())
    return signed.public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    "request_pem",
    [
        "",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        _request_by(ed25519.Ed25519PrivateKey.generate()),
        _request_by(ec.generate_private_key(ec.SECP521R1())),
    ],
)
def test_a_request_for_another_kind_of_key_is_refused(
    authority: Authority, request_pem: str
) -> None:
    with pytest.raises(EnrolmentError):
        authority.issue_site_certificate(request_pem, "north", now_s=NOW_S)


def test_a_request_not_signed_by_its_own_key_is_refused(authority: Authority) -> None:
    der = x509.load_pem_x509_csr(
        make_certificate_request(TlsKey.generate(), "north").encode()
    ).public_bytes(Encoding.DER)
    changed = der.replace(b"north", b"south")
    pem = x509.load_der_x509_csr(changed).public_bytes(Encoding.PEM).decode()
    with pytest.raises(EnrolmentError):
        authority.issue_site_certificate(pem, "south", now_s=NOW_S)


def test_another_authority_with_the_same_name_did_not_issue_it(authority: Authority) -> None:
    request = make_certificate_request(TlsKey.generate(), "north")
    pem = authority.issue_site_certificate(request, "north", now_s=NOW_S)
    impostor = Authority.make("Test authority", TlsKey.generate(), now_s=NOW_S)
    with pytest.raises(EnrolmentError):
        check_issued(impostor.certificate_pem, pem, "north")


def test_a_site_certificate_cannot_stand_in_for_the_authority(authority: Authority) -> None:
    request = make_certificate_request(TlsKey.generate(), "north")
    pem = authority.issue_site_certificate(request, "north", now_s=NOW_S)
    with pytest.raises(EnrolmentError):
        check_issued(pem, pem, "north")


def test_an_authority_survives_its_two_files(authority: Authority, tmp_path: Path) -> None:
    authority.key.write(tmp_path / "ca.key")
    again = Authority.from_pem(authority.certificate_pem, TlsKey.read(tmp_path / "ca.key"))
    request = make_certificate_request(TlsKey.generate(), "north")
    pem = again.issue_site_certificate(request, "north", now_s=NOW_S)
    check_issued(authority.certificate_pem, pem, "north")


def test_an_authority_with_another_key_is_refused(authority: Authority) -> None:
    with pytest.raises(KeyFileError):
        Authority.from_pem(authority.certificate_pem, TlsKey.generate())
    with pytest.raises(KeyFileError):
        Authority.from_pem("no certificate", authority.key)


def test_a_file_that_is_no_tls_key_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "tls.key").write_text("-----BEGIN PRIVATE KEY-----\nsecret\n")
    (tmp_path / "tls.key").chmod(0o600)
    with pytest.raises(KeyFileError) as caught:
        TlsKey.read(tmp_path / "tls.key")
    assert "secret" not in str(caught.value)


def test_the_repr_of_a_tls_key_shows_nothing() -> None:
    assert repr(TlsKey.generate()) == "TlsKey(...)"


def test_a_self_signed_certificate_that_is_no_authority_issues_nothing() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "north")])
    start = datetime.datetime.fromtimestamp(NOW_S, tz=datetime.UTC)
    for is_authority in (False, True):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(key, SHA256())
        )
        pem = certificate.public_bytes(Encoding.PEM).decode()
        if is_authority:
            check_issued(pem, pem, "north")
        else:
            with pytest.raises(EnrolmentError):
                check_issued(pem, pem, "north")


def test_the_authority_can_make_no_further_authority(authority: Authority) -> None:
    found = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert found.critical
    assert found.value.path_length == 0
