"""Learning rates under a time budget: a schedule that ends when the time does."""

from collections.abc import Callable

from torch.optim.lr_scheduler import LambdaLR

Factor = Callable[[int], float]


def keep_to_budget(scheduler: LambdaLR, num_steps: int, share_of_time: Callable[[], float]) -> None:
    """Let a schedule follow whichever is further, the steps or the clock, so that a run cut short ends at its end.

    Warm-up and decay are written for `num_steps` steps. A run that its time budget stops after a tenth of them would
    never leave the high learning rates; now each rate is that of the same share of the time.

    Args:
        scheduler: The schedule, changed in place.
        num_steps: How many steps it was made for.
        share_of_time: Says how much of the budget is used up, 0 to 1.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> scheduler = LambdaLR(optimizer, lambda step: 1 - step / 100)
        >>> keep_to_budget(scheduler, 100, share_of_time=lambda: 0.75)
        >>> optimizer.step()
        >>> scheduler.step()
        >>> scheduler.get_last_lr()
        [0.25]
    """
    scheduler.lr_lambdas = [_hurried(factor, num_steps, share_of_time) for factor in scheduler.lr_lambdas]


def _hurried(factor: Factor, num_steps: int, share_of_time: Callable[[], float]) -> Factor:
    # A plain function: a scheduler's state keeps the attributes of other callables.
    return lambda step: factor(max(step, int(num_steps * min(share_of_time(), 1.0))))
