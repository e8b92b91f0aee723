"""Training TIGER-MB and MBGen: a history read once per session beside once per interaction.

    python -m benchmarks.speed.encoder_decoder [--quick] [--device cuda]

Encoder-decoder models learn from one sample per interaction, whose history is that of the earlier sessions: the same
for all interactions of a session. `interactions` gives each its own row, as the releases do; `sessions` is what
`EncoderDecoderTrainer` is given. Both go forward and backward over the same targets of the synthetic market, six
visits to a session, without dropout, so that losses must agree.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from benchmarks.speed.harness import Contender, Results, Settings, run
from genrec.data import SyntheticMarket
from genrec.data.histories import Histories
from genrec.item_tokenizers import ChunkedIDTokenizer
from genrec.models.encoder_decoder import MBGenConfig, TigerConfig
from genrec.presets import preset_path
from genrec.training.encoder_decoder_collator import EncoderDecoderCollator
from genrec.training.item_samples import InteractionDataset

MODELS = {"tiger-mb": TigerConfig, "mbgen": MBGenConfig}
VISITS_PER_SESSION = 6.0
TOLERANCE = 1e-4


def measure(settings: Settings) -> Results:
    """Time both models at the size of the comparison, `tiger-mb-tiny` and `mbgen-tiny`."""
    results = Results(settings)
    market = SyntheticMarket(num_users=300, num_items=1000, visits_per_session=VISITS_PER_SESSION, seed=settings.seed)
    log = market.histories()
    tokenizer = ChunkedIDTokenizer(chunk_size=256).fit(None, log.item_ids, log.ladder)
    batches = _batches(log, tokenizer, num_sessions=settings.choose(16, 3), device=settings.device)
    for name, config_class in MODELS.items():
        torch.manual_seed(settings.seed)
        folder = preset_path("hub_configs", f"{name}-tiny")
        config = config_class.from_pretrained(folder, **tokenizer.model_config_fields(), dropout_rate=0.0)
        model = AutoModelForSeq2SeqLM.from_config(config).to(settings.device).train()
        results.compare(
            name,
            [Contender(way, partial(_forward_and_backward, model, batch)) for way, batch in batches.items()],
            baseline="interactions",
            work=len(batches["sessions"]["labels"]),
            unit="targets",
            repeats=settings.choose(full=15, quick=2),
            check=_check,
            ratio=f"train_{name}/interactions",
        )
    return results


def _batches(
    log: Histories, tokenizer: ChunkedIDTokenizer, num_sessions: int, device: str
) -> dict[str, dict[str, Tensor]]:
    """Return the targets of the latest sessions, which have the longest histories, as either kind of batch."""
    collate = EncoderDecoderCollator(tokenizer.item_tokens, len(log.ladder.names))
    joined = InteractionDataset(log, max_history_items=50, joins_sessions=True)
    chosen = joined.lengths.argsort(kind="stable")[-num_sessions:].tolist()
    sessions = [joined[row] for row in chosen]
    interactions = [_one_target(sample, place) for sample in sessions for place in range(sample["num_targets"])]
    batches = {"interactions": collate(interactions), "sessions": collate(sessions)}
    return {name: {key: part.to(device) for key, part in batch.items()} for name, batch in batches.items()}


def _one_target(sample: dict[str, Any], place: int) -> dict[str, Any]:
    """Return the history of a sample and one of its targets."""
    num_read = len(sample["items"]) - sample["num_targets"]
    events = [*range(num_read), num_read + place]
    return {"items": sample["items"][events], "behaviors": sample["behaviors"][events], "num_targets": 1}


def _forward_and_backward(model: torch.nn.Module, batch: dict[str, Tensor]) -> float:
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return float(loss.detach())


def _check(outputs: dict[str, float]) -> None:
    off = abs(outputs["sessions"] - outputs["interactions"])
    if not off <= TOLERANCE:
        raise ValueError(f"The losses differ by {off:.1e}.")


if __name__ == "__main__":
    run("encoder_decoder", measure)
