"""`genrec run --check`: is the recipe right, is the data right, and what will it cost? Nothing is trained or kept."""

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genrec.cli.build import build_item_tokenizer, check_settings, data_config, read_data
from genrec.cli.recipe import RELEASED, Recipe
from genrec.cli.stages import Run, check_figures_file
from genrec.cli.training import build_trainer
from genrec.data.preparation import prepare

if TYPE_CHECKING:
    from genrec.data import PreparedDataset
    from genrec.item_tokenizers import ItemTokenizer
    from genrec.training import GenRecTrainer

TIMED_STEPS = 2
BYTES_PER_PARAMETER = 16  # weight, gradient and two moments of AdamW, four bytes each


@dataclass(frozen=True)
class Estimate:
    """What training one split costs on this machine.

    Args:
        parameters: Weights of the model.
        steps: Updates, if neither patience nor the time budget ends it before.
        seconds: All steps, timed on a few real batches; without validation.
        megabytes: Weights, optimizer, and what a batch keeps for its backward pass (10^6 bytes).
        max_seconds: The recipe's time budget, None without one.
    """

    parameters: int
    steps: int
    seconds: float
    megabytes: float
    max_seconds: float | None

    def __str__(self) -> str:
        budget = "" if self.max_seconds is None else f", stopped after {_duration(self.max_seconds)}"
        return (
            f"{self.parameters:,} parameters; {self.steps:,} steps in about {_duration(self.seconds)}{budget}; "
            f"about {self.megabytes:,.0f} MB beside the data"
        )


def check_run(recipe: Recipe, say: Callable[[str], None]) -> Estimate:
    """Check recipe and data, and estimate time and memory. Writes nothing into the run folder.

    Raises:
        FileNotFoundError: If a file that the recipe names does not exist.
        ValueError: If the recipe or the data is refused.
    """
    check_settings(recipe)
    check_figures_file(recipe)
    say(f"recipe: {recipe.name}, every setting known and of the right type")
    log, catalog = read_data(recipe)
    with tempfile.TemporaryDirectory() as temporary:
        run = Run(replace(recipe, output=temporary), say)
        prepare(log, data_config(recipe), run.folder.prepared, catalog=catalog)
        _say_data(run)
        protocol = run.folder.primary
        if not recipe.scores_items:
            tokenizer = stand_in_tokenizer(recipe, run.prepared)
            tokenizer.save_pretrained(run.folder.item_tokenizer(protocol))
            say(f"codes: {'x'.join(map(str, tokenizer.codebook_sizes))}, before repair")
        estimate = estimate_training(build_trainer(run, protocol, Path(temporary) / "training"))
    say(f"training, each split: {estimate}")
    return estimate


def stand_in_tokenizer(recipe: Recipe, prepared: "PreparedDataset") -> "ItemTokenizer":
    """Return a tokenizer with the recipe's code sizes; where codes would have to be learned, random ones stand in.

    Raises:
        ValueError: If a codebook is larger than the catalog, or codes are missing.
    """
    from genrec.item_tokenizers import GivenCodesTokenizer
    from genrec.item_tokenizers.sizes import choose_codebook_sizes

    assert recipe.item_tokenizer is not None
    item_ids, ladder = prepared.catalog.item_ids, prepared.ladder
    if recipe.item_tokenizer["name"] == RELEASED:
        return build_item_tokenizer(recipe.item_tokenizer, recipe.seed).fit(prepared.released_codes(), item_ids, ladder)
    if recipe.embedder is None:
        return build_item_tokenizer(recipe.item_tokenizer, recipe.seed).fit(None, item_ids, ladder)
    sizes = choose_codebook_sizes(recipe.item_tokenizer.get("codebook_sizes", "auto"), len(item_ids))
    codes = np.random.default_rng(recipe.seed).integers(sizes, size=(len(item_ids), len(sizes)))
    return GivenCodesTokenizer(sizes, on_collision="keep").fit(codes, item_ids, ladder)


def estimate_training(trainer: "GenRecTrainer") -> Estimate:
    """Time a few steps on real batches and count what they keep in memory; no weight is changed."""
    model, arguments = trainer.model, trainer.args
    batches = trainer.get_train_dataloader()
    steps, num_batches = _steps_and_batches(arguments, len(batches))
    model.train()
    batch = next(iter(batches))
    kept = bytes_for_backward(lambda: trainer.compute_loss(model, dict(batch)))
    seconds = min(_step_seconds(trainer, dict(batch)) for _ in range(TIMED_STEPS))
    parameters = model.num_parameters()
    return Estimate(
        parameters=parameters,
        steps=steps,
        seconds=num_batches * seconds,
        megabytes=(BYTES_PER_PARAMETER * parameters + kept) / 1e6,
        max_seconds=arguments.max_seconds,
    )


def _steps_and_batches(arguments: Any, batches_per_epoch: int) -> tuple[int, int]:
    """Return how many updates training makes, and from how many batches; an epoch's last update may have fewer."""
    per_step = arguments.gradient_accumulation_steps
    if arguments.max_steps > 0:
        return arguments.max_steps, arguments.max_steps * per_step
    steps = math.ceil(math.ceil(batches_per_epoch / per_step) * arguments.num_train_epochs)
    return steps, round(batches_per_epoch * arguments.num_train_epochs)


def bytes_for_backward(compute_loss: Callable[[], torch.Tensor]) -> int:
    """Return how many bytes a forward pass keeps for its backward pass, every storage counted once.

    Example:
        >>> weight = torch.ones(1000, requires_grad=True)
        >>> bytes_for_backward(lambda: (weight * weight).sum())
        4000
    """
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute_loss()
    return sum(storages.values())


def _step_seconds(trainer: "GenRecTrainer", batch: dict[str, Any]) -> float:
    started = time.perf_counter()
    trainer.compute_loss(trainer.model, batch).backward()
    trainer.model.zero_grad()
    return time.perf_counter() - started


def _say_data(run: Run) -> None:
    prepared = run.prepared
    run.say(
        f"data: {len(prepared.histories):,} users, {len(prepared.catalog):,} items, "
        f"{len(prepared.histories.items):,} interactions, {str(prepared.ladder).replace(',', ' < ')}"
    )
    for protocol in run.recipe.evaluation.protocols:
        split = prepared.split(protocol)
        run.say(
            f"{protocol}: {len(split.train):,} training, {len(split.validation):,} validation, "
            f"{len(split.test):,} test users"
        )


def _duration(seconds: float) -> str:
    """Say a duration.

    >>> _duration(42), _duration(600), _duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
