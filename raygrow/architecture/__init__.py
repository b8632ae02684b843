"""What a network is: pure data, no tensors."""

from raygrow.architecture.activations import ACTIVATIONS, ActivationFacts
from raygrow.architecture.candidates import Candidate
from raygrow.architecture.cost import backward_flops, edge_flops, forward_flops, params, training_flops, weight_shape
from raygrow.architecture.moves import (
    GROWING_MOVES,
    MOVES,
    AbstractMove,
    AddEdge,
    AddNode,
    Hold,
    Site,
    Widen,
    legal_moves,
    move_from_json,
)
from raygrow.architecture.palette import Palette
from raygrow.architecture.readings import (
    LINEAR,
    READINGS,
    AbstractReading,
    Convolution,
    Grid,
    Identity,
    Linear,
    Pooled,
)
from raygrow.architecture.seeds import digest_seed
from raygrow.architecture.spec import INPUT, OUTPUT, Architecture, Edge, Node

__all__ = [
    "ACTIVATIONS", "GROWING_MOVES", "INPUT", "LINEAR", "MOVES", "OUTPUT", "READINGS", "AbstractMove", "AbstractReading",
    "ActivationFacts", "AddEdge", "AddNode", "Architecture", "Candidate", "Convolution", "Edge", "Grid", "Hold", "Identity",
    "Linear", "Node", "Palette", "Pooled", "Site", "Widen", "backward_flops", "digest_seed", "edge_flops",
    "forward_flops", "legal_moves", "move_from_json", "params", "training_flops", "weight_shape",
]  # fmt: skip
