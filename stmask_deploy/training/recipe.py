"""A recipe: the network to train, and how to train it, as one JSON file."""
from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..config import CenternessOrder, ModelConfig
from ..errors import InputError
from .options import TrainingOptions

_SHIPPED = files(__package__) / "recipes"


@dataclass(frozen=True)
class Recipe:
    """`model` holds the fields of `ModelConfig` except the class names, which come from the dataset; it is empty in
    recipes for networks that are already trained.

    New networks use the centerness map in anchor order unless the recipe says otherwise.
    """

    model: Mapping[str, Any]
    options: TrainingOptions

    def config(self, class_names: tuple[str, ...]) -> ModelConfig:
        """The network configuration for a dataset.

        Raises:
            InputError: the recipe describes an invalid network, or none.
        """
        if not self.model:
            raise InputError("this recipe is for networks that are trained already; give one with --from CHECKPOINT")
        return ModelConfig.from_dict({"centerness_order": CenternessOrder.ANCHOR.value, **self.model,
                                      "class_names": class_names})


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(entry.name.removesuffix(".json") for entry in _SHIPPED.iterdir() if entry.name.endswith(".json"))


def read_recipe(name: str) -> Recipe:
    """Read a shipped recipe by name, or a file.

    Raises:
        InputError: it does not exist or is not a recipe.
    """
    try:
        if name in shipped_recipes():
            text = (_SHIPPED / f"{name}.json").read_text(encoding="utf-8")
        else:
            text = Path(name).read_text(encoding="utf-8")
        values = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {name} is neither shipped ({', '.join(shipped_recipes())}) nor a readable file"
                         ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"recipe {name} is not valid JSON ({error})") from error
    if not isinstance(values, dict) or set(values) - {"model", "training"} or not all(
            isinstance(part, dict) for part in values.values()):
        raise InputError(f"recipe {name}: expected an object with 'model' and 'training', both objects")
    if "class_names" in values.get("model", {}):
        raise InputError(f"recipe {name}: class_names come from the dataset; leave them out")
    return Recipe(values.get("model", {}), TrainingOptions.from_dict(values.get("training", {})))
