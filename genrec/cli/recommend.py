"""`genrec recommend`: a checkpoint folder and histories in, a table of items out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.cli.tables import OUTPUT_SUFFIXES, read_table, write_table
from genrec.recommender import GenerativeRecommender

if TYPE_CHECKING:
    import pyarrow as pa

    from genrec.data import Histories

USERS_PRINTED = 20


def recommend_from(
    checkpoint: str,
    histories: Path | None,
    *,
    users: Sequence[str],
    k: int,
    behavior: str | None,
    num_beams: int,
    exclude_seen: bool,
    unknown_items: str,
    output: Path | None,
    say: Callable[[str], None],
) -> None:
    """Recommend for the histories of a table, or for users of the run that the checkpoint belongs to.

    Args:
        checkpoint: A checkpoint folder or a repository on the Hub.
        histories: A table with `item_id`, `behavior` and, where known, `user_id`, `timestamp` and `session`; None
            takes the run's own prepared log, which needs `users`.
        users: Ids of the users to answer; none means all of the table.
        k: Items per user.
        behavior: What to predict; None means the target behavior.
        num_beams: Beam width; at least `k` are used.
        exclude_seen: Whether to leave out items of the user's history.
        unknown_items: `"skip"` or `"error"`.
        output: Where to write the table; None prints the lists.
        say: Gets the lines that are printed.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If neither histories nor users are given, a user is unknown, or the output's suffix is.
    """
    if output is not None and output.suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"`--output` must end in one of {', '.join(OUTPUT_SUFFIXES)}, got {output}.")
    recommender = GenerativeRecommender.from_pretrained(checkpoint, num_beams=max(num_beams, k))
    asked = _histories(checkpoint, histories, users)
    lists = recommender.recommend(asked, k=k, behavior=behavior, exclude_seen=exclude_seen, unknown_items=unknown_items)
    if lists.num_unknown:
        say(f"Skipped {lists.num_unknown:,} interactions whose item the catalog lacks.")
    if output is not None:
        write_table(lists.to_table(), output)
        say(f"Wrote {len(lists):,} users' lists to {output}.")
        return
    titles = _titles(recommender)
    for user, recommendation in list(zip(lists.users.tolist(), lists))[:USERS_PRINTED]:
        say(f"user {user}")
        for rank, (item_id, score) in enumerate(zip(recommendation.item_ids, recommendation.scores), start=1):
            say(f"  {rank:>3}  {item_id}{titles.get(item_id, '')}  {score:.3f}")
    if len(lists) > USERS_PRINTED:
        say(f"... and {len(lists) - USERS_PRINTED:,} more users; write them all with `--output FILE`.")


def _titles(recommender: GenerativeRecommender) -> dict[Any, str]:
    """Return what to print behind an item's id: its title, where the catalog has one."""
    catalog = recommender.catalog
    if catalog is None:
        return {}
    named = zip(catalog.item_ids.tolist(), catalog.titles(), strict=True)
    return {item_id: f"  {title}" for item_id, title in named if title != str(item_id)}


def _histories(checkpoint: str, path: Path | None, users: Sequence[str]) -> Any:
    if path is not None:
        return _users_of_table(read_table(path), users)
    if not users:
        raise ValueError(
            "Nobody is asked about. Give a table of histories, or `--user ID` for a user of the run's data."
        )
    return _users_of_run(Path(checkpoint), users)


def _users_of_table(table: "pa.Table", users: Sequence[str]) -> "pa.Table":
    if not users:
        return table
    if "user_id" not in table.column_names:
        raise ValueError("`--user` needs a column `user_id` in the histories. Add it, or leave `--user` out.")
    ids = [str(user) for user in table["user_id"].to_pylist()]
    missing = [user for user in users if user not in ids]
    if missing:
        raise ValueError(f"The histories have no user {missing[0]!r}. Check the id.")
    return table.filter([user in users for user in ids])


def _users_of_run(checkpoint: Path, users: Sequence[str]) -> "Histories":
    """Return the whole histories of some users of the run that the checkpoint belongs to."""
    from genrec.data import PreparedDataset

    folder = next(
        (place / "prepared" for place in checkpoint.resolve().parents[:2] if (place / "prepared").is_dir()), None
    )
    if folder is None:
        raise ValueError(f"`--user` alone needs the run's data, but {checkpoint} has no `prepared` folder beside it.")
    histories = PreparedDataset.load(folder).histories
    rows = {str(user): row for row, user in enumerate(histories.users.tolist())}
    missing = [user for user in users if user not in rows]
    if missing:
        raise ValueError(f"The run's data has no user {missing[0]!r}. Check the id.")
    return histories.select([rows[user] for user in users])
