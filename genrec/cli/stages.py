"""The stages of a run: prepare, tokenize, train, evaluate, publish; each is kept while nothing it depends on changed.

Codes, rules and model are made anew for every split, from its training part alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genrec.cli.build import (
    build_embedder,
    build_item_tokenizer,
    check_settings,
    data_config,
    data_fingerprint,
    fit_embedder,
    read_data,
)
from genrec.cli.folder import RunFolder
from genrec.cli.kept import KeptStages, Stage
from genrec.cli.provenance import commit
from genrec.cli.recipe import RELEASED, Recipe
from genrec.data.numbering import WITHIN, numbering_of
from genrec.data.preparation import prepare
from genrec.data.prepared import PreparedDataset
from genrec.evaluation.benchmark_csv import read_benchmark_csv
from genrec.files import fingerprint, replace_folder, write_atomically
from genrec.item_tokenizers import ChunkedIDTokenizer

if TYPE_CHECKING:
    import numpy as np

    from genrec.data.histories import Histories
    from genrec.item_tokenizers import ItemTokenizer

STAGES = ("prepare", "tokenize", "train", "evaluate", "publish")


@dataclass(frozen=True)
class Run:
    """A recipe, its folder, and where its messages go."""

    recipe: Recipe
    say: Callable[[str], None]

    @property
    def folder(self) -> RunFolder:
        """Where everything lies."""
        return RunFolder(self.recipe.folder, self.recipe.evaluation.protocols[0])

    @property
    def kept(self) -> KeptStages:
        """The stamps of finished stages."""
        return KeptStages(self.folder.stamps, self.say)

    @cached_property
    def prepared(self) -> PreparedDataset:
        """The prepared data, loaded once."""
        return PreparedDataset.load(self.folder.prepared)

    def item_tokenizer(self, protocol: str) -> "ItemTokenizer":
        """The fitted item tokenizer of a split."""
        from genrec.item_tokenizers import AutoItemTokenizer

        return AutoItemTokenizer.from_pretrained(self.folder.item_tokenizer(protocol))

    @cached_property
    def prepare_stage(self) -> Stage:
        """What the prepared data depends on."""
        recipe = self.recipe
        rules = {name: value for name, value in recipe.data.items() if name not in ("interactions", "items")}
        parts = [rules, recipe.market, recipe.seed, data_fingerprint(recipe)]
        return Stage("prepare", parts, [self.folder.prepared])

    @cached_property
    def vector_files(self) -> list[str]:
        """Fingerprints of the files with vectors that the embedder reads."""
        return [fingerprint(file) for file in _vector_files(self.recipe.embedder or {}) if file.is_file()]

    def tokenize_stage(self, protocol: str) -> Stage:
        """What a split's codes depend on."""
        parts = [self.prepare_stage.key, protocol, self.recipe.embedder, self.recipe.item_tokenizer, self.recipe.seed]
        parts += self.vector_files
        return Stage(f"{protocol}/tokenize", parts, [self.folder.item_tokenizer(protocol)])

    def train_stage(self, protocol: str) -> Stage:
        """What a split's checkpoint depends on."""
        recipe = self.recipe
        before = self.prepare_stage if recipe.scores_items else self.tokenize_stage(protocol)
        parts = [before.key, recipe.model, recipe.training, recipe.seed]
        return Stage(f"{protocol}/train", parts, [self.folder.checkpoint(protocol)])

    def evaluate_stage(self) -> Stage:
        """What the report depends on."""
        settings = self.recipe.evaluation
        parts = [
            asdict(replace(settings, csv=None)),
            *(self.train_stage(protocol).key for protocol in settings.protocols),
        ]
        return Stage("evaluate", parts, [self.folder.report])


def _vector_files(embedder: Mapping[str, Any]) -> list[Path]:
    """Return the files of an embedder's section and of its parts'."""
    files = [Path(embedder["path"])] if "path" in embedder else []
    return files + [file for part in embedder.get("parts", []) for file in _vector_files(part)]


def run_stages(recipe: Recipe, *, say: Callable[[str], None], until: str = "publish") -> Run:
    """Run a recipe's stages in order, keeping what is finished and unchanged.

    Args:
        recipe: What to run.
        say: Gets one line for each thing that happens.
        until: The last stage to run.

    Raises:
        FileNotFoundError: If a file that the recipe names does not exist.
        ValueError: If the data, a setting or the file for the figures is refused; earlier outputs are as they were.
    """
    from genrec.cli.evaluating import evaluate_run, write_figures

    run = Run(recipe, say)
    last = STAGES.index(until)
    check_settings(recipe)
    check_figures_file(recipe)
    say(f"{recipe.name} -> {run.folder.root}")
    run.kept.run(run.prepare_stage, partial(prepare_data, run))
    _write_recipe(run)
    for protocol in recipe.evaluation.protocols if last >= STAGES.index("tokenize") else ():
        if not recipe.scores_items:
            run.kept.run(run.tokenize_stage(protocol), partial(tokenize_split, run, protocol))
        if last >= STAGES.index("train"):
            run.kept.run(run.train_stage(protocol), partial(_train, run, protocol))
    if last >= STAGES.index("evaluate"):
        run.kept.run(run.evaluate_stage(), partial(evaluate_run, run))
        if recipe.evaluation.csv is not None:
            write_figures(run, recipe.evaluation.csv, commit() or "")
            say(f"[evaluate] figures written to {recipe.evaluation.csv}")
    if last >= STAGES.index("publish") and recipe.hub is not None:
        publish(run)
    return run


def check_figures_file(recipe: Recipe) -> None:
    """Refuse a file of figures that cannot be added to, before any work.

    Raises:
        ValueError: If the file has other columns.
    """
    if recipe.evaluation.csv is not None:
        read_benchmark_csv(recipe.evaluation.csv)


def prepare_data(run: Run) -> dict[str, Any]:
    """Read, check, filter and split the log."""
    log, catalog = read_data(run.recipe)
    prepare(log, data_config(run.recipe), run.folder.prepared, catalog=catalog)
    train = run.prepared.split(run.folder.primary).train
    return {"items": len(run.prepared.catalog), "users": len(train), "training_interactions": len(train.items)}


def tokenize_split(run: Run, protocol: str) -> dict[str, Any]:
    """Embed the items and give each its code, from the split's training part alone."""
    prepared, recipe = run.prepared, run.recipe
    assert recipe.item_tokenizer is not None
    tokenizer = build_item_tokenizer(recipe.item_tokenizer, recipe.seed)
    tokenizer.fit(_item_inputs(run, protocol), prepared.catalog.item_ids, prepared.ladder)
    with replace_folder(run.folder.item_tokenizer(protocol)) as temporary:
        tokenizer.save_pretrained(temporary)
    report = tokenizer.report()
    if isinstance(tokenizer, ChunkedIDTokenizer) and not tokenizer.settings["shuffle"]:
        _warn_of_telling_numbers(run, prepared.split(protocol).train)
    return {
        "items": len(prepared.catalog),
        "codebook_sizes": "x".join(map(str, tokenizer.codebook_sizes)),
        "raw_collision_rate": report.raw_collision_rate,
        "collision_rate": report.collision_rate,
    }


def _warn_of_telling_numbers(run: Run, train: "Histories") -> None:
    """Say so if the items' numbers, of which chunked ids are made, tell which items go together."""
    numbering = numbering_of(train)
    if numbering.tells:
        run.say(
            f"  WARNING: {numbering.share:.0%} of users' next items stand within {WITHIN} places of the last one in "
            f"the catalog, {numbering.chance:.1%} would by chance. If items were numbered along the log, chunked ids "
            "give away test sessions: set `item_tokenizer.shuffle: true`."
        )


def _item_inputs(run: Run, protocol: str) -> "np.ndarray | None":
    """Return what the item tokenizer is fitted on: vectors, the codes that came with the log, or nothing."""
    recipe, prepared = run.recipe, run.prepared
    assert recipe.item_tokenizer is not None
    if recipe.item_tokenizer["name"] == RELEASED:
        codes = prepared.released_codes()
        if codes is None:
            raise ValueError(
                "`item_tokenizer.name` is 'released', but no codes came with the log (a folder in the released GAMER "
                "layout has them in `<name>.index.json`). Choose another item tokenizer, such as `rqkmeans`."
            )
        return codes
    if recipe.embedder is None:
        return None
    train = prepared.split(protocol).train
    vectors: np.ndarray = fit_embedder(build_embedder(recipe.embedder, recipe.seed), train).embed(prepared.catalog)
    return vectors


def _train(run: Run, protocol: str) -> dict[str, Any]:
    """Train a split; the report is of another checkpoint from then on."""
    from genrec.cli.training import train_split

    run.kept.forget(run.evaluate_stage().name)
    return train_split(run, protocol)


def publish(run: Run) -> None:
    """Push the primary checkpoint."""
    from genrec.hub import push_folder

    hub = run.recipe.hub
    assert hub is not None
    folder = run.folder.checkpoint(run.folder.primary)
    address = push_folder(folder, hub.repo_id, private=hub.private, portable=hub.portable, license=hub.license)
    run.say(f"[publish] {folder} -> {address}")


def _write_recipe(run: Run) -> None:
    """Write the recipe into the run folder as it runs now, which need not be as it ran when the data was prepared."""
    path, text = run.folder.recipe, recipe_text(run.recipe)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with write_atomically(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def recipe_text(recipe: Recipe) -> str:
    """Return a recipe as YAML that runs again to the same result."""
    sections = {name: value for name, value in asdict(recipe).items() if value is not None}
    if recipe.scores_items:
        del sections["evaluation"]["num_beams"]  # which a model without beams would ignore
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)
