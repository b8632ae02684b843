"""How new weights begin: one file each, and the one list of them."""

from raygrow.growth.initializers.base import AbstractInitializer
from raygrow.growth.initializers.firefly import Firefly
from raygrow.growth.initializers.gradmax import GradMax
from raygrow.growth.initializers.net2net import Net2Net
from raygrow.growth.initializers.north import North
from raygrow.growth.initializers.orthogonal import Orthogonal
from raygrow.growth.initializers.random import RandomInitializer
from raygrow.growth.initializers.senn import Senn
from raygrow.growth.initializers.splitting import Splitting
from raygrow.growth.initializers.tiny import Tiny
from raygrow.growth.initializers.variance_transfer import VarianceTransfer

INITIALIZERS: tuple[type[AbstractInitializer], ...] = (
    Tiny,
    GradMax,
    RandomInitializer,
    Orthogonal,
    North,
    Net2Net,
    Firefly,
    Splitting,
    VarianceTransfer,
    Senn,
)

__all__ = [
    "INITIALIZERS", "AbstractInitializer", "Firefly", "GradMax", "Net2Net", "North", "Orthogonal", "RandomInitializer",
    "Senn", "Splitting", "Tiny", "VarianceTransfer",
]  # fmt: skip
