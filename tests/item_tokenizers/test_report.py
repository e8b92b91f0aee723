import json
import math

import pytest
import torch

from genrec.item_tokenizers.code_table import CodeTable, check_item_ids
from genrec.item_tokenizers.report import Threshold, report_codes


def table_of(codes, raw_codes, sizes, errors=None):
    codes, raw_codes = torch.tensor(codes), torch.tensor(raw_codes)
    errors = None if errors is None else torch.tensor(errors)
    return CodeTable(check_item_ids(range(len(codes))), codes, sizes, raw_codes, errors)


@pytest.fixture
def toy():
    """Five items: three ask for (0, 0), of which two moved; level 2 never uses its code 3."""
    raw = [[0, 0], [0, 0], [0, 0], [1, 1], [1, 2]]
    repaired = [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2]]
    errors = [[1.0, 4.0], [0.0, 2.0], [0.0, 2.0], [1.0, 1.0], [0.0, 1.0]]
    return report_codes(table_of(repaired, raw, (2, 4), errors), "ToyTokenizer")


def test_figures_by_hand(toy):
    assert toy.raw_collision_rate == pytest.approx(1 - 3 / 5)
    assert (toy.worst_bucket, toy.worst_bucket_rate) == (3, pytest.approx(2 / 5))
    assert toy.collision_rate == 0
    assert toy.repaired_rate == pytest.approx(2 / 5)
    assert toy.disambiguation_size == 0
    assert toy.reconstruction_error == pytest.approx(2 / 10)


def test_levels_by_hand(toy):
    first, second = toy.levels
    assert (first.size, first.used, first.dead, first.usage) == (2, 2, 0, 1.0)
    assert first.perplexity == pytest.approx(math.exp(-0.6 * math.log(0.6) - 0.4 * math.log(0.4)), abs=1e-5)
    assert (second.size, second.used, second.dead, second.usage) == (4, 3, 1, 0.75)
    assert second.perplexity_rate == pytest.approx(second.perplexity / 4)


def test_status_is_the_worst_of_all_checks(toy):
    status = {check.name: check.status for check in toy.checks}
    assert status["raw_collision_rate"] == "warn"  # .4 is above .25, not above .5
    assert status["worst_bucket_rate"] == "pass"  # .4 is above .05, but three items on one code are few
    assert status["reconstruction_error"] == "pass"
    assert status["level 2 usage"] == "pass"
    assert toy.status == "warn"


@pytest.mark.parametrize(
    ("num_items", "bucket", "status"),
    [
        (20, 3, "pass"),
        (20, 4, "warn"),  # 15 %, but four items
        (20, 6, "warn"),
        (20, 7, "fail"),
        (60, 6, "warn"),
        (60, 7, "fail"),
        (200, 7, "warn"),  # 3 %
        (1000, 7, "pass"),  # 0.6 %
        (1000, 52, "fail"),
    ],
)
def test_a_bucket_fails_by_its_share_and_its_size(num_items, bucket, status):
    raw = [[0]] * bucket + [[code] for code in range(1, num_items - bucket + 1)]
    report = report_codes(table_of(raw, raw, (num_items,)), "T")
    assert {check.name: check.status for check in report.checks}["worst_bucket_rate"] == status


def test_text_shows_figures_and_complaints(toy):
    text = str(toy)
    assert text.startswith("ToyTokenizer: 5 items, codebooks [2, 4]: warn\n")
    assert "raw collision rate      40.00%  warn" in text
    assert "worst bucket                 3  pass" in text
    assert "reconstruction error    20.00%  pass" in text
    assert "    2      4      3      1         2.6  pass" in text
    assert "warn: raw_collision_rate 0.4: similar items are told apart by repair, not by their vectors" in text


def test_json_holds_figures_checks_and_status(toy):
    read = json.loads(toy.to_json())
    assert read["levels"][1]["dead"] == 1
    assert read["status"] == "warn"
    assert {"name", "value", "status", "meaning"} == set(read["checks"][0])


def test_kept_collisions_and_codes_without_vectors():
    same = [[0], [0], [1], [2]]
    report = report_codes(table_of(same, same, (3,)), "T")
    assert report.collision_rate == report.raw_collision_rate == 0.25
    assert report.repaired_rate == 0
    assert report.reconstruction_error is None
    assert "reconstruction error      none" in report.to_text()
    assert "warn: collision_rate 0.25: items that share a code cannot be told apart" in report.to_text()


def test_an_added_level_is_named_and_counts_as_repair():
    raw = [[0], [0], [1]]
    report = report_codes(table_of([[0, 0], [0, 1], [1, 0]], raw, (2, 2)), "T")
    assert (report.disambiguation_size, report.repaired_rate) == (2, pytest.approx(1 / 3))
    assert len(report.levels) == 1
    assert "repair added a level of 2 codes" in report.to_text()


def test_equal_vectors_lose_nothing():
    assert report_codes(table_of([[0]], [[0]], (1,), [[0.0, 0.0]]), "T").reconstruction_error == 0.0


@pytest.mark.parametrize(("value", "status"), [(0.1, "pass"), (0.11, "warn"), (0.4, "warn"), (0.41, "fail")])
def test_thresholds_where_less_is_better(value, status):
    assert Threshold(0.1, 0.4, "").status(value) == status


@pytest.mark.parametrize(("value", "status"), [(0.9, "pass"), (0.89, "warn"), (0.5, "warn"), (0.49, "fail")])
def test_thresholds_where_more_is_better(value, status):
    assert Threshold(0.9, 0.5, "").status(value) == status
