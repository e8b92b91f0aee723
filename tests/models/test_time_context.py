"""Hour, weekday and time away, against Python's own calendar and by hand."""

from datetime import UTC, datetime, timedelta

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.models.gamer.time_context import FIRST_SESSION, NUM_GAPS, TimeContext, session_starts
from genrec.models.gamer.token_layout import TokenLayout, read_layout

from ..tiny_shape import TINY_SHAPE

TINY = {
    **TINY_SHAPE,
    "codebook_sizes": [4, 4],
    "behavior_levels": [0, 1],
    "initializer_range": 0.4,
}
WEEK = 7 * 86_400
THURSDAY = int(datetime(2024, 2, 29, 23, 59, tzinfo=UTC).timestamp())


def config_of(*, session_wise: bool = True, **fields: bool) -> GamerConfig:
    return GamerConfig(**TINY, session_wise=session_wise, **{"time_context": True, **fields})


def row_of(sessions: list[int], times: list[int]) -> dict[str, Tensor]:
    """Return one user's items, any behavior and code."""
    items = [[2 + place % 2, 4 + place % 4, 8 + place % 3] for place in range(len(sessions))]
    per_item = {"session_ids": sessions, "event_times": times}
    columns = {name: torch.tensor([values]).repeat_interleave(3, dim=1) for name, values in per_item.items()}
    return {"input_ids": torch.tensor(items).reshape(1, -1), **columns}


def layout_of(config: GamerConfig, row: dict[str, Tensor]) -> TokenLayout:
    return read_layout(config, row["input_ids"], row["input_ids"] > 0, row["session_ids"])


def starts_and_gaps(config: GamerConfig, row: dict[str, Tensor]) -> tuple[list[int], list[int]]:
    """Return both of each item, having made sure that its tokens agree."""
    parts = session_starts(layout_of(config, row), row["event_times"])
    items = [part.unflatten(1, (-1, 3))[0] for part in parts]
    assert all((part == part[:, :1]).all() for part in items)
    starts, gaps = (part[:, 0].tolist() for part in items)
    return starts, gaps


def readable_context() -> TimeContext:
    """Return an embedding that writes the hour, the weekday and the gap into the first three numbers."""
    context = TimeContext(config_of())
    for column, embedding in enumerate((context.hour_embedding, context.weekday_embedding, context.gap_embedding)):
        torch.nn.init.zeros_(embedding.weight)
        embedding.weight.data[:, column] = torch.arange(len(embedding.weight))
    return context


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 30, tzinfo=UTC),
        datetime(2000, 2, 29, 12, 59, 59, tzinfo=UTC),
        datetime(2024, 2, 29, 23, 59, 59, tzinfo=UTC),
        datetime(2023, 1, 1, 0, 0, 1, tzinfo=UTC),
        datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    ],
)
def test_hours_and_weekdays_are_the_calendars(moment: datetime):
    row = row_of([1], [int(moment.timestamp())])
    embedded = readable_context()(layout_of(config_of(), row), row["event_times"])
    assert embedded[0, 0, :3].tolist() == [moment.hour, moment.weekday(), FIRST_SESSION]


def test_every_hour_of_a_week():
    moments = [datetime(2024, 2, 26, tzinfo=UTC) + timedelta(hours=hours) for hours in range(168)]
    row = row_of(list(range(168)), [int(moment.timestamp()) for moment in moments])
    embedded = readable_context()(layout_of(config_of(), row), row["event_times"])[0, ::3, :2]
    assert embedded.tolist() == [[moment.hour, moment.weekday()] for moment in moments]


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0, 0), (59, 0), (60, 1), (179, 1), (180, 2), (419, 2), (420, 3), (3600, 5), (86_400, 10), (10**9, NUM_GAPS - 1)],
)
def test_gaps_are_powers_of_two_of_a_minute(seconds: int, bucket: int):
    # 2 ** bucket - 1 minutes have passed: 1, 3, 7, ...
    assert starts_and_gaps(config_of(), row_of([1, 2], [50, 50 + seconds])) == ([50, 50 + seconds], [22, bucket])


def test_a_session_carries_the_time_it_began_and_the_time_since_the_event_before():
    row = row_of([4, 4, 7, 7, 9], [100, 160, 400, 9_999, 10_000])
    # 400 - 160 = 4 minutes: 2 ** 2 <= 5; 10,000 - 9,999 is less than a minute.
    assert starts_and_gaps(config_of(), row) == ([100, 100, 400, 400, 10_000], [22, 22, 2, 2, 0])


def test_without_sessions_every_item_is_its_own():
    row = row_of([4, 4, 7], [100, 160, 400])
    assert starts_and_gaps(config_of(session_wise=False), row) == ([100, 160, 400], [22, 1, 2])


def test_clock_skew_is_no_time_at_all():
    assert starts_and_gaps(config_of(), row_of([1, 2], [900, 300])) == ([900, 300], [22, 0])


@pytest.mark.parametrize("session_wise", [False, True])
def test_the_side_of_the_padding_changes_nothing_and_padding_gets_nothing(session_wise: bool):
    config = config_of(session_wise=session_wise)
    row = row_of([4, 4, 7, 9], [100, 160, 4000, 4100])
    context = TimeContext(config)
    expected = context(layout_of(config, row), row["event_times"])
    for sides in ((6, 0), (0, 6)):
        padded = {name: pad(part, sides) for name, part in row.items()}
        found = context(layout_of(config, padded), padded["event_times"])
        assert found[:, sides[0] : sides[0] + 12].equal(expected)
        assert not torch.cat([found[:, : sides[0]], found[:, sides[0] + 12 :]], dim=1).any()


def test_behavior_tokens_carry_it_and_codes_do_not():
    row = row_of([1, 2], [100, 90_000])
    found = TimeContext(config_of())(layout_of(config_of(), row), row["event_times"])
    assert found.any(dim=2).tolist() == [[True, False, False] * 2]


def model_of(config: GamerConfig) -> GamerForCausalLM:
    torch.manual_seed(0)
    return GamerForCausalLM(config).eval()


@torch.no_grad()
def test_a_day_never_seen_is_a_weekday_and_an_hour():
    model = model_of(config_of())
    row = row_of([1, 1, 2], [THURSDAY, THURSDAY + 70, THURSDAY + 86_400])
    expected = model(**row).logits
    later = {**row, "event_times": row["event_times"] + 1000 * WEEK}
    assert model(**later).logits.equal(expected)
    next_day = {**row, "event_times": row["event_times"] + 86_400}
    assert not torch.allclose(model(**next_day).logits, expected)


@torch.no_grad()
def test_no_item_knows_when_in_its_session_it_came():
    model = model_of(config_of())
    row = row_of([1, 1, 1], [THURSDAY, THURSDAY + 70, THURSDAY + 80])
    later = row_of([1, 1, 1], [THURSDAY, THURSDAY + 6000, THURSDAY + 9000])
    assert model(**row).logits.equal(model(**later).logits)


@pytest.mark.parametrize("session_wise", [False, True])
@torch.no_grad()
def test_without_times_the_model_is_the_one_without(session_wise: bool):
    model = model_of(config_of(session_wise=session_wise))
    plain = model_of(config_of(session_wise=session_wise, time_context=False))
    plain.load_state_dict({name: part for name, part in model.state_dict().items() if ".time_context." not in name})
    row = row_of([1, 2, 2], [100, 90_000, 90_100])
    untimed = {name: part for name, part in row.items() if name != "event_times"}
    assert model(**untimed).logits.equal(plain(**untimed).logits)
    assert plain(**row).logits.equal(plain(**untimed).logits)
    assert not torch.allclose(model(**row).logits, plain(**row).logits)


def test_gradients_reach_every_embedding_in_use():
    model = model_of(config_of())
    row = row_of([1, 2], [THURSDAY, THURSDAY + 86_400])
    model(**row, labels=row["input_ids"]).loss.backward()
    context = model.model.time_context
    used = {
        "hour_embedding": [23],
        "weekday_embedding": [3, 4],  # a Thursday and a Friday
        "gap_embedding": [10, FIRST_SESSION],
    }
    for name, rows in used.items():
        gradients = getattr(context, name).weight.grad.abs().sum(dim=1)
        assert gradients.nonzero()[:, 0].tolist() == rows


def test_users_that_share_a_row_are_refused():
    row = row_of([1, 2], [100, 200])
    with pytest.raises(ValueError, match="With `time_context` each user needs a row of their own"):
        model_of(config_of())(**row, segment_ids=torch.ones_like(row["input_ids"]))
