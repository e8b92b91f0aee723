"""What the pointers of `gamer-plus` cost in the search: the same users with and without them.

    python -m benchmarks.speed.pointers [--quick] [--device cuda]

Both models have the preset's own width, depth and session-wise masks, and random weights; `plain` leaves out the copy
pointer, rising items, neighbors and times. A call is everything that a request costs: counting what rises, looking
up the candidates on the host, the prompt, the search. Users are those of the synthetic market, each asked at the time
of their last session, as in an evaluation. A ratio is the plain model's time over the other's: 0.87 is 15 % slower.
"""

from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.speed.harness import Contender, Results, Settings, run
from genrec.data import SyntheticMarket
from genrec.data.candidates import query_context
from genrec.data.histories import Histories
from genrec.data.splits import split_last_session
from genrec.item_tokenizers import ChunkedIDTokenizer
from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.presets import preset_path
from genrec.recommender import GenerativeRecommender, Recommendations

PRESETS = ("gamer-plus-tiny", "gamer-plus-small", "gamer-plus")
PLAIN = {"copy_head": False, "trend_head": False, "neighbor_head": False, "time_context": False, "loss_unit": "item"}
NUM_BEAMS, K = 20, 10


def measure(settings: Settings) -> Results:
    """Time each size."""
    results = Results(settings)
    market = SyntheticMarket(
        num_users=settings.choose(20_000, 300), num_items=settings.choose(20_000, 300), seed=settings.seed
    )
    log = market.histories().with_session_times()
    tokenizer = ChunkedIDTokenizer(chunk_size=256).fit(None, log.item_ids, log.ladder)
    queries = split_last_session(log).test.histories
    num_users = min(settings.choose(256, 16), len(queries))
    drawn = np.random.default_rng(settings.seed).choice(len(queries), num_users, replace=False)
    users = queries.select(np.sort(drawn))
    for preset in settings.choose(PRESETS, PRESETS[:1]):
        pair = {
            "plain": _recommender(preset, PLAIN, tokenizer, log, settings),
            "pointers": _recommender(preset, {}, tokenizer, log, settings),
        }
        results.compare(
            preset,
            [
                Contender(name, partial(each.recommend, users, K, behavior=log.ladder.target))
                for name, each in pair.items()
            ],
            baseline="plain",
            work=num_users,
            unit="users",
            repeats=settings.choose(full=9, quick=2),
            check=partial(_check, num_users=num_users),
            ratio=f"pointers/{preset}",
            max_seconds=120.0,
        )
    return results


def _recommender(
    preset: str, fields: dict[str, Any], tokenizer: ChunkedIDTokenizer, log: Histories, settings: Settings
) -> GenerativeRecommender:
    torch.manual_seed(settings.seed)
    folder = preset_path("hub_configs", preset)
    config = GamerConfig.from_pretrained(folder, **tokenizer.model_config_fields(), **fields)
    model = GamerForCausalLM(config).eval().to(settings.device)
    context = query_context(log, config)
    return GenerativeRecommender(model, tokenizer, num_beams=NUM_BEAMS, batch_size=32, context=context)


def _check(outputs: dict[str, Recommendations], num_users: int) -> None:
    """The models differ, so their lists do; both must be whole lists of different items."""
    for name, found in outputs.items():
        if found.items.shape != (num_users, K) or any(len(set(items)) < K for items in found.items.tolist()):
            raise ValueError(f"{name}: a user got fewer than {K} different items.")


if __name__ == "__main__":
    run("pointers", measure)
