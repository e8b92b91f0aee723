"""From a table of behaviors to recommendations in Python, with no recipe and no command line.

The table comes from the built-in market, so nothing is downloaded; put your own in its place: a CSV or parquet file, or
a pandas, polars or Arrow table with `user_id`, `item_id`, `behavior` and `timestamp`.

    python examples/quickstart.py --folder runs/quickstart
"""

import argparse
from pathlib import Path

from genrec import (
    CollaborativeEmbedder,
    GamerConfig,
    GamerForCausalLM,
    GenerativeRecommender,
    GenRecTrainer,
    GenRecTrainingArguments,
    InteractionLog,
    RQKMeansTokenizer,
    SyntheticMarket,
    evaluate,
    prepare,
)
from genrec.data import DataConfig
from genrec.presets import preset_path


def main(folder: Path, num_users: int, num_items: int, num_train_epochs: float) -> None:
    """Prepare, tokenize, train, evaluate, save, recommend."""
    market = SyntheticMarket(num_users=num_users, num_items=num_items)
    log = InteractionLog.read(market.log(), behaviors="view,cart,buy")
    prepared = prepare(log, DataConfig(gap_minutes=30), folder / "prepared", catalog=market.catalog())
    split = prepared.split("last-session")

    # Items become codes, learned from the training part alone.
    vectors = CollaborativeEmbedder().fit(split.train).embed(prepared.catalog)
    tokenizer = RQKMeansTokenizer(codebook_sizes="auto").fit(vectors, prepared.catalog.item_ids, prepared.ladder)
    print(tokenizer.report())

    config = GamerConfig.from_pretrained(preset_path("hub_configs", "gamer-tiny"), **tokenizer.model_config_fields())
    trainer = GenRecTrainer(
        GamerForCausalLM(config),
        GenRecTrainingArguments.preset("small", output_dir=folder / "training", num_train_epochs=num_train_epochs),
        tokenizer,
        train_dataset=prepared.train_dataset("last-session"),
        eval_dataset=prepared.validation_dataset("last-session"),
        ranking_queries=split.validation,
    )
    trainer.train()

    recommender = GenerativeRecommender(trainer.model, tokenizer, catalog=prepared.catalog)
    report = evaluate(recommender, split.test, train=split.train)
    print(report.table("ndcg@10"))
    recommender.save_pretrained(folder / "checkpoint")

    first, second = prepared.catalog.item_ids[:2].tolist()
    lists = recommender.recommend([[(first, "view"), (second, "cart")]], k=5, behavior="buy")
    print(lists[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--num-users", type=int, default=1000)
    parser.add_argument("--num-items", type=int, default=300)
    parser.add_argument("--num-train-epochs", type=float, default=10)
    main(**vars(parser.parse_args()))
