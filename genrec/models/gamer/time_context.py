"""When something happens: hour, weekday and time away, as embeddings added to behavior tokens.

None of them names a day, so all are known for days that training never saw. An item carries the time its session began,
never its own: the question "what next?" is asked at the beginning of a session.
"""

import torch
from torch import Tensor, nn

from .configuration_gamer import GamerConfig
from .token_layout import TokenLayout

SECONDS_PER_MINUTE, SECONDS_PER_HOUR, SECONDS_PER_DAY = 60, 3600, 86_400
HOURS, WEEKDAYS = 24, 7
FIRST_WEEKDAY = 3  # second 0 was on a Thursday
NUM_GAPS = 22  # powers of two of a minute, up to two years
FIRST_SESSION = NUM_GAPS


class TimeContext(nn.Module):
    """Embeds the start of each item's session.

    Args:
        config: The model's configuration; sessions count if it is session-wise, else every item is its own.
    """

    def __init__(self, config: GamerConfig) -> None:
        super().__init__()
        self.hour_embedding = nn.Embedding(HOURS, config.hidden_size)
        self.weekday_embedding = nn.Embedding(WEEKDAYS, config.hidden_size)
        self.gap_embedding = nn.Embedding(NUM_GAPS + 1, config.hidden_size)

    def forward(self, layout: TokenLayout, event_times: Tensor) -> Tensor:
        """Return what to add to each token, zero at codes and padding.

        Args:
            layout: What the tokens are.
            event_times: Each token's time in seconds `[batch, tokens]`.

        Returns:
            `[batch, tokens, width]`.
        """
        starts, gaps = session_starts(layout, event_times)
        hours = starts % SECONDS_PER_DAY // SECONDS_PER_HOUR
        weekdays = (starts // SECONDS_PER_DAY + FIRST_WEEKDAY) % WEEKDAYS
        embedded = self.hour_embedding(hours) + self.weekday_embedding(weekdays) + self.gap_embedding(gaps)
        return torch.where(((layout.places == 0) & layout.real)[..., None], embedded, 0)


def session_starts(layout: TokenLayout, event_times: Tensor) -> tuple[Tensor, Tensor]:
    """Return when each token's session began and how long the user had been away, both `[batch, tokens]`.

    Returns:
        Seconds; and the time since the event before the session, as the power of two of minutes, `FIRST_SESSION` where
        there is none.
    """
    order = layout.items if layout.sessions is None else layout.sessions
    columns = torch.arange(order.shape[1], device=order.device)
    is_start = torch.nn.functional.pad(order[:, 1:] != order[:, :-1], (1, 0), value=True)
    is_start = is_start | torch.nn.functional.pad(layout.real[:, 1:] & ~layout.real[:, :-1], (1, 0))
    first = torch.where(is_start, columns, 0).cummax(dim=1).values
    starts = event_times.gather(1, first)
    before = (first - 1).clamp(min=0)
    away = (starts - event_times.gather(1, before)).clamp(min=0)
    gaps = (away.float() / SECONDS_PER_MINUTE + 1).log2().long().clamp(max=NUM_GAPS - 1)
    has_before = (first > 0) & layout.real.gather(1, before)
    return starts, torch.where(has_before, gaps, FIRST_SESSION)
