"""What all configurations of ours refuse: misspelt fields, also where transformers would set them after the checks."""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Any


class CheckedConfig:
    """Put before a `PreTrainedConfig` in a `strict` configuration's bases, makes a misspelt field an error.

    It lies in GAMER's folder because that one is published with its code; the other models import it from here.
    """

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Return a configuration of a dictionary's values, with keyword arguments in place of some of them.

        transformers sets keyword arguments after the checks; here they are part of what is checked, so that
        `GamerConfig.from_pretrained(preset, **tokenizer.model_config_fields())` is safe.

        Args:
            config_dict: Field name -> value, as in `config.json`.
            **kwargs: Fields to replace, and transformers' own options.

        Raises:
            ValueError: If a field is misspelt.
        """
        cls._refuse_misspelt(kwargs)
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        names = {field.name for field in fields} - {"dtype"}  # whose "auto" transformers resolves
        replaced = {name: kwargs.pop(name) for name in names & kwargs.keys()}
        return super().from_dict({**config_dict, **replaced}, **kwargs)  # type: ignore[misc]

    @classmethod
    def _refuse_misspelt(cls, given: Iterable[str]) -> None:
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in given:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
            if nearest and nearest[0] != name and not name.startswith("_") and not hasattr(cls, name):
                raise ValueError(f"{cls.__name__} has no field `{name}`. Did you mean `{nearest[0]}`?")

    def _require(self, is_met: bool, name: str, rule: str) -> None:
        if not is_met:
            raise ValueError(f"`{name}` must be {rule}, got {getattr(self, name)!r}.")
