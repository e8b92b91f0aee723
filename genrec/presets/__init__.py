"""Presets: model configurations, item-tokenizer settings and recipes that come with genrec.

They live at the top of the repository (`HOMES`). Links in this folder lead there, so a wheel carries the files as
package data and a checkout or an editable install sees the same paths.
"""

import difflib
from pathlib import Path

HOMES = {
    "hub_configs": "hub_configs",
    "tokenizers": "tokenizers",
    "recipes": "examples/recipes",
    "variants": "examples/variants",
}
OF_FILES = ("recipes", "variants")


def preset_folder(kind: str) -> Path:
    """Return the folder of one kind of preset: in the package, or in the checkout where links are not kept.

    Args:
        kind: A key of `HOMES`.

    Raises:
        FileNotFoundError: If neither place has it, which means a broken installation.
    """
    here = Path(__file__).parent
    places = [here / kind, here.parent.parent / HOMES[kind]]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"This installation lacks its {kind} presets (looked in {places}). Install genrec again.")


def preset_names(kind: str) -> list[str]:
    """Return the names that `preset_path` knows.

    Example:
        >>> "gamer-small" in preset_names("hub_configs")
        True
    """
    names = (path.stem if path.suffix == ".yaml" else path.name for path in preset_folder(kind).iterdir())
    return sorted(name for name in names if not name.startswith((".", "README")))


def variants_in(name: str) -> list[str]:
    """Return the variants that a model's name joins with `-`, the longest first; none if it is no such name.

    Example:
        >>> variants_in("gamer-plus-tiny-augmented-4"), variants_in("gamerr")
        (['gamer-plus-tiny', 'augmented-4'], [])
    """
    for variant in sorted(preset_names("variants"), key=len, reverse=True):
        if name == variant:
            return [variant]
        others = variants_in(name.removeprefix(f"{variant}-")) if name.startswith(f"{variant}-") else []
        if others:
            return [variant, *others]
    return []


def recipe_source(config: str) -> str | None:
    """Return what `genrec bench` takes to run a configuration; None if it is of no recipe that comes along.

    Example:
        >>> recipe_source("deskdrop_gamer-augmented-4"), recipe_source("market"), recipe_source("shop_gamer")
        ('deskdrop+gamer+augmented-4', 'market', None)
    """
    recipes, (base, _, model) = preset_names("recipes"), config.partition("_")
    if config in recipes:
        return config
    variants = variants_in(model)
    return "+".join([base, *variants]) if base in recipes and variants else None


def preset_path(kind: str, name: str) -> Path:
    """Return where a preset lies: a folder, or a file for recipes and variants.

    Args:
        kind: A key of `HOMES`.
        name: The preset's name, that of a file with or without `.yaml`.

    Raises:
        ValueError: If there is no such preset; the message names the nearest one.
    """
    file_name = f"{name.removesuffix('.yaml')}.yaml" if kind in OF_FILES else name
    path = preset_folder(kind) / file_name
    if name and path.exists():
        return path
    names = preset_names(kind)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"There is no preset {name!r} in {kind}.{meant} There are: {', '.join(names)}.")
