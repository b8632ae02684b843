"""Selection rules: one file each, and the one list of them."""

from raygrow.population.selection.auction import Auction
from raygrow.population.selection.base import AbstractSelection, Bid, Grants, ranked
from raygrow.population.selection.independent import Independent

SELECTIONS: tuple[type[AbstractSelection], ...] = (Auction, Independent)

__all__ = ["SELECTIONS", "AbstractSelection", "Auction", "Bid", "Grants", "Independent", "ranked"]
