"""Recommending for more users than fit in memory: batch after batch is read, answered and forgotten."""

from collections.abc import Iterable, Iterator
from typing import Any

from tqdm.auto import tqdm

from genrec.recommender.base import Recommendations


def recommend_batches(
    recommender: Any,
    batches: Iterable[Any],
    k: int = 10,
    behavior: str | None = None,
    *,
    num_users: int | None = None,
    **settings: Any,
) -> Iterator[Recommendations]:
    """Yield each batch's lists, with a progress bar over users where there is a terminal.

    No more than one batch and its lists are held at a time.

    Args:
        recommender: Any recommender.
        batches: Histories of some users each, in any form that `recommend` takes.
        k: Items per user.
        behavior: The behavior to predict; None means the target behavior.
        num_users: How many users there are in all, for the bar.
        **settings: Further arguments of `recommend`, such as `exclude_seen`; a mask cannot have a row per user.

    Yields:
        What `recommend` returns for each batch.

    Example:
        >>> from genrec.recommender import PopularityRecommender
        >>> from genrec.data.histories import as_histories
        >>> log = as_histories([[("a", "view"), ("b", "view"), ("b", "view")]], ["a", "b"], "view")
        >>> batches = ([[("a", "view")]] * size for size in (2, 1))
        >>> [len(lists) for lists in recommend_batches(PopularityRecommender().fit(log), batches, k=1)]
        [2, 1]
    """
    with tqdm(total=num_users, desc="users", unit="user", leave=False, disable=None) as progress:
        for batch in batches:
            lists = recommender.recommend(batch, k=k, behavior=behavior, **settings)
            progress.update(len(lists))
            yield lists
