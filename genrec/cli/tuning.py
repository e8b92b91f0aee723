"""`genrec bench --tune`: a search over settings with Optuna, under one budget for every model.

The budget is a number of trials and a time of training for each. A trial trains with the tuning seed and is judged by
the best checkpoint's NDCG@10 on validation; test queries are never asked. Trials are kept in a journal, so that a
stopped search goes on; each trial's draw follows from its number and the trials before it alone.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from genrec.cli.bench import BenchSettings, load_bench_recipe, plan
from genrec.cli.bench_records import settings_of
from genrec.cli.build import check_settings, data_fingerprint
from genrec.cli.errors import message_of
from genrec.cli.provenance import commit
from genrec.cli.recipe import Recipe
from genrec.cli.stages import run_stages
from genrec.files import fingerprint, read_json, write_json
from genrec.hub import TRAINING_REPORT
from genrec.version import __version__

OBJECTIVE = "ndcg@10"
TUNED_FILE = "tuned.json"
NUM_RANDOM_TRIALS = 4
RANGE_KEYS = {"low", "high", "log"}

Space = dict[str, Any]
Train = Callable[[Recipe, Callable[[str], None]], float]


@dataclass(frozen=True)
class Budget:
    """What every model may spend on its search.

    Args:
        trials: How many settings are tried, failed ones included.
        minutes: The most training time of one trial.
        seed: The seed of all trials, and of the draws.
    """

    trials: int = 8
    minutes: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1 or self.minutes <= 0:
            raise ValueError(f"`--trials` and `--trial-minutes` must be positive, got {self.trials}, {self.minutes}.")

    def __str__(self) -> str:
        return f"{self.trials} trials of at most {self.minutes:g} minutes of training each, seed {self.seed}"


def load_space(path: str | Path) -> Space:
    """Read a search space: `section.key` -> a list of values, or a range `{low, high}`, with `log: true` if wanted.

    A range of whole numbers is of whole numbers.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not YAML, or an entry is neither a list nor a range.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} must map settings to their values, as in `training.learning_rate: [0.001, 0.003]`.")
    return {str(key): _checked(key, entry) for key, entry in content.items()}


def tune_all(
    recipes: Sequence[str],
    space: str | Path,
    settings: BenchSettings,
    budget: Budget,
    *,
    say: Callable[[str], None],
    train: Train | None = None,
) -> dict[str, dict[str, Any]]:
    """Search for the settings of several recipes, each with the same space and budget. Arguments as in `tune`.

    Returns:
        Recipe's name -> its chosen settings.
    """
    import_optuna()
    loaded = load_space(space)
    plan(recipes, settings)  # all recipes, data and run folders are checked before the first trial
    return dict(tune(source, loaded, settings, budget, say=say, train=train) for source in recipes)


def tune(
    source: str,
    space: Space,
    settings: BenchSettings,
    budget: Budget,
    *,
    say: Callable[[str], None],
    train: Train | None = None,
) -> tuple[str, dict[str, Any]]:
    """Search for the settings of one recipe, and write them to `<output>/<recipe>/tuned.json`.

    Args:
        source: The recipe.
        space: What may vary, as `load_space` returns it.
        settings: The bench's settings: the folder and the overrides.
        budget: The same for every model.
        say: Gets one line per trial.
        train: What trains a trial's recipe and returns its validation NDCG@10; None means the recipe's own stages.

    Returns:
        The recipe's name and its chosen settings, `section.key` -> value.

    Raises:
        ValueError: If Optuna is missing, the space names a setting that the recipe does not have, or no trial
            succeeded.
    """
    optuna = import_optuna()
    recipe = _trial_recipe(source, settings, budget, 0, {key: _first(entry) for key, entry in space.items()})
    check_settings(recipe)
    facts = _facts(load_bench_recipe(source, settings, budget.seed), space, budget)
    folder = Path(settings.output) / recipe.name
    say(f"[tune] {recipe.name}: {budget}; judged by validation {OBJECTIVE} of the best checkpoint")
    kept = _kept(folder / TUNED_FILE, facts)
    if kept is not None:
        say(f"[tune] {recipe.name}: kept, {kept}")
        return recipe.name, kept
    study = _open_study(optuna, folder / "tuning", facts)
    while _num_spent(study, optuna) < budget.trials:
        _run_trial(optuna, study, source, space, settings, budget, train or train_trial, say)
    chosen = _best(study, optuna, space, recipe.name)
    write_json(folder / TUNED_FILE, {**facts, **chosen, "trials": _history(study), "commit": commit() or __version__})
    say(f"[tune] {recipe.name}: best validation {OBJECTIVE} {chosen['value']:.4f} with {chosen['tuned']}")
    return recipe.name, chosen["tuned"]


def import_optuna() -> Any:
    """Return the package.

    Raises:
        ValueError: If it is missing, with the extra that brings it.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError("`--tune` needs Optuna, which is missing. `pip install 'genrec[tune]'` brings it.") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def train_trial(recipe: Recipe, say: Callable[[str], None]) -> float:
    """Train a trial's recipe, and return the best validation NDCG@10; only its training report is kept.

    Raises:
        ValueError: If training did not measure it.
    """
    run = run_stages(recipe, say=say, until="train")
    report = read_json(run.folder.checkpoint(run.folder.primary) / TRAINING_REPORT)
    values = [entry[f"eval_{OBJECTIVE}"] for entry in report["curve"] if f"eval_{OBJECTIVE}" in entry]
    if not values:
        raise ValueError(
            f"The training of {recipe.name!r} did not measure validation {OBJECTIVE}, by which trials are judged. "
            "Remove the setting that turns it off, such as `training.max_ranking_queries: 0`."
        )
    return float(max(values))


def _run_trial(
    optuna: Any,
    study: Any,
    source: str,
    space: Space,
    settings: BenchSettings,
    budget: Budget,
    train: Train,
    say: Callable[[str], None],
) -> None:
    """Draw settings, train with them, and tell the study what came of it."""
    study.sampler = optuna.samplers.TPESampler(
        seed=1000 * (budget.seed + 1) + len(study.trials), n_startup_trials=NUM_RANDOM_TRIALS
    )
    trial = study.ask()
    drawn = {key: _suggest(trial, key, entry) for key, entry in space.items()}
    title = f"[tune] trial {_num_spent(study, optuna) + 1}/{budget.trials}: {drawn}"
    try:
        recipe = _trial_recipe(source, settings, budget, trial.number, drawn)
        value = train(recipe, say)
    except Exception as error:  # settings that do not go together cost their trial, not the search
        trial.set_user_attr("error", message_of(error))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        say(f"{title}: FAILED, {message_of(error)}")
        return
    shutil.rmtree(recipe.folder, ignore_errors=True)
    study.tell(trial, value)
    say(f"{title}: validation {OBJECTIVE} {value:.4f}")


def _trial_recipe(
    source: str, settings: BenchSettings, budget: Budget, number: int, drawn: Mapping[str, Any]
) -> Recipe:
    """Return the recipe of one trial: the drawn settings, one split, and the budget's time."""
    recipe = load_bench_recipe(source, settings, budget.seed, drawn)
    limited = {**recipe.training, "max_seconds": 60 * budget.minutes}
    evaluation = replace(recipe.evaluation, protocols=recipe.evaluation.protocols[:1], csv=None)
    folder = Path(settings.output) / recipe.name / "tuning" / f"trial-{number}"
    return replace(recipe, training=limited, evaluation=evaluation, output=str(folder))


def _facts(recipe: Recipe, space: Space, budget: Budget) -> dict[str, Any]:
    """Return what a kept search must agree with, as JSON."""
    facts = {
        "config": recipe.name,
        "objective": f"validation {OBJECTIVE} of the best checkpoint",
        "budget": asdict(budget),
        "space": space,
        "data": data_fingerprint(recipe),
        "settings": settings_of(recipe),
    }
    loaded: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return loaded


def _kept(path: Path, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what an equal search chose before, if it ended."""
    if not path.is_file():
        return None
    found = read_json(path)
    agrees = all(found.get(name) == value for name, value in facts.items())
    tuned: dict[str, Any] = found["tuned"]
    return tuned if agrees else None


def _open_study(optuna: Any, folder: Path, facts: Mapping[str, Any]) -> Any:
    """Return the search's study; trials that a kill left unfinished are closed, and cost nothing of the budget."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
        study_name=fingerprint({**facts, "budget": facts["budget"]["minutes"], "seed": facts["budget"]["seed"]}),
        direction="maximize",
        load_if_exists=True,
    )
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _num_spent(study: Any, optuna: Any) -> int:
    """Return how many trials of the budget are gone: those with a value, and those whose settings failed."""
    state = optuna.trial.TrialState
    return sum(
        trial.state == state.COMPLETE or (trial.state == state.FAIL and "error" in trial.user_attrs)
        for trial in study.get_trials()
    )


def _best(study: Any, optuna: Any, space: Space, name: str) -> dict[str, Any]:
    finished = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if not finished:
        errors = [trial.user_attrs["error"] for trial in study.get_trials() if "error" in trial.user_attrs]
        raise ValueError(f"No trial of {name!r} succeeded; the last said: {errors[-1]} Change the space.")
    best = max(finished, key=lambda trial: trial.value)
    return {"tuned": {key: _value_of(best.params[key], entry) for key, entry in space.items()}, "value": best.value}


def _history(study: Any) -> list[dict[str, Any]]:
    return [
        {"values": dict(trial.params), "value": trial.value, "error": trial.user_attrs.get("error")}
        for trial in study.get_trials()
    ]


def _checked(key: object, entry: Any) -> Any:
    """Return a valid entry of a space.

    Raises:
        ValueError: If it is none.
    """
    if isinstance(entry, list) and entry:
        return entry
    is_range = isinstance(entry, dict) and {"low", "high"} <= entry.keys() <= RANGE_KEYS
    if is_range:
        low, high = (_number(entry[end]) for end in ("low", "high"))
        if low is not None and high is not None and low < high and (low > 0 or not entry.get("log")):
            return {"low": low, "high": high, "log": bool(entry.get("log"))}
    raise ValueError(
        f"`{key}` of the search space must be a list of values or a range {{low: 1e-4, high: 1e-2, log: true}} with "
        f"`low` below `high`, and above 0 where `log` is true; got {entry!r}."
    )


def _number(value: Any) -> int | float | None:
    """Return a number, also from `1e-4`, which YAML reads as text; None if it is none."""
    if isinstance(value, bool):
        return None
    try:
        return value if isinstance(value, (int, float)) else float(value)
    except (TypeError, ValueError):
        return None


def _first(entry: Any) -> Any:
    return entry[0] if isinstance(entry, list) else entry["low"]


def _suggest(trial: Any, key: str, entry: Any) -> Any:
    if isinstance(entry, list):  # by position: Optuna takes no lists or mappings as values
        return entry[trial.suggest_categorical(key, list(range(len(entry))))]
    is_whole = isinstance(entry["low"], int) and isinstance(entry["high"], int)
    suggest = trial.suggest_int if is_whole else trial.suggest_float
    return suggest(key, entry["low"], entry["high"], log=entry["log"])


def _value_of(drawn: Any, entry: Any) -> Any:
    return entry[drawn] if isinstance(entry, list) else drawn
