"""The training stage: from prepared data and codes to a checkpoint folder, going on where a stopped run left off."""

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.cli.build import build_model_config, build_training_arguments
from genrec.cli.families import is_encoder_decoder
from genrec.cli.provenance import peak_megabytes, provenance
from genrec.files import read_json, replace_folder, write_json
from genrec.hub import TRAINING_REPORT, write_model_card

if TYPE_CHECKING:
    from genrec.cli.stages import Run
    from genrec.training import EncoderDecoderTrainer, GenRecTrainer, GenRecTrainingArguments
    from genrec.training.item_arguments import ItemTrainingArguments
    from genrec.training.item_trainer import ItemTrainer

STARTED = "started.json"


def train_split(run: "Run", protocol: str) -> dict[str, Any]:
    """Train on a split and write its checkpoint folder.

    Returns:
        What the stage's stamp keeps: parameters, best epoch, whether training was still improving.
    """
    folder = run.folder.training(protocol)
    resumes = begin_or_resume(folder, run.train_stage(protocol).key)
    trainer = build_trainer(run, protocol, folder)
    run.say(f"  {trainer.model.num_parameters():,} parameters, {len(trainer.train_dataset):,} training samples")
    if resumes:
        run.say("  going on from the last checkpoint of a run that was stopped")
    trainer.train(resume_from_checkpoint=True if resumes else None)
    report = {**trainer.report(), **_facts(run, protocol, trainer)}
    with replace_folder(run.folder.checkpoint(protocol)) as temporary:
        trained_recommender(run, trainer).save_pretrained(temporary)
        write_json(temporary / TRAINING_REPORT, report)
        write_model_card(temporary, license=_license(run))
    for part in folder.glob("checkpoint-*"):
        shutil.rmtree(part)  # optimizer states, which only an unfinished training needs
    if report.get("still_improving"):
        run.say("  validation was still improving when training ended: a longer run would do better")
    kept = ("best_epoch", "epoch", "stopped_by", "still_improving")
    return {"parameters": trainer.model.num_parameters(), **{name: report[name] for name in kept if name in report}}


def begin_or_resume(folder: Path, key: str) -> bool:
    """Say whether the folder holds a whole checkpoint of the very same training; clear it for a new one if not.

    Args:
        folder: The Trainer's output folder.
        key: The fingerprint of everything the training depends on.
    """
    from genrec.training.checkpoints import newest_checkpoint

    started = folder / STARTED
    if started.is_file() and read_json(started)["key"] == key:
        return newest_checkpoint(folder) is not None
    shutil.rmtree(folder, ignore_errors=True)
    write_json(started, {"key": key})
    return False


def trained_recommender(run: "Run", trainer: Any) -> Any:
    """Return what the model is saved as, with the catalog and, if it has any, the item codes."""
    from genrec.recommender import GenerativeRecommender, Seq2SeqRecommender, SequentialRecommender

    model, catalog, gap = trainer.model, run.prepared.catalog, run.prepared.config.gap_minutes
    kept: dict[str, Any] = {"catalog": catalog} if gap is None else {"catalog": catalog, "gap_minutes": gap}
    if run.recipe.scores_items:
        return SequentialRecommender(model, catalog.item_ids, run.prepared.ladder, **kept)
    if is_encoder_decoder(run.recipe.model["preset"]):
        return Seq2SeqRecommender(model, trainer.item_tokenizer, **kept)
    return GenerativeRecommender(model, trainer.item_tokenizer, **kept, context=trainer.context)


def build_trainer(run: "Run", protocol: str, folder: Path) -> "GenRecTrainer":
    """Return the trainer of a split, its model freshly made from the recipe's seed."""
    arguments = build_training_arguments(run.recipe, folder)
    if run.recipe.scores_items:
        return _item_trainer(run, protocol, arguments)
    if is_encoder_decoder(run.recipe.model["preset"]):
        return _encoder_decoder_trainer(run, protocol, arguments)
    return _code_trainer(run, protocol, arguments)


def _item_trainer(run: "Run", protocol: str, arguments: "ItemTrainingArguments") -> "ItemTrainer":
    """Return the trainer of a model that scores items."""
    from transformers import AutoModel, set_seed

    from genrec.training.item_trainer import ItemTrainer

    prepared = run.prepared
    vocabulary = {"num_items": len(prepared.catalog), "num_behaviors": len(prepared.ladder.names)}
    config, split = build_model_config(run.recipe.model, vocabulary), prepared.split(protocol)
    set_seed(arguments.seed)
    model, copies = AutoModel.from_config(config), run.recipe.training.get("augmentation_copies", 0)
    return ItemTrainer(model, arguments, split.train, split.validation, augmentation_copies=copies)


def _code_trainer(run: "Run", protocol: str, arguments: "GenRecTrainingArguments") -> "GenRecTrainer":
    """Return the trainer of a generative model."""
    from transformers import set_seed

    from genrec.data.candidates import query_context
    from genrec.models.gamer import GamerForCausalLM
    from genrec.training import GenRecTrainer

    recipe, prepared = run.recipe, run.prepared
    tokenizer = run.item_tokenizer(protocol)
    config = build_model_config(recipe.model, tokenizer.model_config_fields())
    length = arguments.max_history_items or config.max_history_items
    copies, level = recipe.training.get("augmentation_copies", 0), recipe.training.get("samples", "window")
    set_seed(arguments.seed)
    return GenRecTrainer(
        GamerForCausalLM(config),
        arguments,
        tokenizer,
        train_dataset=prepared.train_dataset(protocol, copies, recipe.seed, length, level),
        eval_dataset=prepared.validation_dataset(protocol, max_history_items=length),
        ranking_queries=prepared.split(protocol).validation,
        context=query_context(prepared.histories, config),
    )


def _encoder_decoder_trainer(
    run: "Run", protocol: str, arguments: "GenRecTrainingArguments"
) -> "EncoderDecoderTrainer":
    """Return the trainer of an encoder-decoder model: one sample per interaction, after the sessions before its own."""
    from transformers import AutoModelForSeq2SeqLM, set_seed

    from genrec.training import EncoderDecoderTrainer
    from genrec.training.item_samples import item_samples
    from genrec.training.samples import HistoryDataset

    tokenizer, split = run.item_tokenizer(protocol), run.prepared.split(protocol)
    config = build_model_config(run.recipe.model, tokenizer.model_config_fields())
    length = arguments.max_history_items or config.max_history_items
    copies = run.recipe.training.get("augmentation_copies", 0)
    set_seed(arguments.seed)
    return EncoderDecoderTrainer(
        AutoModelForSeq2SeqLM.from_config(config),
        arguments,
        tokenizer,
        item_samples(
            split.train, "interaction", length, augmentation_copies=copies, seed=run.recipe.seed, joins_sessions=True
        ),
        HistoryDataset.from_queries(split.validation),
        ranking_queries=split.validation,
    )


def _facts(run: "Run", protocol: str, trainer: "GenRecTrainer") -> dict[str, Any]:
    """Return what a reader of the checkpoint should know beside how training went."""
    recipe = run.recipe
    return {
        "name": recipe.name,
        "model_name": recipe.evaluation.model_name,
        "protocol": protocol,
        "seed": recipe.seed,
        "parameters": trainer.model.num_parameters(),
        "curve": training_curve(trainer.state.log_history),
        "data": data_facts(run, protocol),
        "settings": {
            "embedder": recipe.embedder,
            "item_tokenizer": recipe.item_tokenizer,
            "model": recipe.model,
            "training": recipe.training,
        },
        "peak_mb": peak_megabytes(),
        **provenance(),
    }


def training_curve(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per validation of a Trainer's log: epoch, step, the metrics, and the last training loss before.

    Metrics that are not finite, which JSON cannot hold, are left out.

    Example:
        >>> training_curve([{"loss": 2.5, "step": 9}, {"eval_loss": 2.0, "epoch": 1.0, "step": 10}])
        [{'epoch': 1.0, 'step': 10, 'loss': 2.5, 'eval_loss': 2.0}]
        >>> training_curve([{"loss": 2.5, "step": 9}, {"eval_loss": float("nan"), "epoch": 1.0, "step": 10}])
        [{'epoch': 1.0, 'step': 10, 'loss': 2.5}]
    """
    curve, loss = [], None
    for record in log:
        loss = record.get("loss", loss)
        if "eval_loss" in record:
            metrics = {name: value for name, value in record.items() if name in ("eval_loss", "eval_ndcg@10")}
            finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
            curve.append({"epoch": record["epoch"], "step": record["step"], "loss": loss, **finite})
    return curve


def data_facts(run: "Run", protocol: str) -> dict[str, Any]:
    """Return the data's counts, split and fingerprint for the report and the card."""
    prepared = run.prepared
    split = prepared.split(protocol)
    return {
        "items": len(prepared.catalog),
        "training users": len(split.train),
        "training interactions": len(split.train.items),
        "validation users": len(split.validation),
        "test users": len(split.test),
        "behaviors, weakest to strongest": str(prepared.ladder),
        "split": protocol,
        "source fingerprint": prepared.manifest.get("fingerprint", run.prepare_stage.key),
    }


def _license(run: "Run") -> str | None:
    return run.recipe.hub.license if run.recipe.hub else None
