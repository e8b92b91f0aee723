"""The `genrec` command."""
