"""Rows read as items, worked out by hand: one user, three items a, b and c, three sessions.

place     0      1      2      3      4      5      6 (asked)
item      a      b      a      c      b      a      ?
behavior  view   view   buy    view   cart   view   cart
session   1      1      1      2      2      3      3
seconds   0      600    1200   10000  10100  20000  20500
"""

from math import log1p

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from genrec.models.gamer import GamerConfig
from genrec.models.gamer.item_history import (
    NEVER,
    ItemHistory,
    ItemQueries,
    history_features,
    loss_weights,
    num_history_features,
    query_times,
    read_item_history,
    seen_before,
)

A, B, C = (5, 9), (6, 10), (7, 11)
VIEW, CART, BUY = 2, 3, 4
TOKENS = [VIEW, *A, VIEW, *B, BUY, *A, VIEW, *C, CART, *B, VIEW, *A, CART]
SESSIONS = [1, 1, 1, 2, 2, 3, 3]
TIMES = [0, 600, 1200, 10_000, 10_100, 20_000, 20_500]


def config_of(*, session_wise: bool) -> GamerConfig:
    return GamerConfig(num_hidden_layers=2, codebook_sizes=[4, 4], behavior_levels=[0, 1, 2], session_wise=session_wise)


def per_token(values: list[int]) -> Tensor:
    return torch.tensor([values]).repeat_interleave(3, dim=1)[:, : len(TOKENS)]


def history_of(*, session_wise: bool, left: int = 0, right: int = 0) -> ItemHistory:
    """The row above, with so many items of padding; with padding behind it, the asked item has its codes."""
    tokens = [*TOKENS, *C] if right else TOKENS
    columns = [torch.tensor([tokens]), per_token(SESSIONS), per_token(TIMES)]
    if right:
        columns[1:] = [torch.cat([part, part[:, -1:].expand(1, 2)], dim=1) for part in columns[1:]]
    padded = [pad(part, (3 * left, 3 * right)) for part in columns]
    return read_item_history(config_of(session_wise=session_wise), *padded)


def asked_at(*places: int, row: int = 0) -> ItemQueries:
    return ItemQueries(torch.full((len(places),), row), torch.tensor(places))


def seen(history: ItemHistory, place: int) -> list[int]:
    return seen_before(history, asked_at(place))[0].nonzero()[:, 0].tolist()


def test_items_and_the_unwritten_codes_of_the_one_asked_for():
    history = history_of(session_wise=False)
    assert history.codes[0].tolist() == [list(item) for item in (A, B, A, C, B, A, (0, 0))]
    assert history.behaviors.tolist() == [[0, 0, 2, 0, 1, 0, 1]]
    assert history.times.tolist() == [TIMES]
    assert history.order.tolist() == [[0, 1, 2, 3, 4, 5, 6]]
    assert history_of(session_wise=True).order.tolist() == [[0, 0, 0, 1, 1, 2, 2]]


def test_when_the_same_item_comes_again():
    never = NEVER
    assert history_of(session_wise=False).next_order.tolist() == [[2, 4, 5, never, never, never, never]]
    assert history_of(session_wise=True).next_order.tolist() == [[0, 1, 2, never, never, never, never]]


def test_counts_go_up_to_and_with_the_event():
    expected = [[1, 0, 0], [1, 0, 0], [1, 0, 1], [1, 0, 0], [1, 1, 0], [2, 0, 1], [0, 1, 0]]
    for session_wise in (False, True):
        assert history_of(session_wise=session_wise).counts.tolist() == [expected]


def test_causally_a_query_sees_each_earlier_item_at_its_latest_event():
    history = history_of(session_wise=False)
    assert [seen(history, place) for place in range(7)] == [
        [],
        [0],
        [0, 1],
        [1, 2],
        [1, 2, 3],
        [2, 3, 4],
        [3, 4, 5],
    ]


def test_session_wise_it_sees_earlier_sessions_only():
    history = history_of(session_wise=True)
    # The asked session holds `a` again, which does not hide the one before.
    assert [seen(history, place) for place in range(7)] == [[], [], [], [1, 2], [1, 2], [2, 3, 4], [2, 3, 4]]


def test_a_session_is_asked_about_at_its_first_event():
    assert query_times(history_of(session_wise=True), asked_at(*range(7))).tolist() == [
        *[0] * 3,
        *[10_000] * 2,
        *[20_000] * 2,
    ]
    assert query_times(history_of(session_wise=False), asked_at(*range(7))).tolist() == TIMES


@pytest.mark.parametrize("session_wise", [False, True])
def test_the_side_of_the_padding_changes_nothing(session_wise: bool):
    config = config_of(session_wise=session_wise)
    plain, left = history_of(session_wise=session_wise), history_of(session_wise=session_wise, left=2)
    right = history_of(session_wise=session_wise, right=2)
    assert left.behaviors.tolist() == [[-1, -1, 0, 0, 2, 0, 1, 0, 1]]
    for place in range(7):
        assert [event - 2 for event in seen(left, place + 2)] == seen(right, place) == seen(plain, place)
    asked, moved = asked_at(*range(7)), asked_at(*range(2, 9))
    assert query_times(left, moved).equal(query_times(plain, asked))
    assert query_times(right, asked).equal(query_times(plain, asked))
    expected = history_features(config, plain, asked, seen_before(plain, asked))
    for history, queries, events in ((left, moved, slice(2, 9)), (right, asked, slice(0, 7))):
        visible = seen_before(history, queries)
        found = history_features(config, history, queries, visible)[:, events]
        visible = visible[:, events]
        torch.testing.assert_close(found[visible], expected[visible], rtol=0, atol=0)


def test_every_feature_session_wise():
    """Place 6 asks for a cart; it sees a (2), c (3) and b (4)."""
    config, history, asked = config_of(session_wise=True), history_of(session_wise=True), asked_at(6)
    features = history_features(config, history, asked, seen_before(history, asked))
    assert features.shape == (1, 7, num_history_features(config)) == (1, 7, 15)
    assert features.dtype == torch.float32
    expected = [
        [
            log1p((20_000 - 1_200) / 3600) / 4,  # the session began at 20,000; the purchase was at 1,200
            log1p(2),  # c and b were met after it
            log1p(1),  # in the session before the last
            0,
            log1p(2),  # viewed and bought
            log1p(3) / 4,  # three items are known
            0,  # not in the cart yet
            (0 + 1) / 3,  # below a cart it was viewed: level 0 of three
            1,  # and bought, which is above
            *[1, 0, 1],
            *[0, 0, 1],
        ],
        [log1p(10_000 / 3600) / 4, log1p(1), 0, 1, log1p(1), log1p(3) / 4, 0, 1 / 3, 0, *[1, 0, 0], *[1, 0, 0]],
        [log1p(9_900 / 3600) / 4, 0, 0, 1, log1p(2), log1p(3) / 4, 1, 1 / 3, 0, *[1, 1, 0], *[0, 1, 0]],
    ]
    torch.testing.assert_close(features[0, [2, 3, 4]], torch.tensor(expected))


def test_every_feature_causally():
    """Place 5 asks for a view; it sees a (2), c (3) and b (4), which was one item ago."""
    config, history, asked = config_of(session_wise=False), history_of(session_wise=False), asked_at(5)
    features = history_features(config, history, asked, seen_before(history, asked))
    expected = [
        [log1p(18_800 / 3600) / 4, log1p(2), log1p(2), 0, log1p(2), log1p(3) / 4, 1, 0, 1, *[1, 0, 1], *[0, 0, 1]],
        [log1p(10_000 / 3600) / 4, log1p(1), log1p(1), 0, log1p(1), log1p(3) / 4, 1, 0, 0, *[1, 0, 0], *[1, 0, 0]],
        [log1p(9_900 / 3600) / 4, 0, 0, 1, log1p(2), log1p(3) / 4, 1, 0, 1, *[1, 1, 0], *[0, 1, 0]],
    ]
    torch.testing.assert_close(features[0, [2, 3, 4]], torch.tensor(expected))


def test_the_highest_lower_level_counts():
    """A buy is asked for: `a` reached a view (level 0), `b` a cart (level 1), of three levels."""
    config = config_of(session_wise=True)
    tokens = torch.tensor([[VIEW, *A, VIEW, *B, CART, *B, BUY]])
    sessions = torch.tensor([[1] * 9 + [2]])
    history, asked = read_item_history(config, tokens, sessions), asked_at(3)
    features = history_features(config, history, asked, seen_before(history, asked))
    assert features[0, [0, 2], 7].tolist() == pytest.approx([1 / 3, 2 / 3])


def test_clock_skew_makes_no_negative_age():
    config = config_of(session_wise=True)
    tokens, sessions = torch.tensor([[VIEW, *A, CART]]), torch.tensor([[1, 1, 1, 2]])
    history, asked = read_item_history(config, tokens, sessions, torch.tensor([[900, 900, 900, 500]])), asked_at(1)
    assert history_features(config, history, asked, seen_before(history, asked))[0, 0, 0] == 0


def test_without_times_everything_happened_at_once():
    history = read_item_history(config_of(session_wise=False), torch.tensor([TOKENS]))
    assert history.times.tolist() == [[0] * 7]


def test_a_session_wise_model_must_be_told_the_sessions():
    with pytest.raises(ValueError, match="needs `session_ids`"):
        read_item_history(config_of(session_wise=True), torch.tensor([TOKENS]))


def test_each_behavior_of_a_session_weighs_the_same():
    """Session 1 has two views and a buy, sessions 2 and 3 a view and a cart each."""
    history = history_of(session_wise=True)
    expected = torch.tensor([1 / 2, 1 / 2, 1, 1, 1, 1, 1]) * 7 / 6  # seven items, six records, a mean of 1
    torch.testing.assert_close(loss_weights(history, asked_at(*range(7)), "query"), expected)
    assert loss_weights(history_of(session_wise=False), asked_at(*range(7)), "query").tolist() == [1] * 7


def test_each_user_weighs_the_same():
    """The first asks for both views of session 1 and the cart of session 2, the second for that cart alone."""
    one = history_of(session_wise=True)
    history = ItemHistory(*(torch.cat([part, part]) for part in one))
    cart = int((one.behaviors[0] == 1).nonzero()[0, 0])
    queries = ItemQueries(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, cart, cart]))
    expected = torch.tensor([1 / 4, 1 / 4, 1 / 2, 1]) * 4 / 2  # four items, two users
    torch.testing.assert_close(loss_weights(history, queries, "user"), expected)
