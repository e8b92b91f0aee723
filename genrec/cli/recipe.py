"""Recipes: one YAML file that says what a run does, checked against the very classes that it will configure.

A recipe's sections are `data` (or `market`, the built-in synthetic log), `embedder`, `item_tokenizer`, `model`,
`training`, `evaluation` and `hub`. Nothing is ignored: a key that no class takes is an error.
"""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from genrec.cli.families import (
    config_class,
    derived_fields,
    ignored_training_fields,
    is_encoder_decoder,
    recommends,
    sample_settings,
    scores_items,
    training_arguments_class,
)
from genrec.cli.recipe_files import apply_override, checked_name, read_recipe
from genrec.cli.strict import Schema, check_section, check_value, unknown_key
from genrec.data.samples import SAMPLE_LEVELS
from genrec.evaluation.tables import UPPER_BOUND
from genrec.files import read_json
from genrec.presets import preset_names, preset_path

EMBEDDERS = {
    "collaborative": "CollaborativeEmbedder",
    "concat": "ConcatEmbedder",
    "precomputed": "PrecomputedEmbedder",
    "text": "TextEmbedder",
    "tfidf": "TfidfEmbedder",
}
RELEASED = "released"
ITEM_TOKENIZERS = {
    "chunked": "ChunkedIDTokenizer",
    RELEASED: "GivenCodesTokenizer",
    "rqkmeans": "RQKMeansTokenizer",
    "rqvae": "RQVAETokenizer",
}
PROTOCOLS = ("last-session", "temporal")
BASELINES = ("popularity", "trending", "recency", "recency-undone", "co-occurrence")
TRAINING_FIELDS_OF_THE_RUN = ("output_dir",)


@dataclass(frozen=True)
class EvaluationSettings:
    """How a run is evaluated.

    Args:
        protocols: The splits to run, each with its own codes and model; the first is the primary one.
        num_beams: Beam width.
        k: Length of the ranked lists.
        batch_size: Users decoded at once.
        baselines: Rules to put beside the model: `popularity`, `trending` (over a window before the query; left out
            where the log has no times), `recency`, `recency-undone` (without what was done already, the highest lower
            level first) and `co-occurrence`. Each but `recency`, which has nothing to choose, is tuned on validation.
        num_bootstrap: Resamples of the users for the intervals.
        csv: A file that gets one row per figure appended, as in `benchmarks/quality/`.
        model_name: What the trained model is called in reports: `gamer`, or a variant's name such as `qwen3`; not
            what a rule beside it is called.

    Raises:
        ValueError: If a protocol or a rule is unknown, a number is below 1, or the model is called like a rule.
    """

    protocols: list[str] = field(default_factory=lambda: ["last-session"])
    num_beams: int = 20
    k: int = 10
    batch_size: int = 64
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
    num_bootstrap: int = 1000
    csv: str | None = None
    model_name: str = "gamer"

    def __post_init__(self) -> None:
        for name, chosen, known in (("protocols", self.protocols, PROTOCOLS), ("baselines", self.baselines, BASELINES)):
            wrong = [value for value in chosen if value not in known]
            if wrong:
                raise ValueError(
                    f"`evaluation.{name}` has no {wrong[0]!r}. There are: {', '.join(known)}; list the ones you want."
                )
        if not self.protocols:
            raise ValueError("`evaluation.protocols` is empty. Name at least one of: " + ", ".join(PROTOCOLS) + ".")
        for name in ("num_beams", "k", "batch_size", "num_bootstrap"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"`evaluation.{name}` must be at least 1, got {getattr(self, name)}. Leave it out for the default, "
                    f"{getattr(type(self), name)}."
                )
        if self.model_name in (*BASELINES, UPPER_BOUND):
            raise ValueError(
                f"`evaluation.model_name` must not be {self.model_name!r}, which is what a report calls the rule or "
                "bound of that name. Choose another name."
            )


@dataclass(frozen=True)
class HubSettings:
    """Where a finished run is published.

    Args:
        repo_id: `owner/name` on the Hub.
        private: Whether a new repository is private.
        portable: Also upload the model's code, so that it loads with `trust_remote_code=True` where genrec is missing.
        license: The licence named in the model card.
    """

    repo_id: str
    private: bool = True
    portable: bool = False
    license: str | None = None


@dataclass(frozen=True)
class Recipe:
    """A checked recipe; the sections hold keyword arguments of the classes they configure.

    Args:
        name: What the run is called.
        seed: Seeds the split, the codes and the training unless a section sets its own.
        output: The run folder.
        data: Fields of `DataConfig`.
        market: Arguments of `SyntheticMarket`, instead of a log; None to read `data.interactions`.
        embedder: `name` and that embedder's arguments; None for a tokenizer that reads no vectors.
        item_tokenizer: `name` or `preset`, and that tokenizer's arguments; None for a model that scores items.
        model: `preset` and fields of the model's config.
        training: `preset` and fields of `GenRecTrainingArguments` (`ItemTrainingArguments` for a model that scores
            items), plus `augmentation_copies` and, where they lack it, `samples`.
        evaluation: How the run is evaluated.
        hub: Where it is published, if anywhere.
    """

    name: str
    seed: int = 0
    output: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    market: dict[str, Any] | None = None
    embedder: dict[str, Any] | None = None
    item_tokenizer: dict[str, Any] | None = field(default_factory=lambda: {"name": "rqkmeans"})
    model: dict[str, Any] = field(default_factory=lambda: {"preset": "gamer-small"})
    training: dict[str, Any] = field(default_factory=dict)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    hub: HubSettings | None = None

    @property
    def folder(self) -> Path:
        """The run folder; `runs/<name>` unless the recipe says otherwise."""
        return Path(self.output or f"runs/{self.name}")

    @property
    def scores_items(self) -> bool:
        """Whether the model scores items, so that there are no codes."""
        return scores_items(self.model["preset"])


def load_recipe(source: str | Path, overrides: Sequence[str] = (), **replacements: Any) -> Recipe:
    """Read and check a recipe.

    Args:
        source: A YAML file, or the name of a recipe that comes with genrec (`demo`, `deskdrop`), perhaps with variants
            put over it (`deskdrop+sasrec`; see `genrec.cli.recipe_files`).
        overrides: `section.key=value` each; the value is read as YAML.
        **replacements: Top-level settings that replace the recipe's (`seed`, `output`); None keeps the recipe's.

    Raises:
        FileNotFoundError: If there is no such file, recipe or variant.
        ValueError: If the file is not YAML, a key is unknown, or a value has the wrong type.
    """
    content = read_recipe(source)
    for override in overrides:
        apply_override(content, override)
    content.update({key: value for key, value in replacements.items() if value is not None})
    return check_recipe(content)


def check_recipe(content: Mapping[str, Any]) -> Recipe:
    """Return the recipe that a mapping describes.

    Raises:
        ValueError: As `load_recipe`.
    """
    top = check_section(content, {entry.name: Any for entry in fields(Recipe)}, "")
    checked: dict[str, Any] = {"name": checked_name(top.get("name"))}
    for key, annotation in (("seed", int), ("output", str)):
        if key in top:
            checked[key] = check_value(top[key], annotation, key)
    for key, check in SECTION_CHECKS.items():
        if top.get(key) is not None:
            checked[key] = check(top[key])
    recipe = Recipe(**checked)
    if top.get("training") is not None:
        recipe = replace(recipe, training=_check_training(top["training"], recipe.model["preset"]))
    if recipe.scores_items:
        return _settle_scoring(recipe, top)
    if is_encoder_decoder(recipe.model["preset"]):
        recipe = _settle_encoder_decoder(recipe, top)
    return _settle_embedder(recipe)


def _settle_scoring(recipe: Recipe, content: Mapping[str, Any]) -> Recipe:
    """Refuse what a model that scores items would ignore, and call it by its preset's name in reports."""
    preset, evaluation = recipe.model["preset"], content.get("evaluation") or {}
    ignored = [name for name in ("item_tokenizer", "embedder") if content.get(name) is not None]
    ignored += ["evaluation.num_beams"] if "num_beams" in evaluation else []
    if ignored:
        raise ValueError(f"`{ignored[0]}` would be ignored: the model {preset!r} scores items, not codes. Remove it.")
    name = evaluation.get("model_name", preset)
    return replace(recipe, item_tokenizer=None, evaluation=replace(recipe.evaluation, model_name=name))


def _settle_encoder_decoder(recipe: Recipe, content: Mapping[str, Any]) -> Recipe:
    """Refuse what is for GAMER alone, and call the model by its preset's name in reports."""
    if recipe.hub is not None and recipe.hub.portable:
        raise ValueError("`hub.portable` is for GAMER, whose code travels alone. Remove it.")
    name = (content.get("evaluation") or {}).get("model_name", recipe.model["preset"])
    return replace(recipe, evaluation=replace(recipe.evaluation, model_name=name))


def _settle_embedder(recipe: Recipe) -> Recipe:
    """Fill in the default embedder where vectors are needed, and refuse one where none are read."""
    assert recipe.item_tokenizer is not None
    name = recipe.item_tokenizer["name"]
    if item_tokenizer_class(name).needs_embeddings:
        return replace(recipe, embedder=recipe.embedder or {"name": "collaborative"})
    if recipe.embedder is not None:
        raise ValueError(
            f"`embedder` would be ignored: the item tokenizer {name!r} reads no vectors. Remove the section."
        )
    return recipe


def signature_schema(target: Any, without: Sequence[str] = ()) -> Schema:
    """Return the keyword arguments of a class with their types: what its section of a recipe may hold."""
    hints = _type_hints(target)
    parameters = inspect.signature(target).parameters.values()
    named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return {name: hints.get(name, Any) for name in named if name not in without}


def _type_hints(target: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields or of a constructor's arguments, those that can be resolved."""
    if not hasattr(target, "__dataclass_fields__"):
        return get_type_hints(target.__init__)
    hints: dict[str, Any] = {}
    for owner in reversed(target.__mro__):
        try:
            hints |= get_type_hints(owner)
        except NameError:  # transformers names torch in quotes in a module that does not import it
            hints |= inspect.get_annotations(owner)
    return {name: hint for name, hint in hints.items() if not isinstance(hint, str)}


def embedder_class(name: str) -> Any:
    """Return an embedder class by its recipe name."""
    return getattr(importlib.import_module("genrec.embedders"), EMBEDDERS[name])


def item_tokenizer_class(name: str) -> Any:
    """Return an item-tokenizer class by its recipe name."""
    return getattr(importlib.import_module("genrec.item_tokenizers"), ITEM_TOKENIZERS[name])


def _check_data(section: Any) -> dict[str, Any]:
    from genrec.data import DataConfig

    return check_section(section, signature_schema(DataConfig), "data")


def _check_market(section: Any) -> dict[str, Any]:
    from genrec.data import SyntheticMarket

    return check_section(section, signature_schema(SyntheticMarket), "market")


def _check_embedder(section: Any, path: str = "embedder") -> dict[str, Any]:
    name = _choice(section, "name", list(EMBEDDERS), path)
    schema = dict(signature_schema(embedder_class(name))) | {"name": str}
    checked = check_section(section, schema, path)
    if name == "concat":
        checked["parts"] = [
            _check_embedder(part, f"{path}.parts[{row}]") for row, part in enumerate(checked.get("parts", []))
        ]
    return checked


def _check_item_tokenizer(section: Any) -> dict[str, Any]:
    path = "item_tokenizer"
    if isinstance(section, Mapping) and "preset" in section:
        preset = _choice(section, "preset", preset_names("tokenizers"), path)
        stored = read_json(preset_path("tokenizers", preset) / "item_tokenizer.json")
        name = next(name for name, title in ITEM_TOKENIZERS.items() if title == stored["tokenizer_class"])
        own = {key: value for key, value in section.items() if key != "preset"}
        section = {"name": name, **stored["settings"], **own}
    name = _choice(section, "name", list(ITEM_TOKENIZERS), path)
    return check_section(section, dict(signature_schema(item_tokenizer_class(name))) | {"name": str}, path)


def _check_model(section: Any) -> dict[str, Any]:
    preset = _choice(section, "preset", preset_names("hub_configs"), "model")
    if not recommends(preset):
        raise ValueError(
            f"`model.preset` is {preset!r}, which ranks given candidates and recommends nothing by itself. Choose "
            "another preset, or train it with `RankingTrainer` (docs/guide-ranking.md)."
        )
    for key in derived_fields(preset):
        if key in section:
            source, remedy = ("data", "")
            if not scores_items(preset):
                source, remedy = "item tokenizer", ", and set `item_tokenizer` instead"
            raise ValueError(f"`model.{key}` follows from the {source}. Remove it{remedy}.")
    schema = signature_schema(config_class(preset), without=derived_fields(preset))
    return check_section(section, dict(schema) | {"preset": str}, "model")


def _check_training(section: Any, preset: str) -> dict[str, Any]:
    """Check the training section of a recipe whose model is of this preset."""
    without = (*TRAINING_FIELDS_OF_THE_RUN, *ignored_training_fields(preset))
    schema = dict(signature_schema(training_arguments_class(preset), without=without))
    own = sample_settings(preset)
    checked = check_section(section, {**schema, "preset": str, **own}, "training")
    if "samples" in own and "samples" in checked:
        _choice(checked, "samples", list(SAMPLE_LEVELS), "training")
    return checked


def _check_evaluation(section: Any) -> EvaluationSettings:
    return EvaluationSettings(**check_section(section, signature_schema(EvaluationSettings), "evaluation"))


def _check_hub(section: Any) -> HubSettings:
    checked = check_section(section, signature_schema(HubSettings), "hub")
    if "repo_id" not in checked:
        raise ValueError("`hub` needs a `repo_id` like `owner/name`. Add it, or remove the section to publish nothing.")
    return HubSettings(**checked)


SECTION_CHECKS = {
    "data": _check_data,
    "market": _check_market,
    "embedder": _check_embedder,
    "item_tokenizer": _check_item_tokenizer,
    "model": _check_model,
    "evaluation": _check_evaluation,
    "hub": _check_hub,
}


def _choice(section: Any, key: str, known: list[str], path: str) -> str:
    """Return `section[key]`, which must be one of the known names."""
    if not isinstance(section, Mapping) or not isinstance(section.get(key), str):
        raise ValueError(f"`{path}` needs a `{key}`. There are: {', '.join(known)}.")
    if section[key] not in known:
        raise ValueError(unknown_key(section[key], known, "").replace("Unknown key", f"Unknown `{path}.{key}`"))
    return section[key]
