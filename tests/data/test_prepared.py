import dataclasses
import json

import datasets
import numpy as np
import pytest

from genrec.data.augmentation import drop_behaviors
from genrec.data.catalog import Catalog
from genrec.data.config import DataConfig
from genrec.data.interactions import InteractionLog
from genrec.data.preparation import prepare
from genrec.data.prepared import PreparedDataset

HOUR = 3600
CATALOG = [*"edcba"]


def columns_of_users():
    """User 7: sessions {a, b}, {c}, {d, e}; user 3: {a}, {b}, {c}; user 5: {e}."""
    events = [(7, "a", 0), (7, "b", 0), (7, "c", 2), (7, "d", 4), (7, "e", 4)]
    events += [(3, "a", 1), (3, "b", 3), (3, "c", 5), (5, "e", 0)]
    return {
        "user_id": [user for user, _, _ in events],
        "item_id": [item for _, item, _ in events],
        "behavior": ["view", "buy"] * 4 + ["view"],
        "timestamp": [hour * HOUR for _, _, hour in events],
    }


@pytest.fixture
def prepared(tmp_path):
    log = InteractionLog.read(columns_of_users(), behaviors="view,buy")
    config = DataConfig(temporal_validation_share=0.3, temporal_test_share=0.2)
    return prepare(log, config, tmp_path / "prepared", Catalog(CATALOG))


def test_histories_are_catalog_rows_and_ladder_indices(prepared):
    histories = prepared.histories
    assert histories.users.tolist() == [3, 5, 7]
    assert histories.offsets.tolist() == [0, 3, 4, 9]
    assert histories.items.tolist() == [4, 3, 2, 0, 4, 3, 2, 1, 0]
    assert histories.behaviors.tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 0]
    assert histories.sessions.tolist() == [0, 1, 2, 0, 0, 0, 1, 2, 2]
    assert histories.times.tolist() == [hour * HOUR for hour in (1, 3, 5, 0, 0, 0, 2, 4, 4)]
    assert histories.item_ids.tolist() == CATALOG
    assert histories.ladder.names == ("view", "buy")


def test_loading_gives_the_same_dataset(prepared):
    loaded = PreparedDataset.load(prepared.folder)
    assert loaded.manifest == prepared.manifest
    assert loaded.ladder == prepared.ladder
    assert loaded.catalog.item_ids.tolist() == CATALOG
    assert loaded.histories.items.tolist() == prepared.histories.items.tolist()
    assert loaded.released_codes() is None


def test_split_is_made_once_and_follows_the_config(prepared):
    assert prepared.split("temporal") is prepared.split("temporal")
    # Session starts in hours: 0 0 1 2 3 4 5. Of seven, .2 is one (the last) and .3 two (the ones before).
    assert prepared.split("temporal").cuts == (3 * HOUR, 5 * HOUR)
    split = prepared.split("last-session")
    assert split.test.histories.users.tolist() == [3, 7]
    assert split.catalog is prepared.catalog
    assert split.ladder == prepared.ladder


def test_unknown_protocol_is_refused(prepared):
    for ask in (prepared.split, prepared.train_dataset, prepared.validation_dataset):
        with pytest.raises(ValueError, match="`protocol` must be one of last-session, temporal, got 'random'"):
            ask("random")


def test_training_samples_hold_the_training_part(prepared):
    samples = prepared.train_dataset("last-session")
    assert isinstance(samples, datasets.Dataset)
    assert samples.to_list() == [
        {"items": [4], "behaviors": [1], "sessions": [0], "times": [HOUR], "session_times": [HOUR]},
        {"items": [0], "behaviors": [0], "sessions": [0], "times": [0], "session_times": [0]},
        {"items": [4, 3], "behaviors": [0, 1], "sessions": [0, 0], "times": [0, 0], "session_times": [0, 0]},
    ]


def test_training_samples_are_all_interactions_or_the_last_ones(prepared):
    def items(samples):
        dataset = prepared.train_dataset("temporal", max_history_items=1, samples=samples)
        return [sample["items"] for sample in dataset]

    assert items("window") == [[4], [0], [4], [3, 2]]
    assert items("user") == [[4], [0], [3, 2]]
    with pytest.raises(ValueError, match="`samples` must be one of user, window, got 'interaction'"):
        items("interaction")


def test_validation_samples_are_one_interaction_after_all_earlier_sessions(prepared):
    assert prepared.validation_dataset("last-session").to_list() == [
        {
            "items": [4, 3],
            "behaviors": [1, 0],
            "sessions": [0, 1],
            "times": [HOUR, 3 * HOUR],
            "session_times": [HOUR, 3 * HOUR],
            "num_targets": 1,
        },
        {
            "items": [4, 3, 2],
            "behaviors": [0, 1, 0],
            "sessions": [0, 0, 1],
            "times": [0, 0, 2 * HOUR],
            "session_times": [0, 0, 2 * HOUR],
            "num_targets": 1,
        },
    ]


def test_samples_are_memory_mapped_and_written_once(prepared):
    first = prepared.train_dataset("last-session")
    assert isinstance(first.data, datasets.table.MemoryMappedTable)
    path = first.cache_files[0]["filename"]
    assert path.startswith(str(prepared.folder))
    written = (prepared.folder / path).stat().st_mtime_ns
    again = PreparedDataset.load(prepared.folder).train_dataset("last-session")
    assert again.cache_files == first.cache_files
    assert (prepared.folder / path).stat().st_mtime_ns == written


def test_samples_of_other_settings_are_other_files(prepared):
    made = [
        prepared.train_dataset("last-session"),
        prepared.train_dataset("temporal"),
        prepared.train_dataset("last-session", augmentation_copies=2),
        prepared.train_dataset("last-session", augmentation_copies=2, seed=1),
        prepared.train_dataset("last-session", max_history_items=1),
        prepared.validation_dataset("last-session"),
        prepared.validation_dataset("last-session", max_history_items=1),
    ]
    assert len({samples.cache_files[0]["filename"] for samples in made}) == len(made)


def test_augmented_samples_are_those_of_drop_behaviors(prepared):
    expected = drop_behaviors(prepared.split("last-session").train, copies=3, seed=5)
    samples = prepared.train_dataset("last-session", augmentation_copies=3, seed=5)
    assert [sample["items"] for sample in samples] == [history.items.tolist() for history in expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"augmentation_copies": -1}, "`augmentation_copies` must be at least 0, got -1"),
        ({"max_history_items": 0}, "`max_history_items` must be at least 1, got 0"),
    ],
)
def test_bad_numbers_are_refused(prepared, arguments, message):
    with pytest.raises(ValueError, match=message):
        prepared.train_dataset("last-session", **arguments)


def test_a_folder_that_is_no_dataset_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no prepared dataset. Write one with `prepare`"):
        PreparedDataset.load(tmp_path)


def test_another_format_is_refused(prepared):
    path = prepared.folder / "manifest.json"
    path.write_text(json.dumps({**prepared.manifest, "format": "genrec-dataset-0"}))
    with pytest.raises(ValueError, match="has the format 'genrec-dataset-0', but this version reads"):
        PreparedDataset.load(prepared.folder)


@pytest.mark.parametrize("name", ["manifest.json", "interactions.parquet"])
def test_a_truncated_file_is_named(prepared, name):
    path = prepared.folder / name
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=f"{name}.*truncated"):
        _ = PreparedDataset.load(prepared.folder).histories


def test_samples_fit_many_users(tmp_path):
    num_users = 2500
    log = InteractionLog.read(
        {
            "user_id": np.repeat(np.arange(num_users), 3),
            "item_id": np.arange(3 * num_users) % 11,
            "behavior": ["view"] * (3 * num_users),
            "timestamp": np.tile([0, HOUR, 2 * HOUR], num_users),
        },
        behaviors="view",
    )
    samples = prepare(log, DataConfig(), tmp_path / "p").train_dataset("last-session")
    assert len(samples) == num_users
    assert [sample["items"] for sample in samples.select([0, 999, 1000, 2499])] == [
        [3 * user % 11] for user in (0, 999, 1000, 2499)
    ]


# Times


def long_session():
    """One user, four sessions; the second, the last to train on, has four events over 45 minutes."""
    minutes = [0, 300, 310, 320, 345, 2000, 3000]
    return {
        "user_id": [1] * 7,
        "item_id": [*"abcdeab"],
        "behavior": ["view", "view", "buy", "view", "buy", "view", "buy"],
        "timestamp": [minute * 60 for minute in minutes],
    }


def test_a_cut_or_thinned_session_is_still_asked_about_at_its_start(tmp_path):
    """Else what the user did minutes before, in the session itself, would count as known."""
    log = InteractionLog.read(long_session(), behaviors="view,buy")
    prepared = prepare(log, DataConfig(), tmp_path / "prepared", Catalog(CATALOG))
    sample = prepared.train_dataset("last-session", max_history_items=1)[-1]
    assert sample["times"] == [320 * 60, 345 * 60]
    assert sample["session_times"] == [300 * 60] * 2
    thinned = prepared.train_dataset("last-session", augmentation_copies=1)[1]
    assert thinned["times"] == [310 * 60, 345 * 60]
    assert thinned["session_times"] == [300 * 60] * 2


def test_the_events_are_those_of_all_users_in_the_order_of_time(prepared):
    events = prepared.events()
    assert events is prepared.events()
    assert events.times.tolist() == sorted(prepared.histories.times.tolist())
    assert (events.num_items, events.num_behaviors) == (5, 2)
    at_two = events.before(3 * HOUR)
    assert sorted(at_two.items.tolist()) == [0, 2, 3, 4, 4]  # e; c; b; a of two users


def test_a_log_without_times_has_no_recent_events(prepared):
    source = {**prepared.manifest["source"], "has_times": False}
    timeless = dataclasses.replace(prepared, manifest={**prepared.manifest, "source": source})
    assert prepared.has_times
    assert not timeless.has_times
    with pytest.raises(ValueError, match="The log has no times, so nothing in it is recent"):
        timeless.events()
