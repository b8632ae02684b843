"""Families of networks, ready to use: one file each, and the one list of them. Pure descriptions, as everything here."""

from __future__ import annotations

from raygrow.architecture.families.base import AbstractFamily, Choices
from raygrow.architecture.families.dag import Dag
from raygrow.architecture.families.mixer import Mixer
from raygrow.architecture.families.mlp import Mlp
from raygrow.architecture.families.resnet import ResNet
from raygrow.architecture.families.vgg import Vgg
from raygrow.errors import ConfigError

__all__ = ["FAMILIES", "AbstractFamily", "Choices", "Dag", "Mixer", "Mlp", "ResNet", "Vgg", "family_named"]

FAMILIES: tuple[AbstractFamily, ...] = (Dag(), Mlp(), Vgg(), ResNet(), Mixer())


def family_named(name: str) -> AbstractFamily:
    """The family of this name.

    Raises:
        ConfigError: there is none.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise ConfigError(f"`network.family` must be one of {', '.join(f.name for f in FAMILIES)}, but got {name!r}")
