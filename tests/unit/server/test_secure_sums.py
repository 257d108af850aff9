"""A secure sum from six sites over two aggregators to the board, and every way it is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.canonical import digest_bytes
from common.crypto.keys import OpeningKey, SigningKey
from common.errors import CohortiumError, ProtocolError, SealError
from common.ids import BoardId, SiteId
from common.protocol.monitoring.check_key import CheckKey, open_check_key, seal_check_key
from common.protocol.monitoring.closing import SUM_SITE_ID, Closing
from common.protocol.monitoring.notice_checks import verify_check_key
from common.protocol.monitoring.notice_codec import read_notice, sign_notice
from common.protocol.monitoring.partial_sum import PartialSum, open_partial_sum, seal_partial_sum
from common.protocol.monitoring.report_envelope import report_digest
from common.protocol.monitoring.roster import BoardRole, Standing
from common.secure_sum.field import MODULUS
from common.study.report_tensors import ReportKind, report_mechanisms, report_tensors
from server.monitor_board.aggregation import check_closing, open_share, sum_shares
from server.monitor_board.secure_sums import kept_sum
from tests.lib.summing import (
    AGGREGATORS,
    BOARD,
    KIND,
    MODEL,
    PERIOD,
    STUDY,
    Consortium,
    noised,
    summed_plan,
)

A, B = BoardRole.AGGREGATOR_A, BoardRole.AGGREGATOR_B


@pytest.fixture
def consortium(tmp_path: Path) -> Consortium:
    return Consortium(tmp_path)


def vectors(consortium: Consortium) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(-20, 3000, consortium.cells) for _ in consortium.sites]


def run(consortium: Consortium) -> bytes:
    """Let everybody do their part; return the closing's notice."""
    aggregators = [consortium.aggregator(role) for role in (A, B)]
    for aggregator in aggregators:
        aggregator.step(now_s=consortium.relay.now_s)
    closing = consortium.closing()
    assert closing is not None
    notice = consortium.sign_closing(closing)
    consortium.relay.publish(notice)
    for aggregator in aggregators:
        aggregator.step(now_s=consortium.late_s)
    return notice


def refused(number: str, call: Callable[[], Any]) -> CohortiumError:
    with pytest.raises(CohortiumError) as raised:
        call()
    assert raised.value.number == number, raised.value
    return raised.value


def test_the_board_gets_exactly_the_sum_of_what_six_sites_noised(consortium: Consortium) -> None:
    plan = consortium.plan
    rng = np.random.default_rng(2)
    exact = [rng.integers(0, 900, consortium.cells) for _ in consortium.sites]
    reports = [noised(plan, counts) for counts in exact]
    consortium.report_all(reports)
    joined = consortium.join(run(consortium))
    assert np.array_equal(joined.counts, np.sum(reports, axis=0))
    kept = kept_sum(joined, plan, sequence=1, received_at_s=7)
    assert kept.site_id == SUM_SITE_ID
    assert (kept.epsilon_spent, kept.epsilon_remaining) == (1.0, 2.0)
    flat = np.concatenate([kept.tensors[t.name].values.ravel() for t in report_tensors(plan, KIND)])
    assert np.array_equal(flat, np.sum(reports, axis=0))
    for tensor in report_tensors(plan, KIND):
        noisy = kept.tensors[tensor.name]
        assert noisy.values.shape == tensor.shape
        assert noisy.sd == pytest.approx(tensor.noise_multiplier * 6**0.5)


def test_counts_at_the_ends_of_32_bits_are_summed_without_wrapping(consortium: Consortium) -> None:
    edge = np.full(consortium.cells, 2**31 - 1, dtype=np.int64)
    edge[::2] *= -1
    consortium.report_all([edge] * 6)
    assert np.array_equal(consortium.join(run(consortium)).counts, 6 * edge)


def test_a_site_with_one_share_missing_is_left_out_of_the_sum(consortium: Consortium) -> None:
    reports = vectors(consortium)
    consortium.report_all(reports)
    consortium.relay.stored_reports.pop()  # the last site's second share never arrived
    notice = run(consortium)
    closing = read_notice(notice).content
    assert isinstance(closing, Closing)
    assert closing.site_ids == tuple(consortium.sites)[:5]
    assert np.array_equal(consortium.join(notice).counts, np.sum(reports[:5], axis=0))


def test_a_share_that_does_not_pass_its_aggregator_is_left_out_of_the_sum(
    consortium: Consortium,
) -> None:
    reports = vectors(consortium)
    sites = list(consortium.sites)
    weak = tuple(
        dataclasses.replace(record, noise_multiplier=1.0)
        for record in report_mechanisms(consortium.plan, KIND)
    )
    consortium.relay.stored_reports.extend(consortium.split(sites[0], reports[0], mechanisms=weak))
    for site_id, vector in zip(sites[1:], reports[1:], strict=True):
        consortium.relay.stored_reports.extend(consortium.split(site_id, vector))
    aggregator = consortium.aggregator(A)
    step = aggregator.step(now_s=0)
    assert [item.error.number for item in step.refused] == ["V10"]
    assert np.array_equal(consortium.join(run(consortium)).counts, np.sum(reports[1:], axis=0))


def test_a_share_sent_again_counts_once(consortium: Consortium) -> None:
    reports = vectors(consortium)
    consortium.report_all(reports)
    consortium.relay.stored_reports.extend(consortium.relay.stored_reports[:4])
    assert np.array_equal(consortium.join(run(consortium)).counts, np.sum(reports, axis=0))


def test_of_a_site_that_splits_the_same_report_again_one_pair_is_summed(
    consortium: Consortium,
) -> None:
    reports = vectors(consortium)
    consortium.report_all(reports)
    first = next(iter(consortium.sites))
    consortium.relay.stored_reports.extend(consortium.split(first, reports[0]))
    assert np.array_equal(consortium.join(run(consortium)).counts, np.sum(reports, axis=0))


def test_fewer_sites_than_the_plan_asks_are_never_closed(consortium: Consortium) -> None:
    consortium.report_all(vectors(consortium))
    del consortium.relay.stored_reports[8:]
    for role in (A, B):
        consortium.aggregator(role).step(now_s=0)
    assert consortium.closing() is None


def test_before_the_deadline_only_all_active_sites_are_closed(consortium: Consortium) -> None:
    consortium.report_all(vectors(consortium))
    for role in (A, B):
        consortium.aggregator(role).step(now_s=0)
    early_s = consortium.late_s - 86_400
    assert consortium.closing(now_s=early_s) is not None
    del consortium.relay.stored_reports[-1]
    assert consortium.closing(now_s=early_s) is None
    assert consortium.closing(now_s=consortium.late_s) is not None


def test_reports_of_another_model_are_left_out(consortium: Consortium) -> None:
    reports = vectors(consortium)
    sites = list(consortium.sites)
    for site_id, vector in zip(sites[1:], reports[1:], strict=True):
        consortium.relay.stored_reports.extend(consortium.split(site_id, vector))
    other = digest_bytes("model", b"before")
    consortium.relay.stored_reports.extend(
        consortium.split(sites[0], reports[0], model_version=other)
    )
    assert np.array_equal(consortium.join(run(consortium)).counts, np.sum(reports[1:], axis=0))


def closed(consortium: Consortium) -> Closing:
    consortium.report_all(vectors(consortium))
    for role in (A, B):
        consortium.aggregator(role).step(now_s=0)
    closing = consortium.closing()
    assert closing is not None
    return closing


def test_v17_a_second_closing_with_another_set_of_sites_gets_no_answer(
    consortium: Consortium,
) -> None:
    closing = closed(consortium)
    aggregator = consortium.aggregator(A)
    consortium.relay.publish(consortium.sign_closing(closing))
    assert aggregator.step(now_s=consortium.late_s).answered == 1
    fewer = dataclasses.replace(closing, sites=closing.sites[1:])
    consortium.relay.publish(consortium.sign_closing(fewer))
    for _ in range(2):
        assert consortium.aggregator(A).step(now_s=consortium.late_s).answered == 0
    assert len(consortium.answers()) == 1
    store = aggregator._store  # the store itself refuses, whoever asks
    digest = read_notice(consortium.sign_closing(fewer)).digest
    refused("V17", lambda: store.answer(fewer, digest, b"another"))


def test_two_closings_at_once_get_one_answer(consortium: Consortium) -> None:
    closing = closed(consortium)
    for sites in (closing.sites, closing.sites[1:]):
        consortium.relay.publish(consortium.sign_closing(dataclasses.replace(closing, sites=sites)))
    step = consortium.aggregator(A).step(now_s=consortium.late_s)
    assert step.answered == 1
    assert [item.error.number for item in step.refused] == ["V17"]


def test_an_aggregator_whose_store_was_lost_does_not_answer_again(consortium: Consortium) -> None:
    closing = closed(consortium)
    consortium.relay.publish(consortium.sign_closing(closing))
    consortium.aggregator(A).step(now_s=consortium.late_s)
    (consortium.folder / "aggregator-a.db").unlink()
    fewer = dataclasses.replace(closing, sites=closing.sites[1:])
    consortium.relay.publish(consortium.sign_closing(fewer))
    assert consortium.aggregator(A).step(now_s=consortium.late_s).answered == 0
    assert len(consortium.answers()) == 1


@pytest.mark.parametrize("role", [A, B])
def test_v22_a_lying_aggregator_is_found_by_the_check_tag(
    consortium: Consortium, role: BoardRole
) -> None:
    consortium.report_all(vectors(consortium))
    notice = run(consortium)
    honest = consortium.answers()
    consortium.join(notice)
    lying = [_changed(consortium, answer, role, place=3, by=1) for answer in honest]
    refused("V22", lambda: consortium.join(notice, lying))
    tag = [_changed(consortium, answer, role, place=-1, by=1) for answer in honest]
    refused("V22", lambda: consortium.join(notice, tag))


def _changed(
    consortium: Consortium, answer: bytes, role: BoardRole, *, place: int, by: int
) -> bytes:
    """Return an aggregator's answer with one element changed, signed by that aggregator."""
    partial = read_notice(answer).content
    assert isinstance(partial, PartialSum)
    if partial.aggregator != AGGREGATORS[role]:
        return answer
    opening = consortium.board.opening  # to make the lie; an aggregator knows what it added
    summed = open_partial_sum(partial, key=opening, cells=consortium.cells)
    elements = summed.elements.copy()
    elements[place] = (int(elements[place]) + by) % MODULUS
    closing = consortium.closing()
    assert closing is not None
    again = seal_partial_sum(
        dataclasses.replace(summed, elements=elements),
        closing,
        closing_digest=partial.closing,
        aggregator=partial.aggregator,
        boards=[opening.sealing_key],
    )
    return sign_notice(again, {partial.aggregator: consortium.aggregators[role].signing})


def test_v22_an_aggregator_that_leaves_a_site_out_is_found(consortium: Consortium) -> None:
    consortium.report_all(vectors(consortium))
    notice = run(consortium)
    closing = read_notice(notice).content
    assert isinstance(closing, Closing)
    aggregating = consortium.aggregating(B)
    shares = {
        share.digest: share
        for share in (
            open_share(envelope, aggregating, arrived_at_s=consortium.relay.now_s)
            for envelope in consortium.relay.stored_reports[1::2]
        )
    }
    fewer = dataclasses.replace(closing, sites=closing.sites[1:])
    partial = seal_partial_sum(
        sum_shares(fewer, shares, aggregating),
        closing,
        closing_digest=read_notice(notice).digest,
        aggregator=AGGREGATORS[B],
        boards=[consortium.board.opening.sealing_key],
    )
    lie = sign_notice(partial, {AGGREGATORS[B]: consortium.aggregators[B].signing})
    honest_a = consortium.answers()[0]
    refused("V22", lambda: consortium.join(notice, [honest_a, lie]))


def test_v22_a_site_with_a_false_check_tag_spoils_the_sum_and_is_noticed(
    consortium: Consortium,
) -> None:
    reports = vectors(consortium)
    sites = list(consortium.sites)
    false = CheckKey(1, bytes(32))
    envelopes = consortium.split(sites[0], reports[0], check_key=false)
    refused("V10", lambda: open_share(envelopes[0], consortium.aggregating(A), arrived_at_s=0))


def test_one_partial_sum_alone_tells_the_board_nothing_it_can_use(consortium: Consortium) -> None:
    consortium.report_all([np.zeros(consortium.cells, dtype=np.int64)] * 6)
    notice = run(consortium)
    answers = consortium.answers()
    refused("V18", lambda: consortium.join(notice, answers[:1]))
    refused("V18", lambda: consortium.join(notice, [answers[0], answers[0]]))
    partial = read_notice(answers[1]).content
    assert isinstance(partial, PartialSum)
    alone = open_partial_sum(partial, key=consortium.board.opening, cells=consortium.cells)
    assert (alone.elements > 10**6).all()  # uniform below 2^61, although every count is zero


def test_nobody_but_its_aggregator_opens_a_share(consortium: Consortium) -> None:
    first, second = consortium.split(
        next(iter(consortium.sites)), np.zeros(consortium.cells, dtype=np.int64)
    )
    refused("V9", lambda: open_share(second, consortium.aggregating(A), arrived_at_s=0))
    refused("V9", lambda: open_share(first, consortium.aggregating(B), arrived_at_s=0))
    board = consortium.board.opening
    as_board = dataclasses.replace(
        consortium.aggregating(A), opening_keys={board.fingerprint: board}
    )
    refused("V10", lambda: open_share(first, as_board, arrived_at_s=0))


def test_each_numbered_check_of_a_share_refuses_what_it_names(consortium: Consortium) -> None:
    site_id = next(iter(consortium.sites))
    counts = np.zeros(consortium.cells, dtype=np.int64)
    here = consortium.aggregating(A)

    def opened(envelope: bytes, **changes: Any) -> Any:
        return open_share(envelope, dataclasses.replace(here, **changes), arrived_at_s=0)

    first, _ = consortium.split(site_id, counts)
    assert opened(first).statement.period == PERIOD
    refused("V8", lambda: opened(first, plans={}))
    sealed = summed_plan(mode="sealed")
    refused("V8", lambda: opened(first, plans={STUDY: sealed}))
    refused("V8", lambda: opened(first, plans={STUDY: summed_plan(sum_sites_min=4)}))
    refused("V10", lambda: opened(first, check_key=None))
    suspended = dataclasses.replace(
        consortium.roster,
        sites=tuple(
            dataclasses.replace(site, status=Standing.SUSPENDED) for site in consortium.roster.sites
        ),
    )
    refused("B12", lambda: opened(first, roster=suspended))
    refused("B2", lambda: opened(first[:-1] + bytes([first[-1] ^ 1])))
    wrong_kind, _ = consortium.split(site_id, counts, kind=ReportKind.OUTCOME)
    refused("V10", lambda: opened(wrong_kind))
    wrong_delta, _ = consortium.split(site_id, counts, delta=0.5)
    refused("V10", lambda: opened(wrong_delta))
    _, more_cells = consortium.split(site_id, np.zeros(5_000, dtype=np.int64))
    refused("B6", lambda: open_share(more_cells, consortium.aggregating(B), arrived_at_s=0))


def test_each_numbered_check_of_a_closing_refuses_what_it_names(consortium: Consortium) -> None:
    closing = closed(consortium)
    here = consortium.aggregating(A)

    def checked(now_s: int = consortium.late_s, **changes: Any) -> Any:
        data = consortium.sign_closing(dataclasses.replace(closing, **changes))
        return check_closing(data, here, now_s=now_s)

    assert checked()[0] == closing
    other = sign_notice(closing, {BOARD: SigningKey.generate()})
    refused("T3", lambda: check_closing(other, here, now_s=0))
    by_aggregator = dataclasses.replace(closing, board_id=AGGREGATORS[A])
    signed = sign_notice(by_aggregator, {AGGREGATORS[A]: consortium.aggregators[A].signing})
    refused("T3", lambda: check_closing(signed, here, now_s=0))
    refused("V12", lambda: checked(schema=MODEL))
    refused("V12", lambda: checked(kind=ReportKind.OUTCOME))
    refused("V12", lambda: checked(period="2026-W07"))
    refused("V13", lambda: checked(sites=closing.sites[:4]))
    stranger = dataclasses.replace(closing.sites[0], site_id=SiteId("aaa"))
    refused("V13", lambda: checked(sites=(stranger, *closing.sites[1:])))
    refused("V14", lambda: checked(now_s=0, sites=closing.sites[1:]))
    assert checked(now_s=0)[0] == closing  # every active site is in it


def test_each_numbered_check_of_a_sum_refuses_what_it_names(consortium: Consortium) -> None:
    closing = closed(consortium)
    here = consortium.aggregating(A)
    envelopes = consortium.relay.stored_reports[::2]
    shares = {
        report_digest(envelope): open_share(envelope, here, arrived_at_s=0)
        for envelope in envelopes
    }
    assert sum_shares(closing, shares, here).epsilon_spent_max == 1.0
    missing = dict(list(shares.items())[1:])
    refused("V15", lambda: sum_shares(closing, missing, here))
    swapped = tuple(
        dataclasses.replace(site, share_a=other.share_a)
        for site, other in zip(closing.sites, reversed(closing.sites), strict=True)
    )
    refused("V15", lambda: sum_shares(dataclasses.replace(closing, sites=swapped), shares, here))
    for changes in ({"period": "2026-03"}, {"model_version": closing.schema}):
        changed = dataclasses.replace(closing, **changes)  # type: ignore[arg-type]
        refused("V15", lambda changed=changed: sum_shares(changed, shares, here))
    other_key = dataclasses.replace(closing, sum_key=MODEL)
    refused("V16", lambda: sum_shares(other_key, shares, here))


def test_v19_an_answer_to_another_closing_is_not_joined(consortium: Consortium) -> None:
    consortium.report_all(vectors(consortium))
    run(consortium)
    closing = consortium.closing(now_s=consortium.late_s + 1)
    assert closing is not None
    refused("V19", lambda: consortium.join(consortium.sign_closing(closing)))


def test_v20_a_sum_sealed_to_another_board_is_not_joined(consortium: Consortium) -> None:
    consortium.report_all(vectors(consortium))
    notice = run(consortium)
    consortium.board = dataclasses.replace(consortium.board, opening=OpeningKey.generate())
    refused("V20", lambda: consortium.join(notice))


def test_a_check_key_opens_for_sites_and_boards_and_for_no_aggregator(
    consortium: Consortium,
) -> None:
    data = consortium.relay.stored_notices[0]
    sealed = verify_check_key(data, consortium.authority.verify_key)
    for member in (consortium.board, *consortium.sites.values()):
        assert open_check_key(sealed, key=member.opening) == consortium.check_key
    for member in consortium.aggregators.values():
        with pytest.raises(ProtocolError):
            open_check_key(sealed, key=member.opening)
    refused("T8", lambda: verify_check_key(data, SigningKey.generate().verify_key))
    assert consortium.check_key.raw.hex() not in repr(consortium.check_key)


def test_a_check_key_that_is_not_the_one_everybody_gets_is_refused(
    consortium: Consortium,
) -> None:
    key = OpeningKey.generate()
    sealed = seal_check_key(consortium.check_key, members=[key.sealing_key])
    other = seal_check_key(CheckKey(1, bytes(32)), members=[key.sealing_key])
    with pytest.raises(SealError):
        open_check_key(dataclasses.replace(other, commitment=sealed.commitment), key=key)


def test_the_lengths_of_shares_are_a_function_of_the_schema_alone(consortium: Consortium) -> None:
    site_id = next(iter(consortium.sites))
    lengths = set()
    for fill, spent in ((0, 0.1), (2**31 - 1, 1 / 3), (-5, 12.75)):
        counts = np.full(consortium.cells, fill, dtype=np.int64)
        first, second = consortium.split(site_id, counts, epsilon_spent=spent)
        lengths.add((len(first) // 64, len(second) // 64))  # the header's numbers grow in digits
    assert len(lengths) == 1


def test_an_unknown_aggregators_answer_is_refused(consortium: Consortium) -> None:
    consortium.report_all(vectors(consortium))
    notice = run(consortium)
    answer = read_notice(consortium.answers()[0]).content
    assert isinstance(answer, PartialSum)
    stranger = BoardId("stranger")
    forged = sign_notice(
        dataclasses.replace(answer, aggregator=stranger), {stranger: SigningKey.generate()}
    )
    refused("T3", lambda: consortium.join(notice, [forged, consortium.answers()[1]]))
