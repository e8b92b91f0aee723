"""`genrec recommend`: a checkpoint folder and histories in, a table of items out."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.cli.history_batches import HistoryBatches, open_history_batches
from genrec.cli.table_writer import OUTPUT_SUFFIXES, open_table_writer
from genrec.recommender import Recommendations, load_recommender, recommend_batches

if TYPE_CHECKING:
    from genrec.data import Histories

USERS_PRINTED = 20
USERS_PER_BATCH = 1024


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
    at: str | None = None,
) -> None:
    """Recommend for the histories of a table, or for users of the run that the checkpoint belongs to.

    A table of any length is read, answered and written in batches of users.

    Args:
        checkpoint: A folder that holds a recommender of any kind, or a repository on the Hub.
        histories: A table with `item_id`, `behavior` and, where known, `user_id`, `timestamp` and `session`; None
            takes the run's own prepared log, which needs `users`.
        users: Ids of the users to answer; none means all of the table.
        k: Items per user.
        behavior: What to predict; None means the target behavior.
        num_beams: Beam width of a generative model; at least `k` are used.
        exclude_seen: Whether to leave out items of the user's history.
        unknown_items: `"skip"` or `"error"`.
        output: Where to write the table; None prints the lists.
        say: Gets the lines that are printed.
        at: The moment that is asked about, seconds since 1970 or ISO text; what came then or later is left out. None
            means after everything known.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If neither histories nor users are given, a user is unknown, or the output's suffix or the time is.
    """
    if output is not None and output.suffix not in OUTPUT_SUFFIXES:
        raise ValueError(f"`--output` must end in one of {', '.join(OUTPUT_SUFFIXES)}, got {output}.")
    recommender: Any = load_recommender(checkpoint, num_beams=max(num_beams, k))
    settings = {"k": k, "behavior": behavior, "exclude_seen": exclude_seen, "unknown_items": unknown_items}
    if at is not None:
        settings["at"] = int(at) if at.lstrip("-").isdigit() else at
    has_integer_items = recommender.item_ids.dtype.kind in "iu"
    with _histories(checkpoint, histories, users, has_integer_items) as asked:
        lists = recommend_batches(recommender, asked.batches, num_users=asked.num_users, **settings)
        if output is None:
            _print(lists, asked.num_users, recommender, say)
        else:
            _write(lists, output, say)


def _write(batches: Iterator[Recommendations], output: Path, say: Callable[[str], None]) -> None:
    """Write all lists; the first batch that has any tells the columns' types."""
    num_users = num_unknown = num_later = 0
    waiting: list[Recommendations] = []
    for first in batches:
        waiting.append(first)
        if len(first.to_table()):
            break
    with open_table_writer(output, waiting[-1].to_table().schema) as write:
        for lists in chain(waiting, batches):
            num_users, num_unknown = num_users + len(lists), num_unknown + lists.num_unknown
            num_later += lists.num_later
            write(lists.to_table())
    _say_skipped(num_unknown, num_later, say)
    say(f"Wrote {num_users:,} users' lists to {output}.")


def _print(batches: Iterable[Recommendations], num_users: int, recommender: Any, say: Callable[[str], None]) -> None:
    """Print the lists of the first users."""
    lists = next(iter(batches))
    _say_skipped(lists.num_unknown, lists.num_later, say)
    titles = _titles(recommender)
    for user, recommendation in list(zip(lists.users.tolist(), lists))[:USERS_PRINTED]:
        say(f"user {user}")
        for rank, (item_id, score) in enumerate(zip(recommendation.item_ids, recommendation.scores), start=1):
            say(f"  {rank:>3}  {item_id}{titles.get(item_id, '')}  {score:.3f}")
    if num_users > USERS_PRINTED:
        say(f"... and {num_users - USERS_PRINTED:,} more users; write them all with `--output FILE`.")


def _say_skipped(num_unknown: int, num_later: int, say: Callable[[str], None]) -> None:
    if num_unknown:
        say(f"Skipped {num_unknown:,} interactions whose item the catalog lacks.")
    if num_later:
        say(f"Skipped {num_later:,} interactions that are not before the moment asked about.")


def _titles(recommender: Any) -> dict[Any, str]:
    """Return what to print behind an item's id: its title, where the catalog has one."""
    catalog = getattr(recommender, "catalog", None)
    if catalog is None:
        return {}
    named = zip(catalog.item_ids.tolist(), catalog.titles(), strict=True)
    return {item_id: f"  {title}" for item_id, title in named if title != str(item_id)}


@contextmanager
def _histories(
    checkpoint: str, path: Path | None, users: Sequence[str], has_integer_items: bool
) -> Iterator[HistoryBatches]:
    if path is not None:
        with open_history_batches(path, users, USERS_PER_BATCH, has_integer_items) as batches:
            yield batches
    elif users:
        yield HistoryBatches(len(users), iter([_users_of_run(Path(checkpoint), users)]))
    else:
        raise ValueError(
            "Nobody is asked about. Give a table of histories, or `--user ID` for a user of the run's data."
        )


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
