from __future__ import annotations

import datetime as dt
import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.client.holders import new_id, read_id


@given(seed=st.integers(), now=st.integers(0, 2**32 - 1), expires=st.booleans())
def test_an_id_says_when_it_was_made_and_whether_its_slot_expires(
    *, seed: int, now: int, expires: bool
) -> None:
    made = new_id(random.Random(seed), now=now, expires=expires)
    origin = read_id(made)
    assert origin is not None
    assert origin.since == dt.datetime.fromtimestamp(now, dt.timezone.utc)
    assert origin.expires is expires
    assert (made.version, made.variant) == (8, uuid.RFC_4122)
    assert read_id(uuid.UUID(str(made))) == origin


@pytest.mark.parametrize("made", [uuid.uuid4(), uuid.uuid1(), uuid.UUID(int=0)])
def test_an_id_of_somebody_else_is_none_of_ours(made: uuid.UUID) -> None:
    assert read_id(made) is None


def test_ids_of_the_same_second_differ() -> None:
    rng = random.Random(1)
    assert len({new_id(rng, now=0, expires=True) for _ in range(1000)}) == 1000
