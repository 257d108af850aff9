"""Enrolment as the site does it: keys made here, one request out, one signed answer in."""

from __future__ import annotations

import json
import os
import re
import secrets
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

from pydantic import ValidationError

from common.clock import Clock
from common.crypto.certificates import (
    TlsKey,
    certifies,
    check_authorities,
    make_certificate_request,
)
from common.crypto.key_files import write_secret
from common.crypto.keys import (
    OpeningKey,
    SealingKey,
    SigningKey,
    VerifyKey,
    is_same_fingerprint,
)
from common.crypto.node_key import make_node_key, node_public_text, read_node_key
from common.errors import EnrolmentError
from common.protocol.enrolment import (
    EnrolmentRecord,
    EnrolmentRequest,
    read_enrolment,
    write_request,
)
from common.protocol.enrolment_records import HOST_AND_PORT
from site_client.config import SitePaths

KeyT = TypeVar("KeyT", SigningKey, OpeningKey, TlsKey)

SALT_BYTES: Final = 32

_TEMPLATE = """\
# What hospital IT decides; docs/operating-a-site.md explains every key.
[site]
id = "{site_id}"
declared_cohort_size = 100  # public: roughly how many patients this site brings

[limits]
epsilon_per_study = 4.0     # no study may spend more on a patient
epsilon_total = 8.0         # nor all studies together, at delta_total
delta_total = 1e-3
cohort_size_min = 50

[source]                    # see docs/table-source.md
kind = "table"
path = "patients.csv"
subject_id = "patient_id"

[source.features]

[source.label]
column = "outcome"
positive = ["1"]
negative = ["0"]
"""


@dataclass(frozen=True)
class SiteIdentity:
    """Who asks to be enrolled."""

    site_id: str
    organisation: str
    contact: str


def make_request(paths: SitePaths, identity: SiteIdentity, *, out: Path, clock: Clock) -> str:
    """Make the site's folder and keys, write the request file, and return the fingerprint.

    Keys are made once: asking again writes the same public keys into a new request.

    Raises:
        KeyFileError, EnrolmentError: when a file cannot be written.
    """
    _make_folders(paths)
    if paths.config.exists():
        check_same_site(paths, identity.site_id)
    signing = _key(paths.signing_key, SigningKey)
    opening = _key(paths.opening_key, OpeningKey)
    _adopt_tls_key(paths)
    _key(paths.tls_key, TlsKey)
    if not paths.salt.exists():
        write_secret(paths.salt, secrets.token_bytes(SALT_BYTES))
    if not paths.node_key.exists():
        make_node_key(paths.node_key)
    request = own_request(
        paths,
        site_id=identity.site_id,
        organisation=identity.organisation,
        contact=identity.contact,
        verify_key=signing.verify_key,
        sealing_key=opening.sealing_key,
        now_s=clock.now_s(),
    )
    write_request(out, request, signing)
    if not paths.config.exists():
        paths.config.write_text(_TEMPLATE.format(site_id=identity.site_id), encoding="utf-8")
    return signing.fingerprint


def own_request(
    paths: SitePaths,
    *,
    site_id: str,
    organisation: str,
    contact: str,
    verify_key: VerifyKey,
    sealing_key: SealingKey,
    now_s: int,
) -> EnrolmentRequest:
    """Return a request with these keys and the courier's; raises `EnrolmentError`."""
    try:
        return EnrolmentRequest(
            version=1,
            site_id=site_id,
            organisation=organisation,
            contact=contact,
            verify_key=verify_key.to_text(),
            sealing_key=sealing_key.to_text(),
            node_public_key=node_public_text(read_node_key(paths.node_key)),
            certificate_request=make_certificate_request(TlsKey.read(paths.tls_key), site_id),
            created_at_s=now_s,
        )
    except ValidationError as error:
        raise _refuse_identity(error) from None


def join(
    paths: SitePaths,
    answer: Path,
    *,
    fingerprint: str,
    proxy: str = "",
    extra_ca: Path | None = None,
    relay: str = "",
) -> EnrolmentRecord:
    """Accept the coordinator's signed answer and configure the courier.

    Args:
        answer: the enrolment file.
        fingerprint: of the coordinator's key, as read on the telephone.
        proxy: URL of the hospital's HTTP proxy.
        extra_ca: PEM file of the hospital's own authority, where it inspects TLS.
        relay: `host:port` of the coordinator's relay of monitoring reports; empty for none.

    Raises:
        EnrolmentError: when the file is not the coordinator's, or not for this site's keys.
    """
    _adopt_tls_key(paths)
    record = read_enrolment(answer)
    found = VerifyKey.from_text(record.coordinator_verify_key).fingerprint
    if not is_same_fingerprint(found, fingerprint):
        raise EnrolmentError(
            "the enrolment file is signed by another key",
            expected=f"the fingerprint you were told: {fingerprint}",
            arrived=found,
            todo="call the coordinator on a number you know, and compare again",
        )
    _check_ours(paths, record)
    check_same_site(paths, record.site_id)
    _check_proxy(proxy)
    _check_relay(relay)
    _check_coordinator_unchanged(paths, record)
    _write_courier(paths, record, proxy=proxy, extra_ca=extra_ca, relay=relay)
    _copy(answer, paths.enrolment)
    return record


def _refuse_identity(error: ValidationError) -> EnrolmentError:
    first = error.errors(include_input=False, include_url=False)[0]
    return EnrolmentError(
        f"--{'.'.join(str(part) for part in first['loc'])} is refused",
        expected="1 to 200 printable characters on one line",
        arrived=str(first["msg"]),
        todo="give another text",
    )


def check_same_site(paths: SitePaths, site_id: str) -> None:
    """Refuse a site.toml of another site id, which every request would miss; `EnrolmentError`.

    A file that cannot be read is for `check` to explain.
    """
    try:
        document = tomllib.loads(paths.config.read_text(encoding="utf-8"))
        found = document["site"]["id"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError):
        return
    if found != site_id:
        raise EnrolmentError(
            "site.toml and the enrolment name different sites",
            expected=f'id = "{site_id}" under [site] in {paths.config}',
            arrived=f"id = {found!r}",
            todo="correct the id in site.toml; after a mistyped --id, start in a new folder",
        )


def check_joined(paths: SitePaths) -> None:
    """Refuse a site that has not joined, or whose site.toml names another; `EnrolmentError`."""
    if not paths.enrolment.exists():
        raise EnrolmentError(
            "this site has not joined a consortium",
            expected=f"the coordinator's enrolment file in {paths.enrolment}",
            arrived="none",
            todo="run `cohortium-site join ENROLMENT --fingerprint TEXT`",
        )
    check_same_site(paths, read_enrolment(paths.enrolment).site_id)


def _make_folders(paths: SitePaths) -> None:
    try:
        for folder in (paths.home, paths.keys, paths.courier, paths.state, paths.run, paths.logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnrolmentError(
            "the site's folder cannot be made",
            expected=f"a folder {paths.home} that we may write",
            arrived=error.strerror or type(error).__name__,
            todo="choose another folder with --home",
        ) from None


def _key(path: Path, kind: type[KeyT]) -> KeyT:
    if path.exists():
        return kind.read(path)
    key = kind.generate()
    key.write(path)
    return key


def _adopt_tls_key(paths: SitePaths) -> None:
    """Give the courier the TLS key of a site that an earlier version enrolled."""
    before = paths.keys / paths.tls_key.name
    if before.exists() and not paths.tls_key.exists():
        os.replace(before, paths.tls_key)


def _check_ours(paths: SitePaths, record: EnrolmentRecord) -> None:
    # Every roster names every site: ours is the file whose own entry and certificate hold our keys.
    own = SigningKey.read(paths.signing_key).verify_key.to_text()
    keys = {entry.site_id: entry.verify_key for entry in record.roster.sites}
    tls = TlsKey.read(paths.tls_key)
    if keys.get(record.site_id) != own or not certifies(record.site_certificate, tls):
        raise EnrolmentError(
            "the enrolment file is for another site",
            expected="the answer to this site's own request, with this site's keys",
            arrived=f"one for {record.site_id} with other keys",
            todo="send the coordinator this site's own request file, and take its answer",
        )


def _check_coordinator_unchanged(paths: SitePaths, record: EnrolmentRecord) -> None:
    if not paths.enrolment.exists():
        return
    before = read_enrolment(paths.enrolment)
    if before.coordinator_verify_key != record.coordinator_verify_key:
        raise EnrolmentError(
            "this site has joined another coordinator",
            expected="the coordinator that it enrolled with",
            arrived="another key",
            todo="use another folder with --home for another consortium",
        )


def _write_courier(
    paths: SitePaths, record: EnrolmentRecord, *, proxy: str, extra_ca: Path | None, relay: str
) -> None:
    authorities = record.ca_certificate.encode("ascii")
    if extra_ca is not None:
        authorities += b"\n" + _read_authorities(extra_ca)
    (paths.courier / "ca.pem").write_bytes(authorities)
    # The relay asks for the site's certificate, so nobody can inspect that connection: only the
    # consortium's own authority vouches for it.
    (paths.courier / "relay-ca.pem").write_text(record.ca_certificate, encoding="ascii")
    paths.certificate.write_text(record.site_certificate, encoding="ascii")
    config = {
        "address": record.coordinator_address,
        # Relative to the courier's folder: the same inside and outside a container.
        "socket": os.path.relpath(paths.socket, paths.courier),
        "proxy": proxy,
        "relay": relay,
    }
    (paths.courier / "courier.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _read_authorities(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EnrolmentError(
            "the hospital's own CA cannot be read",
            expected=f"a readable file {path}",
            arrived=error.strerror or type(error).__name__,
            todo="correct --extra-ca",
        ) from None
    check_authorities(content)
    return content


def _check_proxy(proxy: str) -> None:
    parts = urlsplit(proxy)
    if proxy and not (parts.scheme in {"http", "https"} and parts.hostname):
        raise EnrolmentError(
            "the proxy is refused",
            expected="a URL such as http://proxy.hospital.example:3128",
            arrived="something else",
            todo="correct --proxy",
        )


def _check_relay(relay: str) -> None:
    if relay and not re.fullmatch(HOST_AND_PORT, relay):
        raise EnrolmentError(
            "the relay's address is refused",
            expected="host:port as the coordinator told you, such as fl.example.org:8445",
            arrived="something else",
            todo="correct --relay",
        )


def _copy(source: Path, target: Path) -> None:
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(source.read_bytes())
    os.replace(partial, target)
