"""Strict settings: a key that nothing reads, or a value of the wrong type, is an error that names its path."""

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

Schema = Mapping[str, Any]
"""What a section may hold: key -> type annotation."""

MAX_LISTED = 40
TYPE_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


def check_section(section: Any, schema: Schema, path: str) -> dict[str, Any]:
    """Return a section whose keys and types fit the schema.

    Args:
        section: What the YAML file holds there; None (an empty section) is an empty mapping.
        schema: The keys it may have, with their types.
        path: The section's place in the recipe, for messages; empty at the top.

    Raises:
        ValueError: If it is no mapping, has an unknown key, or a value has the wrong type.

    Example:
        >>> check_section({"dim": "1e2"}, {"dim": float}, "embedder")
        {'dim': 100.0}
    """
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise ValueError(f"`{path}` must be a mapping of settings, got {section!r}. Indent its keys below it.")
    for key in section:
        if key not in schema:
            raise ValueError(unknown_key(str(key), list(schema), path))
    return {key: check_value(value, schema[key], join(path, key)) for key, value in section.items()}


def check_value(value: Any, annotation: Any, path: str) -> Any:
    """Return the value as the annotation wants it; `5e-4`, which YAML reads as text, becomes a number.

    Raises:
        ValueError: If the value has another type.
    """
    if not fits(value, annotation):
        as_number = number_in(value)
        if as_number is not None and fits(as_number, annotation):
            return as_number
        raise ValueError(f"`{path}` must be {words_for(annotation)}, got {value!r} ({type(value).__name__}).")
    return float(value) if annotation is float else value


def fits(value: Any, annotation: Any) -> bool:
    """Say whether a YAML value has the annotated type; an annotation that YAML cannot express accepts anything."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in get_args(annotation))
    if origin is Literal:
        return value in get_args(annotation)
    if origin in (list, tuple, Sequence):
        return isinstance(value, list) and all(fits(element, get_args(annotation)[0]) for element in value)
    if origin in (dict, Mapping) or annotation in (dict, Mapping):
        return isinstance(value, Mapping)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in (str, bool, list, type(None), None):
        return isinstance(value, annotation or type(None))
    return True


def number_in(value: Any) -> float | None:
    """Return the number that a text spells, or None."""
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def words_for(annotation: Any) -> str:
    """Say a type in words.

    >>> words_for(int | None)
    'a whole number or null'
    """
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        options = dict.fromkeys(words_for(option) for option in get_args(annotation))
        return " or ".join(options)
    if origin is Literal:
        return "one of " + ", ".join(repr(option) for option in get_args(annotation))
    if origin in (list, tuple, Sequence):
        return f"a list ({words_for(get_args(annotation)[0])} each)"
    return TYPE_WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def unknown_key(key: str, valid: Sequence[str], path: str) -> str:
    """Return the message for a key that nothing reads, naming the nearest valid one."""
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    meant = f" Did you mean `{join(path, near[0])}`?" if near else ""
    where = f"`{path}` takes" if path else "A recipe has"
    listed = sorted(valid) if len(valid) <= MAX_LISTED else difflib.get_close_matches(key, valid, n=5, cutoff=0.0)
    others = f" and {len(valid) - len(listed)} more" if len(listed) < len(valid) else ""
    return f"Unknown key `{join(path, key)}`.{meant} {where}: {', '.join(listed)}{others}."


def join(path: str, key: str) -> str:
    """Return the path of a key inside a section.

    >>> join("", "seed"), join("data", "behaviors")
    ('seed', 'data.behaviors')
    """
    return f"{path}.{key}" if path else key
