"""The garbage collector is as it was after modules are loaded and after a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from common.loading import collector_at_rest, loaded_set_aside


@pytest.fixture(autouse=True)
def _collector_on() -> Iterator[None]:
    gc.enable()
    gc.unfreeze()
    yield
    gc.enable()
    gc.unfreeze()


def test_the_collector_rests_in_the_block_and_goes_on_after_it_also_after_an_error() -> None:
    with pytest.raises(KeyError), collector_at_rest():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with collector_at_rest():
        pass
    assert not gc.isenabled()


def test_what_was_loaded_is_set_aside_for_the_block_alone_however_deep() -> None:
    with loaded_set_aside():
        with loaded_set_aside(), collector_at_rest():
            pass
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0


def test_what_the_caller_had_frozen_stays_frozen() -> None:
    gc.freeze()
    with loaded_set_aside(), collector_at_rest():
        pass
    assert gc.get_freeze_count() > 0
