"""Learn item codes on a real catalog, then add items to it: prints the tokenizer's report, time and what was kept.

    python benchmarks/quality/item_codes.py DATA_FOLDER [--preset rqvae-auto] [--embedder collaborative] [--seed 0]

`DATA_FOLDER` holds `interactions.parquet` and `items.parquet` (`item_id`; `title` for `--embedder tfidf`). The last 50
items are left out of the fit and added afterwards.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

import genrec
from genrec.data import Catalog, DataConfig, prepare
from genrec.data.preparation import read_sources

NUM_NEW = 50


def embed(folder: Path, behaviors: str, embedder: str, seed: int) -> tuple[Catalog, torch.Tensor]:
    """Return a folder's catalog and its vectors; collaborative ones from the training part of `last-session`."""
    if embedder == "tfidf":
        catalog = Catalog.read(folder / "items.parquet")
        return catalog, torch.from_numpy(genrec.TfidfEmbedder(seed=seed).embed(catalog))
    interactions, items = str(folder / "interactions.parquet"), str(folder / "items.parquet")
    config = DataConfig(interactions=interactions, items=items, behaviors=behaviors)
    log, catalog = read_sources(config)
    with tempfile.TemporaryDirectory() as temporary:
        prepared = prepare(log, config, Path(temporary) / "prepared", catalog)
        train = prepared.split("last-session").train
    vectors = genrec.CollaborativeEmbedder(seed=seed).fit(train).embed(prepared.catalog)
    return prepared.catalog, torch.from_numpy(vectors)


def main() -> None:
    """Fit, report, add, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--behaviors", default="view,like,bookmark,follow,comment")
    parser.add_argument("--preset", default="rqvae-auto")
    parser.add_argument("--embedder", choices=["tfidf", "collaborative"], default="collaborative")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    catalog, vectors = embed(arguments.folder, arguments.behaviors, arguments.embedder, arguments.seed)
    tokenizer = genrec.AutoItemTokenizer.from_preset(arguments.preset, seed=arguments.seed)
    started = time.perf_counter()
    tokenizer.fit(vectors[:-NUM_NEW], catalog.item_ids[:-NUM_NEW], arguments.behaviors)
    seconds = time.perf_counter() - started
    print(f"{arguments.preset} on {arguments.embedder} vectors, seed {arguments.seed}: {seconds:.1f} s")
    print(tokenizer.report())

    before = tokenizer.codes.clone()
    started = time.perf_counter()
    tokenizer.add_items(catalog.item_ids[-NUM_NEW:], vectors[-NUM_NEW:])
    num_changed = int((tokenizer.codes[: len(before)] != before).any(dim=1).sum())
    num_codes = len(tokenizer.codes.unique(dim=0))
    print(
        f"added {NUM_NEW} items in {time.perf_counter() - started:.2f} s: {num_changed} old codes changed, "
        f"{num_codes} different codes for {len(tokenizer)} items"
    )


if __name__ == "__main__":
    main()
