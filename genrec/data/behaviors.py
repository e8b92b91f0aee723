"""The behavior ladder: which kinds of behavior a log has, from the weakest to the strongest."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BehaviorLadder:
    """Behavior names in ladder order with a level each; behaviors of equal strength share a level.

    Args:
        names: Behavior names, weakest first, without commas, equals signs and spaces around them, by which a ladder is
            written. The position of a name is its behavior index everywhere in genrec.
        levels: One level per name, starting at 0, never falling, rising by at most 1. Exactly one behavior has
            the highest level: the target behavior.

    Raises:
        ValueError: If the ladder is empty, a name could not be written and read again, a behavior stands twice, the
            levels have a gap, or there is no single top.

    Example:
        >>> ladder = BehaviorLadder.parse("view,favorite=collect,buy")
        >>> ladder.names, ladder.levels, ladder.target
        (('view', 'favorite', 'collect', 'buy'), (0, 1, 1, 2), 'buy')
    """

    names: tuple[str, ...]
    levels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.levels):
            raise ValueError(
                f"A behavior ladder needs at least one behavior and one level each, got {len(self.names)} names and "
                f"{len(self.levels)} levels. Write it weakest first, for example `view,cart,buy`."
            )
        if "" in self.names:
            raise ValueError(f"A behavior name is empty in {self.names}. Remove the extra comma or equals sign.")
        for name in self.names:
            _check_writable(name)
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"The behavior {repeated[0]!r} stands twice in the ladder. Name every behavior once.")
        steps = [second - first for first, second in zip(self.levels, self.levels[1:], strict=False)]
        if self.levels[0] != 0 or any(step not in (0, 1) for step in steps):
            raise ValueError(f"Ladder levels must start at 0 and rise by 0 or 1, got {self.levels}.")
        if self.levels.count(self.levels[-1]) > 1:
            top = [name for name, level in zip(self.names, self.levels, strict=True) if level == self.levels[-1]]
            raise ValueError(
                f"Exactly one behavior must be the strongest, the target behavior, but {top} share the top level. "
                "Put a comma between them, the one to predict last."
            )

    @classmethod
    def parse(cls, ladder: "str | Sequence[str] | BehaviorLadder") -> "BehaviorLadder":
        """Read `view,favorite=collect,buy`, or a sequence whose elements may hold ties: `["view", "a=b", "buy"]`.

        Spaces around a name are left out of text, where they are notation, and refused in a sequence.
        """
        if isinstance(ladder, BehaviorLadder):
            return ladder
        if isinstance(ladder, str):
            rungs = [[name.strip() for name in rung.split("=")] for rung in ladder.split(",")]
        else:
            rungs = [str(rung).split("=") for rung in ladder]
        pairs = [(name, level) for level, rung in enumerate(rungs) for name in rung]
        return cls(tuple(name for name, _ in pairs), tuple(level for _, level in pairs))

    @property
    def target(self) -> str:
        """The strongest behavior."""
        return self.names[-1]

    def index(self, name: str) -> int:
        """Return the behavior index of a name.

        Raises:
            ValueError: If the ladder has no such behavior.
        """
        if name not in self.names:
            raise ValueError(f"Unknown behavior {name!r}. The ladder has: {', '.join(self.names)}.")
        return self.names.index(name)

    def __str__(self) -> str:
        rungs: list[list[str]] = [[] for _ in range(self.levels[-1] + 1)]
        for name, level in zip(self.names, self.levels, strict=True):
            rungs[level].append(name)
        return ",".join("=".join(rung) for rung in rungs)


def _check_writable(name: str) -> None:
    """Refuse a name that would be another, or several, once the ladder is written as text and read again."""
    if name == name.strip() and "," not in name and "=" not in name:
        return
    plain = " ".join(name.replace(",", " ").replace("=", " ").split())
    raise ValueError(
        f"The behavior name {name!r} holds a comma, an equals sign or a space around it, by which a ladder is written "
        f"(`view,favorite=collect,buy`). Give the ladder another name, and map the log's with `behavior_names`: "
        f"{{{name!r}: {plain or 'other'!r}}}."
    )
