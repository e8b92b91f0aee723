"""What the command line says when something goes wrong: one clear message, and a traceback only with `--debug`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

INPUT_ERROR = 2
INTERRUPTED = 130


@contextmanager
def friendly_errors(debug: bool, again: str = "") -> Iterator[None]:
    """Turn what the user can mend into a message and exit code 2, and Ctrl-C into advice and exit code 130.

    Args:
        debug: Let errors through with their traceback.
        again: The command that goes on after Ctrl-C; empty if there is nothing to go on from.
    """
    try:
        yield
    except KeyboardInterrupt:
        advice = f" Finished work is kept; go on with:\n  {again}" if again else ""
        print(f"\nStopped.{advice}", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except Exception as error:
        if debug or not is_user_error(error):
            raise
        print(f"genrec: {message_of(error)}", file=sys.stderr)
        raise SystemExit(INPUT_ERROR) from None


def is_user_error(error: Exception) -> bool:
    """Say whether an error is about the input, the files or the Hub, and not about genrec's own code."""
    if isinstance(error, (ValueError, OSError)):
        return True
    hub = sys.modules.get("huggingface_hub.errors")  # no Hub error without the module that defines it
    return hub is not None and isinstance(error, (hub.HfHubHTTPError, hub.StrictDataclassError))


def message_of(error: Exception) -> str:
    """Return the error's text; of a missing file also its path."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return str(error) or type(error).__name__
