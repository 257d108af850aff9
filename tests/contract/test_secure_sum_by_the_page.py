"""Both shares of a report, read with code written from docs/protocol.md, section V, alone."""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from common.protocol.monitoring.report_envelope import open_report
from common.protocol.monitoring.roster import BoardRole
from common.study.report_tensors import schema_digest
from tests.lib.summing import KIND, PERIOD, STUDY, Consortium

P = 2**61 - 1


def digest(label: str, *parts: bytes) -> bytes:
    framed = b"".join(struct.pack(">Q", len(part)) + part for part in parts)
    return hashlib.sha256(f"cohortium/1/{label}\0".encode() + framed).hexdigest().encode()


def hkdf(secret: bytes, info: bytes) -> bytes:
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def stream(seed: bytes, label: str, context: bytes, count: int) -> list[int]:
    key = hkdf(seed, digest(f"secure-sum/{label}", context))
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    found: list[int] = []
    block = 0
    while len(found) < count:
        data = encryptor.update(block.to_bytes(16, "big"))
        found += [word & P for word in struct.unpack("<QQ", data) if word & P != P]
        block += 1
    return found[:count]


def read_plaintext(plaintext: bytes) -> tuple[dict[str, object], bytes]:
    (length,) = struct.unpack_from(">I", plaintext)
    return json.loads(plaintext[4 : 4 + length]), plaintext[4 + length :]


def test_the_page_suffices_to_read_both_shares_of_a_report(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path)
    site_id, member = next(iter(consortium.sites.items()))
    counts = np.arange(-10, consortium.cells - 10, dtype=np.int64)
    counts[-1] = 2**31 - 1
    envelopes = consortium.split(site_id, counts)
    opened = [
        open_report(
            envelope,
            verify_key=member.signing.verify_key,
            opening_key=consortium.aggregators[role].opening,
        )[1]
        for envelope, role in zip(
            envelopes, (BoardRole.AGGREGATOR_A, BoardRole.AGGREGATOR_B), strict=True
        )
    ]
    record, seed = read_plaintext(opened[0])
    again, masked = read_plaintext(opened[1])
    assert record == again
    assert record["check_key"] == digest("check-key", consortium.check_key.raw).decode()

    size = len(counts) + 1
    schema = schema_digest(consortium.plan, KIND).encode()
    names = (STUDY.encode(), KIND.value.encode(), PERIOD.encode(), schema)
    of_sum = digest("secure-sum/context", *names)
    own = digest("secure-sum/site", of_sum, site_id.encode())
    first = stream(seed[:32], "share", own, size)
    second = struct.unpack(f"<{size}Q", masked[: 8 * size])
    whole = [(one + two) % P for one, two in zip(first, second, strict=True)]
    assert [value - P if value > P // 2 else value for value in whole[:-1]] == counts.tolist()

    sum_key = hkdf(consortium.check_key.raw, digest("secure-sum/sum-key", of_sum))
    assert record["sum_key"] == digest("secure-sum/commitment", sum_key).decode()
    secret = stream(sum_key, "tag", b"", len(counts))
    tag = sum(a * x for a, x in zip(secret, counts.tolist(), strict=True)) % P
    assert whole[-1] == tag
