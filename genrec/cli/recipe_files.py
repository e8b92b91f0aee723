"""Recipe files: found by path or by name, with variants put over them and single settings changed.

`deskdrop+sasrec` is the recipe `deskdrop` with the variant `sasrec` over it, from `examples/variants/`: what is
compared with what is written once, whatever the log. Variants are put over one after the other,
`deskdrop+qwen3+augmented-4`. A recipe or variant whose file says `extends: OTHER` stands on that one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from genrec.presets import preset_names, preset_path

SUFFIXES = (".yaml", ".yml")
EXTENDS = "extends"


class _Loader(yaml.SafeLoader):
    """YAML's safe types without dates: `2014-11-01` stays the text that `DataConfig` reads as a time.

    A key that stands twice in one mapping is refused; YAML would take the last one.
    """

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in lines:
                where = f"lines {lines[key]} and {line}" if lines[key] != line else f"line {line}"
                raise ValueError(f"`{key}` stands twice, in {where}. Keep one of them.")
            lines[key] = line
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_recipe(source: str | Path) -> dict[str, Any]:
    """Return what a recipe says, with its variants over it.

    Its name is the recipe's with the variants behind it: `<log>_<variant>`, from the second on after a `-`. The model
    is called in reports what follows the first `_`.

    Args:
        source: A file or a name, perhaps followed by `+` and the variants, files or names too.

    Raises:
        FileNotFoundError: If there is no such recipe or variant.
        ValueError: If a file is no YAML mapping or extends itself, or a recipe without a name gets variants.

    Example:
        >>> content = read_recipe("deskdrop+qwen3+augmented-4")
        >>> content["name"], content["evaluation"]["model_name"], content["training"]["augmentation_copies"]
        ('deskdrop_qwen3-augmented-4', 'qwen3-augmented-4', 4)
    """
    return _read_recipe(source, ())


def _read_recipe(source: str | Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return what `read_recipe` does; `above` are the files that extend this one."""
    base, *variants = [str(source)] if Path(source).is_file() else str(source).split("+")
    path = _find(base, "recipes")
    content = _read_yaml(path)
    extended = content.pop(EXTENDS, None)
    if extended is not None:
        content = overlaid(_read_recipe(str(extended), _and_below(above, path)), content)
    for variant in variants:
        name = checked_name(content.get("name"))
        content = overlaid(content, _read_variant(variant, ()))
        content["name"] = f"{name}{'-' if '_' in name else '_'}{Path(variant).stem}"
    if variants:
        content["evaluation"] = {**(content.get("evaluation") or {}), "model_name": content["name"].partition("_")[2]}
    return content


def checked_name(name: Any) -> str:
    """Return a recipe's name.

    Raises:
        ValueError: If there is none, or it is no text.
    """
    if name is None or name == "":
        raise ValueError("A recipe needs a `name`, which also names its run folder. Add a line like `name: my-shop`.")
    if not isinstance(name, str):
        raise ValueError(f"`name` must be text, but YAML reads {name!r} ({type(name).__name__}). Put it in quotes.")
    return name


def overlaid(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with changes over them, section by section and key by key; null takes a key away.

    A section that names another class (`name`, or another `preset`) starts anew: the old one's settings are not its.

    >>> overlaid({"model": {"preset": "gamer-tiny", "dropout": 0.1}}, {"model": {"dropout": 0.2}})
    {'model': {'preset': 'gamer-tiny', 'dropout': 0.2}}
    >>> overlaid({"model": {"preset": "gamer-tiny", "dropout": 0.1}}, {"model": {"preset": "sasrec"}})
    {'model': {'preset': 'sasrec'}}
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and old is None:
            result[key] = overlaid({}, value)  # a null in it has nothing to take away
        elif isinstance(value, Mapping) and isinstance(old, Mapping) and not _is_of_another_class(old, value):
            result[key] = overlaid(old, value)
        else:
            result[key] = value
    return result


def apply_override(content: dict[str, Any], override: str) -> None:
    """Change one setting in place, as `--set` says it.

    Args:
        content: A recipe's settings.
        override: `section.key=value`; the value is read as YAML, or is a text where it is none (`*.csv`).

    Raises:
        ValueError: If it has another form, or goes through a key that is no section.
    """
    path, equals, text = override.partition("=")
    keys = path.split(".")
    if not equals or not all(keys):
        raise ValueError(f"`--set` takes `section.key=value`, got {override!r}.")
    section = content
    for key in keys[:-1]:
        if section.get(key) is None:
            section[key] = {}
        section = section[key]
        if not isinstance(section, dict):
            raise ValueError(f"`--set {override}`: `{key}` is no section but {section!r}.")
    section[keys[-1]] = _value_of(text)


def _value_of(text: str) -> Any:
    """Return what an override's text says in YAML, or the text itself where it is none."""
    if text.startswith(("|", ">")):  # would begin a block of lines, and be empty
        return text
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError:
        return text


def _and_below(above: tuple[Path, ...], path: Path) -> tuple[Path, ...]:
    """Return the files down to this one.

    Raises:
        ValueError: If it is among them already.
    """
    if path.resolve() in above:
        raise ValueError(f"{path} extends itself. Let `{EXTENDS}` name another file, or remove it.")
    return (*above, path.resolve())


def _read_variant(source: str, above: tuple[Path, ...]) -> dict[str, Any]:
    """Return a variant's changes, those of the variant that it extends first; `above` are those that extend it."""
    path = _find(source, "variants")
    changes = _read_yaml(path)
    extended = changes.pop(EXTENDS, None)
    if extended is None:
        return changes
    # Not `overlaid`: what the extended one takes away must stay a null.
    return _joined(_read_variant(str(extended), _and_below(above, path)), changes)


def _joined(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Return two sets of changes as one."""
    both = {**first, **then}
    for key in first.keys() & then.keys():
        if isinstance(first[key], Mapping) and isinstance(then[key], Mapping):
            both[key] = then[key] if _is_of_another_class(first[key], then[key]) else _joined(first[key], then[key])
    return both


def _is_of_another_class(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return any(key in new and new[key] != old.get(key) for key in ("name", "preset"))


def _find(source: str, kind: str) -> Path:
    """Return the file of a recipe or variant.

    Raises:
        FileNotFoundError: If there is none.
    """
    path, word = Path(source), kind.removesuffix("s")
    if path.is_file():
        return path
    shipped = ", ".join(preset_names(kind))
    if path.suffix in SUFFIXES and len(path.parts) > 1:
        raise FileNotFoundError(f"There is no {word} {path}. {kind.capitalize()} that come along: {shipped}.")
    try:
        return preset_path(kind, source)
    except ValueError as error:
        raise FileNotFoundError(f"There is no file {path}, and no {word} of that name: {shipped}.") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping of settings, got {type(content).__name__}.")
    return content
