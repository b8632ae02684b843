"""Which colour stands for whom, the same in every drawing and table of a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raygrow.report.style import COLOURS


def class_of(index: int) -> str:
    """Class of the style sheet for a place in an order; after the last colour the first comes again."""
    return f"c{index % COLOURS}"


@dataclass(frozen=True)
class Colours:
    """A colour a strategy; where all members have the same one, a colour a member.

    Attributes:
        members: name to strategy, in the order of the configuration.
    """

    members: Mapping[str, str]

    def of(self, member: str) -> str:
        """Class of a member's colour."""
        return class_of(self._names().index(self._name(member)))

    def legend(self) -> list[tuple[str, str]]:
        """Class and words of each colour."""
        entries = []
        for i, name in enumerate(self._names()):
            own = [member for member in self.members if self._name(member) == name]
            entries.append((class_of(i), name if own == [name] else f"{name} ({', '.join(own)})"))
        return entries

    def _name(self, member: str) -> str:
        return self.members[member] if len(set(self.members.values())) > 1 else member

    def _names(self) -> list[str]:
        return list(dict.fromkeys(map(self._name, self.members)))
