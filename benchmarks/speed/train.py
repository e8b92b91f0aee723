"""Tokens per second of a training step: genrec's, eager and compiled, beside dense masks and boolean-index experts.

    python -m benchmarks.speed.train [--quick] [--device cuda] [--lengths PREPARED]

A step is a forward and a backward pass; what the optimizer does once per update, after many of them, is a table of its
own. Contenders start from the same weights, and their losses and gradients are compared first. Dropout is off, because
with it no two of them compute the same; the preset's attention has none anyway. Histories are all 100 items long and
one more, so that none has padding. The table `packing` is about padding: lengths follow Zipf's law, or are those of a
prepared log (`--lengths`), and a unit of work is a token that is no padding.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.speed.baselines.dense_training import DenseTrainingModel
from benchmarks.speed.harness import Contender, Results, Settings, run
from benchmarks.speed.limits import measure_peaks, training_cost
from benchmarks.speed.workload import BEHAVIOR_LEVELS, item_tokens, random_codes, random_model
from genrec.item_tokenizers.vocabulary import Vocabulary
from genrec.models.gamer import GamerConfig, GamerForCausalLM
from genrec.training.collators import HistoryCollator, MicroBatchCollator
from genrec.training.samplers import LengthBucketBatchSampler

HISTORY_ITEMS = 100
NUM_ITEMS = 1000
DENSE, EAGER, COMPILED = "dense", "eager", "compiled"
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0}
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-3
BF16_LOSS_TOLERANCE, BF16_GRADIENT_TOLERANCE = 1e-2, 0.2
CURVE_TOLERANCE = 1e-2  # after hundreds of steps rounding has grown, but the curves lie on each other

Step = Callable[[], tuple[Tensor, Tensor]]


def random_samples(lengths: Sequence[int], seed: int) -> list[dict[str, np.ndarray]]:
    """Return samples of these lengths, with random items and behaviors."""
    generator = np.random.default_rng(seed)
    return [
        {
            "items": generator.integers(NUM_ITEMS, size=length),
            "behaviors": generator.integers(len(BEHAVIOR_LEVELS), size=length),
            "sessions": np.arange(length) // 3,
        }
        for length in lengths
    ]


def collator_of(config: GamerConfig, device: str, packing: bool = False, seed: int = 0) -> HistoryCollator:
    """Return a collator over random items, whose batches lie on the device."""
    tokens = item_tokens(config, random_codes(NUM_ITEMS, config.num_levels, seed)).to(device)
    vocabulary = Vocabulary(config.num_behaviors, tuple(config.codebook_sizes))
    return HistoryCollator(tokens, vocabulary, HISTORY_ITEMS, packing=packing)


def step_of(model: nn.Module, loss_of: Callable[[], Tensor], bf16: bool = False) -> Step:
    """Return a forward and backward pass, which returns the loss and the gradient of the embeddings, its last one."""

    def step() -> tuple[Tensor, Tensor]:
        model.zero_grad(set_to_none=True)
        with torch.autocast(next(model.parameters()).device.type, torch.bfloat16, enabled=bf16):
            loss = loss_of()
        loss.backward()
        return loss.detach(), model.get_parameter(_embedding_name(model)).grad

    return step


def _embedding_name(model: nn.Module) -> str:
    return "embed_tokens.weight" if isinstance(model, DenseTrainingModel) else "model.embed_tokens.weight"


def check_steps(outputs: dict[str, tuple[Tensor, Tensor]], bf16: bool = False) -> None:
    """Raise if a contender's loss, or its gradients at the end of the way back, differ from the baseline's."""
    loss_tolerance = BF16_LOSS_TOLERANCE if bf16 else LOSS_TOLERANCE
    tolerance = BF16_GRADIENT_TOLERANCE if bf16 else GRADIENT_TOLERANCE
    baseline_loss, baseline = outputs[DENSE]
    for name, (loss, gradient) in outputs.items():
        off = abs(float(loss / baseline_loss) - 1)
        gradient_off = float((gradient - baseline).norm() / baseline.norm())
        if not (off <= loss_tolerance and gradient_off <= tolerance):
            raise ValueError(f"{name}: its loss is off by {off:.1e} and its gradients by {gradient_off:.1e}.")


def compare_steps(results: Results, preset: str, fields: dict[str, Any], batch_size: int, bf16: bool) -> None:
    """Time one step of each contender on the same batch."""
    settings = results.settings
    model = random_model(preset, seed=settings.seed, **NO_DROPOUT, **fields).to(settings.device).train()
    batch = collator_of(model.config, settings.device)(random_samples([HISTORY_ITEMS + 1] * batch_size, settings.seed))
    batch = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    dense = DenseTrainingModel.of(model)
    compiled = torch.compile(model, fullgraph=True, dynamic=False)
    ours = {EAGER: model, COMPILED: compiled}
    contenders = [Contender(DENSE, step_of(dense, lambda: dense(**batch), bf16))]
    for name, module in ours.items():
        loss_of = partial(_our_loss, module, batch)
        contenders.append(Contender(name, step_of(model, loss_of, bf16), warmup=2))
    suffix = "_bf16" if bf16 else ""
    peaks = measure_peaks(settings.device, torch.bfloat16 if bf16 else torch.float32, settings.quick)
    results.compare(
        f"training step{', bf16' if bf16 else ''}",
        contenders,
        baseline=DENSE,
        work=int(batch["input_ids"].numel()),
        unit="tokens",
        repeats=settings.choose(full=10, quick=2),
        check=partial(check_steps, bf16=bf16),
        ratio=f"train/dense_{{name}}{suffix}",
        limit=peaks.per_second(training_cost(model.config, HISTORY_ITEMS + 1)),
    )


def _our_loss(model: nn.Module, batch: dict[str, Tensor], **more: Any) -> Tensor:
    return model(**batch, padding_side="right", **more).loss


def compare_packing(results: Results, lengths: np.ndarray) -> None:
    """Time the same users' gradients with random batches padded to the longest, with buckets, and packed."""
    settings = results.settings
    model = random_model(settings.choose("gamer-small", "gamer-tiny"), seed=settings.seed, **NO_DROPOUT)
    model = model.to(settings.device).train()
    samples = random_samples(lengths.tolist(), settings.seed)
    per_batch = settings.choose(32, 8)
    plain, packing = (collator_of(model.config, settings.device, packing=flag) for flag in (False, True))
    budget = per_batch * (HISTORY_ITEMS + 1) * model.config.tokens_per_item

    def batches(pool_batches: int) -> list[dict[str, Tensor]]:
        rows = LengthBucketBatchSampler(lengths, per_batch, pool_batches=pool_batches, seed=settings.seed)
        return [plain([samples[row] for row in batch]) for batch in rows]

    ways = {"padded": batches(1), "buckets": batches(16), "packed": MicroBatchCollator(packing, budget)(samples)}
    num_labels = int(lengths.sum()) * model.config.num_levels
    real = int(lengths.sum()) * model.config.tokens_per_item
    for name, parts in ways.items():
        tokens = sum(part["input_ids"].numel() for part in parts)
        results.add("padding", name, tokens=tokens, real_tokens=real, tokens_per_real_token=tokens / real)
    rows = results.compare(
        "packing",
        [Contender(name, partial(_loss_and_gradients, model, parts, num_labels)) for name, parts in ways.items()],
        baseline="padded",
        work=real,
        unit="real_tokens",
        repeats=settings.choose(full=5, quick=1),
        check=_check_losses,
        max_seconds=60,
    )
    results.ratio("train/buckets", rows["buckets"].ratio or 0.0)
    results.ratio("train/packing", rows["packed"].ratio or 0.0)


def _loss_and_gradients(model: GamerForCausalLM, batches: list[dict[str, Tensor]], num_labels: int) -> float:
    model.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        loss = _our_loss(model, batch, num_items_in_batch=num_labels)
        loss.backward()
        total += loss.item()
    return total


def _check_losses(losses: dict[str, float]) -> None:
    if max(losses.values()) > min(losses.values()) * (1 + LOSS_TOLERANCE):
        raise ValueError(f"The losses differ: {losses}.")


def compare_curves(results: Results, num_steps: int) -> None:
    """Train a small model and the baseline from the same weights on the same batches; raise if their losses part."""
    settings = results.settings
    model = random_model("gamer-tiny", seed=settings.seed, **NO_DROPOUT).to(settings.device).train()
    dense = DenseTrainingModel.of(model)
    collate = collator_of(model.config, settings.device)
    lengths = np.random.default_rng(settings.seed).integers(2, 20, size=(num_steps, 8))
    batches = [collate(random_samples(row.tolist(), seed)) for seed, row in enumerate(lengths)]
    curves = [_curve(model, partial(_our_loss, model), batches), _curve(dense, partial(_dense_loss, dense), batches)]
    off = float(np.abs(curves[0] / curves[1] - 1).max())
    results.add("loss curve", "ours / dense", steps=num_steps, most_off=off, first=curves[0][0], last=curves[0][-1])
    if not off <= CURVE_TOLERANCE:
        raise ValueError(f"The loss curves part by {off:.1e} within {num_steps} steps.")


def _curve(model: nn.Module, loss_of: Callable[..., Tensor], batches: list[dict[str, Tensor]]) -> np.ndarray:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for batch in batches:
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def _dense_loss(dense: DenseTrainingModel, batch: dict[str, Tensor]) -> Tensor:
    return dense(batch["input_ids"], batch["attention_mask"], batch["labels"])


def compare_optimizers(results: Results, preset: str) -> None:
    """Time an update of AdamW, fused and tensor by tensor."""
    settings = results.settings
    contenders = []
    for name, options in {"for-loop": {"foreach": False}, "fused": {"fused": True}}.items():
        model = random_model(preset, seed=settings.seed).to(settings.device)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer = torch.optim.AdamW(model.parameters(), **options)
        contenders.append(Contender(name, partial(_update, optimizer, model)))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    results.compare(
        "AdamW",
        contenders,
        baseline="for-loop",
        work=parameters,
        unit="parameters",
        repeats=settings.choose(full=10, quick=2),
        check=_check_losses,
        ratio="train/adamw_{name}",
    )


def _update(optimizer: torch.optim.Optimizer, model: GamerForCausalLM) -> float:
    optimizer.step()
    return float(model.lm_head.weight.detach().abs().mean())


def zipf_lengths(num_users: int, longest: int, seed: int) -> np.ndarray:
    """Return history lengths drawn with a probability proportional to 1 / length, `[users]`."""
    weights = 1 / np.arange(1, longest + 1)
    return np.random.default_rng(seed).choice(longest, size=num_users, p=weights / weights.sum()) + 1


def prepared_lengths(folder: str, num_users: int, longest: int, seed: int) -> np.ndarray:
    """Return the history lengths of users drawn from a prepared log, `[users]`."""
    from genrec.data.prepared import PreparedDataset

    lengths = PreparedDataset.load(folder).histories.lengths.clip(max=longest)
    return np.random.default_rng(seed).choice(lengths, size=min(num_users, len(lengths)), replace=False)


def measure(settings: Settings, lengths: str | None = None) -> Results:
    """Compare the loss curves, then time steps, packing and the optimizer."""
    results = Results(settings)
    preset = settings.choose("gamer-base", "gamer-tiny")
    fields = settings.choose({}, {"num_hidden_layers": 1, "cross_level_layers": [0], "behavior_injection_layers": [0]})
    on_cuda = settings.device == "cuda"
    compare_curves(results, settings.choose(200, 10))
    for bf16 in settings.choose((False, True), (False,)):
        compare_steps(results, preset, fields, settings.choose(64 if on_cuda else 4, 2), bf16)
    num_users = settings.choose(4096 if on_cuda else 256, 24)
    draw = zipf_lengths if lengths is None else partial(prepared_lengths, lengths)
    compare_packing(results, draw(num_users, HISTORY_ITEMS + 1, settings.seed))
    compare_optimizers(results, preset)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--lengths", help="a prepared log, whose history lengths are taken")
    given, rest = parser.parse_known_args(sys.argv[1:])
    run("train", partial(measure, lengths=given.lengths), rest)
