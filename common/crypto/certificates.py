"""The consortium's certificate authority and the certificates it signs (X.509, EC P-256)."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.crypto.key_files import read_secret, write_secret
from common.crypto.keys import fingerprint_of
from common.errors import ConfigError, EnrolmentError, KeyFileError

AUTHORITY_DAYS: Final = 3650
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
BOARD_PREFIX: Final = "board:"
# With the prefix it fits the 64 characters of a common name (X.520, ub-common-name).
_BOARD_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,56}[a-z0-9])?")
LEAF_DAYS: Final = 825  # CA/Browser Forum's former limit, still what clients accept


@dataclass(frozen=True, repr=False)
class TlsKey:
    """An EC P-256 private key for one TLS certificate."""

    key: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> Self:
        """Make a new key from the operating system's randomness."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a PEM key file; raises `KeyFileError`."""
        try:
            key = load_pem_private_key(read_secret(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise KeyFileError(
                "a TLS key file does not hold the key it should",
                expected=f"an EC private key in PEM form in {path}",
                arrived="something else",
                todo="restore the key from its backup",
            )
        return cls(key)

    def write(self, path: Path) -> None:
        """Write a new 0600 PEM file; raises `KeyFileError`."""
        write_secret(
            path, self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )

    def __repr__(self) -> str:
        return "TlsKey(...)"


@dataclass(frozen=True, repr=False)
class Authority:
    """The consortium's certificate authority: its certificate and its key."""

    certificate: x509.Certificate
    key: TlsKey

    @classmethod
    def make(cls, name: str, key: TlsKey, *, now_s: int) -> Self:
        """Return a self-signed authority that may sign end certificates only."""
        subject = _name(name)
        builder = (
            _builder(subject, subject, key, now_s=now_s, days=AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(is_authority=True), critical=True)
        )
        return cls(builder.sign(key.key, SHA256()), key)

    @classmethod
    def from_pem(cls, certificate_pem: str, key: TlsKey) -> Self:
        """Return the authority of a stored certificate and key; raises `KeyFileError`."""
        certificate = _load(certificate_pem)
        if certificate is None or certificate.public_key() != key.key.public_key():
            raise KeyFileError(
                "the certificate authority cannot be used",
                expected="a certificate in PEM form and the private key that belongs to it",
                arrived="another certificate, or another key",
                todo="restore both files from the same backup",
            )
        return cls(certificate, key)

    @property
    def certificate_pem(self) -> str:
        """The authority's certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue_server_certificate(self, hosts: Sequence[str], key: TlsKey, *, now_s: int) -> str:
        """Return a server certificate (PEM) for host names and IP addresses.

        Raises:
            ConfigError: no host, or one that is neither a name nor an address.
        """
        names = [_host_name(host) for host in hosts]
        if not names:
            raise _host_error("none")
        builder = (
            self._leaf(_name(hosts[0]), key.key.public_key(), now_s=now_s)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        return builder.sign(self.key.key, SHA256()).public_bytes(Encoding.PEM).decode()

    def issue_site_certificate(self, request_pem: str, site_id: str, *, now_s: int) -> str:
        """Return a client certificate (PEM) for a site's request; raises `EnrolmentError`.

        The name in the certificate is the admitted site id, whatever the request says.
        """
        return self._issue_client_certificate(request_pem, site_id, now_s=now_s)

    def issue_board_certificate(self, request_pem: str, board_id: str, *, now_s: int) -> str:
        """Return a client certificate (PEM) for a monitor board or an aggregator.

        Its name is `board_name(board_id)`, which no site can have.

        Raises:
            EnrolmentError: for another request, or an id that does not fit.
        """
        return self._issue_client_certificate(request_pem, board_name(board_id), now_s=now_s)

    def _issue_client_certificate(self, request_pem: str, name: str, *, now_s: int) -> str:
        public_key = check_certificate_request(request_pem)
        builder = self._leaf(_name(name), public_key, now_s=now_s).add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        return builder.sign(self.key.key, SHA256()).public_bytes(Encoding.PEM).decode()

    def _leaf(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, *, now_s: int
    ) -> x509.CertificateBuilder:
        return (
            _builder(subject, self.certificate.subject, public_key, now_s=now_s, days=LEAF_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.key.public_key()),
                critical=False,
            )
        )


def board_name(board_id: str) -> str:
    """Return the name in a board's certificate; raises `EnrolmentError` for an id not to be used.

    A colon is in no site id, so a board's certificate never passes for a site's.
    """
    if not _BOARD_ID.fullmatch(board_id):
        raise EnrolmentError(
            "a board's id is refused",
            expected="1 to 58 lower-case letters, digits and hyphens, none at either end",
            arrived=repr(board_id[:80]),
            todo="choose another id, and use the same one in the monitoring roster",
        )
    return BOARD_PREFIX + board_id


def make_certificate_request(key: TlsKey, site_id: str) -> str:
    """Return a certificate request (PEM) signed by the site's TLS key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(site_id))
    return builder.sign(key.key, SHA256()).public_bytes(Encoding.PEM).decode()


def check_certificate_request(request_pem: str) -> ec.EllipticCurvePublicKey:
    """Return the EC P-256 key that a request asks for; raises `EnrolmentError`.

    The request must be signed by that key, so that nobody gets a certificate for another's key.
    """
    try:
        request = x509.load_pem_x509_csr(request_pem.encode())
        is_valid = request.is_signature_valid
        public_key = request.public_key()
    except (ValueError, UnsupportedAlgorithm):
        is_valid, public_key = False, None
    if (
        not is_valid
        or not isinstance(public_key, ec.EllipticCurvePublicKey)
        or not isinstance(public_key.curve, ec.SECP256R1)
    ):
        raise EnrolmentError(
            "a certificate request is refused",
            expected="a PEM request for an EC P-256 key, signed by that key",
            arrived="something else",
            todo="make the request again with `cohortium-site enroll`",
        )
    return public_key


def check_issued(authority_pem: str, certificate_pem: str, common_name: str) -> None:
    """Check that an authority issued a certificate for this name; raises `EnrolmentError`.

    Dates are not looked at: the caller's TLS library does that at each connection.
    """
    authority, certificate = _load(authority_pem), _load(certificate_pem)
    try:
        is_issued = (
            authority is not None
            and certificate is not None
            and authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
            and certificate.subject == _name(common_name)
        )
        if is_issued and authority is not None and certificate is not None:
            certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        is_issued = False
    if not is_issued:
        raise EnrolmentError(
            "a certificate is refused",
            expected=f"a certificate for {common_name}, issued by the consortium's authority",
            arrived="something else",
            todo="ask the coordinator for the enrolment file again",
        )


def tls_fingerprint(request_pem: str) -> str:
    """Return the fingerprint of the key that a request is for; raises `EnrolmentError`."""
    point = check_certificate_request(request_pem).public_bytes(
        Encoding.X962, PublicFormat.CompressedPoint
    )
    return fingerprint_of("tls", point)


def certifies(certificate_pem: str, key: TlsKey) -> bool:
    """Return whether a PEM certificate is for this key."""
    certificate = _load(certificate_pem)
    return certificate is not None and certificate.public_key() == key.key.public_key()


def expires_at_s(certificate_pem: str) -> int:
    """Return when a PEM certificate ends, in seconds since 1970; raises `KeyFileError`."""
    certificate = _load(certificate_pem)
    if certificate is None:
        raise KeyFileError(
            "a certificate cannot be read",
            expected="a certificate in PEM form",
            arrived="something else",
            todo="restore the file from its backup, or run `cohortium-coordinator renew`",
        )
    return int(certificate.not_valid_after_utc.timestamp())


def check_authorities(authorities_pem: bytes) -> None:
    """Check that a file holds PEM certificates; raises `EnrolmentError`."""
    try:
        x509.load_pem_x509_certificates(authorities_pem)
    except (ValueError, UnsupportedAlgorithm):
        raise EnrolmentError(
            "a file of certificate authorities is refused",
            expected="one or more PEM certificates",
            arrived="something else",
            todo="ask whoever runs the inspecting proxy for its CA certificate in PEM form",
        ) from None


def _load(certificate_pem: str) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(certificate_pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host):
            raise _host_error(repr(host[:80])) from None
        return x509.DNSName(host)


def _host_error(arrived: str) -> ConfigError:
    return ConfigError(
        "no server certificate can be made",
        expected="host names of ASCII letters, digits, hyphens and dots, or IP addresses",
        arrived=arrived,
        todo="give the name that the sites connect to",
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: TlsKey | ec.EllipticCurvePublicKey,
    *,
    now_s: int,
    days: int,
) -> x509.CertificateBuilder:
    public_key = key.key.public_key() if isinstance(key, TlsKey) else key
    now = datetime.datetime.fromtimestamp(now_s, tz=datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
