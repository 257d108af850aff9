"""What a sealed monitoring report costs: bytes, and milliseconds to seal, verify and open.

    python -m benchmarks.monitoring_envelope [--repeats 200]

Two sizes: the recommended report (340 counts) and a large one (4,240 counts: 200 features of 20
bins and the missing, ten groups of four cells). Times are medians on one core.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from common.canonical import digest_bytes
from common.crypto.keys import (
    HYBRID_SUITE,
    X25519_SUITE,
    AnyOpeningKey,
    OpeningKey,
    SigningKey,
    X25519OpeningKey,
)
from common.ids import SiteId, StudyId
from common.privacy.mechanism import DiscreteGaussianCounts
from common.protocol.monitoring.report_content import ReportContent, decode_content, encode_content
from common.protocol.monitoring.report_envelope import open_report, seal_report, verify_report
from common.protocol.monitoring.report_header import ReportDraft, genesis
from common.study.report_tensors import ReportKind

STUDY, SITE = StudyId("heart-disease"), SiteId("north-general")
MAKE_KEY: dict[int, Callable[[], AnyOpeningKey]] = {
    X25519_SUITE: X25519OpeningKey.generate,
    HYBRID_SUITE: OpeningKey.generate,
}
SUITE_NAMES = {X25519_SUITE: "1: X25519", HYBRID_SUITE: "2: ML-KEM-768 with X25519"}
COUNTS = (340, 4_240)
RECEIVERS = (1, 3, 5)


@dataclass(frozen=True)
class Cost:
    """Of one report: its bytes, and medians in milliseconds."""

    size_bytes: int
    seal_ms: float
    verify_ms: float
    open_ms: float


def content_of(cells: int) -> bytes:
    """Return the plaintext of an outcome report with this many counts."""
    return encode_content(
        ReportContent(
            kind=ReportKind.OUTCOME,
            period="2026-02",
            mechanisms=(DiscreteGaussianCounts(6.0, 1), DiscreteGaussianCounts(8.0, 2)),
            epsilon_spent=1.25,
            epsilon_remaining=6.75,
            delta=1e-6,
            ledger_head=digest_bytes("benchmark", b"ledger"),
            software_version="0.1.0",
            counts=np.random.default_rng(1).integers(-20, 900, cells),
        )
    )


def measure(cells: int, suite: int, receivers: int, repeats: int) -> Cost:
    """Return what one report costs its site, the relay and one receiver."""
    signing, keys = SigningKey.generate(), [MAKE_KEY[suite]() for _ in range(receivers)]
    sealing = [key.sealing_key for key in keys]
    filler = digest_bytes("benchmark", b"")
    draft = ReportDraft(
        study_id=STUDY,
        site_id=SITE,
        key_epoch=1,
        kind="outcome",
        period="2026-02",
        sequence=1,
        previous=genesis(STUDY, SITE),
        model_version=filler,
        schema=filler,
        roster=filler,
        sealed_at_s=1_800_000_000,
    )
    content, verify_key = content_of(cells), signing.verify_key
    envelope = seal_report(content, draft, signing_key=signing, recipients=sealing)

    def read() -> None:
        _, plaintext = open_report(envelope, verify_key=verify_key, opening_key=keys[0])
        decode_content(plaintext, cells=cells)

    return Cost(
        size_bytes=len(envelope),
        seal_ms=median_ms(
            lambda: seal_report(content, draft, signing_key=signing, recipients=sealing), repeats
        ),
        verify_ms=median_ms(lambda: verify_report(envelope, verify_key=verify_key), repeats),
        open_ms=median_ms(read, repeats),
    )


def median_ms(act: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call, in milliseconds, after some that do not count."""
    times = []
    for _ in range(repeats + 10):
        begin = time.perf_counter()
        act()
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times[10:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    print("| counts | plaintext | suite | receivers | envelope | seal ms | verify ms | open ms |")
    print("|---|---|---|---|---|---|---|---|")
    for cells in COUNTS:
        for suite, name in SUITE_NAMES.items():
            for receivers in RECEIVERS:
                cost = measure(cells, suite, receivers, repeats)
                print(
                    f"| {cells:,} | {len(content_of(cells)):,} B | {name} | {receivers} | "
                    f"{cost.size_bytes:,} B | {cost.seal_ms:.2f} | {cost.verify_ms:.2f} | "
                    f"{cost.open_ms:.2f} |"
                )


if __name__ == "__main__":
    main()
