import numpy as np
import pytest

from genrec.data.histories import as_histories
from genrec.data.samples import (
    catalog_fingerprint,
    noted_catalogs,
    open_samples,
    training_samples,
    validation_samples,
    write_samples,
)
from genrec.data.splits import split_last_session

HOUR = 3600


def long_user(num_sessions):
    return [(session % 5, "view", session * HOUR) for session in range(num_sessions)]


def test_training_samples_keep_one_more_than_the_history():
    histories = as_histories([long_user(7), long_user(2)], list(range(5)), "view")
    assert training_samples(histories, 3, "user").lengths.tolist() == [4, 2]
    assert training_samples(histories, 3, "user")[0].sessions.tolist() == [3, 4, 5, 6]


def test_windows_hold_every_interaction_once_the_last_ones_together():
    histories = as_histories([long_user(9), [], long_user(2), long_user(4)], list(range(5)), "view")
    samples = training_samples(histories, 3)
    assert [sample.sessions.tolist() for sample in samples] == [
        [0],
        [1, 2, 3, 4],
        [5, 6, 7, 8],
        [],
        [0, 1],
        [0, 1, 2, 3],
    ]
    assert samples.users.tolist() == [0, 0, 0, 1, 2, 3]
    assert samples.items.tolist() == histories.items.tolist()


def test_a_window_that_begins_within_a_session_knows_when_that_began():
    user = [(0, "view", 0), (1, "view", 60), (2, "view", 120), (3, "view", 5 * HOUR)]
    histories = as_histories([user], list(range(5)), "view").with_session_times()
    assert training_samples(histories, 1).session_times.tolist() == [0, 0, 0, 5 * HOUR]


def test_an_unknown_level_of_samples_is_refused():
    with pytest.raises(ValueError, match="`samples` must be one of user, window, got 'session'"):
        training_samples(as_histories([long_user(2)], list(range(5)), "view"), 3, "session")


def test_validation_samples_cut_the_history_before_adding_the_interaction():
    user = [*long_user(6), (1, "view", 5 * HOUR), (2, "buy", 5 * HOUR), (0, "view", 9 * HOUR)]
    split = split_last_session(as_histories([user], list(range(5)), "view,buy"))
    samples = validation_samples(split.validation, 2)
    assert [history.items.tolist() for history in samples] == [[3, 4, 0], [3, 4, 1], [3, 4, 2]]
    assert [history.behaviors.tolist() for history in samples] == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert [history.sessions.tolist() for history in samples] == [[3, 4, 5]] * 3
    assert samples.times.tolist() == [3 * HOUR, 4 * HOUR, 5 * HOUR] * 3
    assert samples.session_times.tolist() == samples.times.tolist()


def test_a_validation_sample_is_asked_about_when_its_session_began():
    user = [(0, "view", 0), (1, "view", 5 * HOUR), (2, "view", 5 * HOUR + 60), (3, "view", 9 * HOUR)]
    split = split_last_session(as_histories([user], list(range(5)), "view"))
    samples = validation_samples(split.validation, 2)
    assert [history.times.tolist() for history in samples] == [[0, 5 * HOUR], [0, 5 * HOUR + 60]]
    assert samples.session_times.tolist() == [0, 5 * HOUR] * 2


def test_written_samples_come_back_and_leave_no_other_file(tmp_path):
    histories = as_histories([long_user(3), long_user(1)], list(range(5)), "view")
    write_samples(histories, tmp_path / "s.arrow", num_targets=1)
    samples = open_samples(tmp_path / "s.arrow")
    assert samples["num_targets"][:] == [1, 1]
    assert samples["items"][:] == [[0, 1, 2], [0]]
    assert samples["times"][0] == [0, HOUR, 2 * HOUR]
    assert [path.name for path in tmp_path.iterdir()] == ["s.arrow"]
    write_samples(histories.select(np.array([], dtype=int)), tmp_path / "none.arrow")
    assert len(open_samples(tmp_path / "none.arrow")) == 0
    names = ["items", "behaviors", "sessions", "times", "session_times"]
    assert open_samples(tmp_path / "none.arrow").column_names == names


def test_written_samples_tell_which_catalog_their_rows_are_of(tmp_path):
    histories = as_histories([long_user(3), long_user(1)], list(range(5)), "view")
    write_samples(histories, tmp_path / "s.arrow")
    samples = open_samples(tmp_path / "s.arrow")
    for part in (samples, samples.select([1]), samples.with_format("numpy"), samples.remove_columns("times")):
        assert noted_catalogs(part) == {catalog_fingerprint(np.arange(5))}
    renumbered = samples.map(
        lambda sample: {"items": [item + 1 for item in sample["items"]]}, load_from_cache_file=False
    )
    assert noted_catalogs(renumbered) == set()


def test_catalogs_differ_by_order_and_by_the_type_of_their_ids():
    catalogs = [np.array([7, 9]), np.array([9, 7]), np.array(["7", "9"], dtype=object), np.array([7, 9, 11])]
    assert len({catalog_fingerprint(catalog) for catalog in catalogs}) == 4
