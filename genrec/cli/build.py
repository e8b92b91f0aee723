"""From a recipe's sections to the library's objects."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.cli.families import config_class, sample_settings, training_arguments_class
from genrec.cli.recipe import Recipe, embedder_class, item_tokenizer_class, signature_schema
from genrec.data import Catalog, DataConfig, Histories, InteractionLog, SyntheticMarket
from genrec.data.preparation import read_sources
from genrec.files import fingerprint
from genrec.presets import preset_path

if TYPE_CHECKING:
    from genrec.item_tokenizers import ItemTokenizer


def data_config(recipe: Recipe) -> DataConfig:
    """Return the recipe's `DataConfig`; a market brings its own columns and ladder.

    Raises:
        ValueError: If neither a market nor a log is named.
    """
    settings = {"seed": recipe.seed, **recipe.data}
    if recipe.market is not None:
        settings.setdefault("behaviors", str(market_of(recipe).behaviors))
    elif not settings.get("interactions"):
        raise ValueError(
            f"The recipe {recipe.name!r} names no log: `data.interactions` is not set. Add it to the recipe, or pass "
            "`--set data.interactions=PATH`" + (" and `--set data.items=PATH`." if "items" in settings else ".")
        )
    return DataConfig(**settings)


def market_of(recipe: Recipe) -> SyntheticMarket:
    """Return the recipe's synthetic market, seeded by the recipe unless it has a seed of its own."""
    assert recipe.market is not None
    return SyntheticMarket(**{"seed": recipe.seed, **recipe.market})


def data_fingerprint(recipe: Recipe) -> str:
    """Return a content hash of the files that the recipe reads; of a market, its settings are all there is.

    Raises:
        FileNotFoundError: If a file does not exist.
    """
    if recipe.market is not None:
        return fingerprint({"seed": recipe.seed, **recipe.market})
    config = data_config(recipe)
    logs = [config.interactions] if isinstance(config.interactions, str) else list(config.interactions or [])
    return fingerprint(*(file for path in [*logs, *filter(None, [config.items])] for file in _files(path)))


def _files(path: str) -> list[Path]:
    """Return the files that a path, a folder or a glob pattern stands for."""
    if Path(path).is_dir():
        return sorted(file for file in Path(path).rglob("*") if file.is_file())
    files = [Path(found) for found in sorted(glob.glob(path))]
    if not files:
        raise FileNotFoundError(f"There is no file {path}. Check `data.interactions` and `data.items` of the recipe.")
    return files


def read_data(recipe: Recipe) -> tuple[InteractionLog, Catalog | None]:
    """Return the recipe's log and, where it has one, its catalog."""
    if recipe.market is not None:
        market = market_of(recipe)
        return InteractionLog.read(market.log(), behaviors=str(market.behaviors)), market.catalog()
    return read_sources(data_config(recipe))


def check_settings(recipe: Recipe) -> None:
    """Build everything that can be built without data, so that a wrong value is refused before any work.

    Raises:
        ValueError: If a class refuses its settings.
    """
    data_config(recipe)
    if recipe.item_tokenizer is not None:
        build_item_tokenizer(recipe.item_tokenizer, recipe.seed)
    if recipe.embedder is not None:
        build_embedder(recipe.embedder, recipe.seed)
    build_model_config(recipe.model)
    build_training_arguments(recipe, recipe.folder / "training")


def build_embedder(settings: Mapping[str, Any], seed: int) -> Any:
    """Return the embedder that a section describes, not fitted yet."""
    arguments = dict(settings)
    embedder = embedder_class(arguments.pop("name"))
    if "parts" in arguments:
        arguments["parts"] = [build_embedder(part, seed) for part in arguments["parts"]]
    return embedder(**_seeded(embedder, arguments, seed))


def fit_embedder(embedder: Any, train: Histories) -> Any:
    """Fit what has something to fit, on the training histories alone, and return the embedder."""
    for part in getattr(embedder, "parts", ()):
        fit_embedder(part, train)
    if hasattr(embedder, "fit"):
        embedder.fit(train)
    return embedder


def build_item_tokenizer(settings: Mapping[str, Any], seed: int) -> "ItemTokenizer":
    """Return the unfitted item tokenizer that a section describes."""
    arguments = dict(settings)
    tokenizer = item_tokenizer_class(arguments.pop("name"))
    return tokenizer(**_seeded(tokenizer, arguments, seed))


def _seeded(target: Any, arguments: dict[str, Any], seed: int) -> dict[str, Any]:
    """Add the recipe's seed where a class takes one and the section gives none."""
    return {"seed": seed, **arguments} if "seed" in signature_schema(target) else arguments


def build_model_config(settings: Mapping[str, Any], vocabulary: Mapping[str, Any] | None = None) -> Any:
    """Return a preset's config with the recipe's fields and the vocabulary, if that is known yet.

    Args:
        settings: The recipe's section.
        vocabulary: The fields that follow from the item tokenizer or, for a scoring model, from the data.
    """
    fields = {key: value for key, value in settings.items() if key != "preset"}
    folder = preset_path("hub_configs", settings["preset"])
    return config_class(settings["preset"]).from_pretrained(folder, **fields, **(vocabulary or {}))


def build_training_arguments(recipe: Recipe, output_dir: Path) -> Any:
    """Return a preset's training arguments with the recipe's fields."""
    fields = {"output_dir": str(output_dir), "seed": recipe.seed, **recipe.training}
    for name in sample_settings(recipe.model["preset"]):
        fields.pop(name, None)
    preset, arguments = fields.pop("preset", None), training_arguments_class(recipe.model["preset"])
    return arguments.preset(preset, **fields) if preset else arguments(**fields)
