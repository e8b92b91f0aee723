import pytest

from benchmarks.speed import encoder_decoder
from benchmarks.speed.harness import Settings


def test_the_same_targets_are_trained_on_in_both_ways():
    results = encoder_decoder.measure(Settings(quick=True))
    assert set(results.ratios) == {"train_tiger-mb/interactions", "train_mbgen/interactions"}
    with pytest.raises(ValueError, match="The losses differ by"):
        encoder_decoder._check({"sessions": 1.0, "interactions": 1.1})
