"""A group of commands with a default: `genrec bench RECIPE` means `genrec bench run RECIPE`."""

import typer
from typer.core import TyperGroup

DEFAULT = "run"
HELP = ("-h", "--help")


class DefaultCommandGroup(TyperGroup):
    """A group whose first word may be left out when it is `run`.

    A recipe that is called like one of the other commands needs the word.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Put `run` before arguments that do not begin with a command of this group."""
        if args and args[0] not in (*self.commands, *HELP):
            args = [DEFAULT, *args]
        return list(super().parse_args(ctx, args))
