"""What a network is: pure data, no tensors."""

from raygrow.architecture.activations import ACTIVATIONS, ActivationFacts
from raygrow.architecture.candidates import Candidate
from raygrow.architecture.cost import backward_flops, edge_flops, forward_flops, params, training_flops, weight_shape
from raygrow.architecture.families import FAMILIES, AbstractFamily, family_named
from raygrow.architecture.moves import (
    GROWING_MOVES,
    MOVES,
    AbstractMove,
    AddBlock,
    AddEdge,
    AddNode,
    Hold,
    InsertLayer,
    Prune,
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
    Transposed,
)
from raygrow.architecture.seeds import digest_seed
from raygrow.architecture.spec import INPUT, NORMS, OUTPUT, Architecture, Edge, Node

__all__ = [
    "ACTIVATIONS", "FAMILIES", "GROWING_MOVES", "INPUT", "LINEAR", "MOVES", "NORMS", "OUTPUT", "READINGS", "AbstractFamily",
    "AbstractMove", "AbstractReading", "ActivationFacts", "AddBlock", "AddEdge", "AddNode", "Architecture", "Candidate",
    "Convolution", "Edge", "Grid", "Hold", "Identity", "InsertLayer", "Linear", "Node", "Palette", "Pooled", "Prune", "Site",
    "Transposed", "Widen",
    "backward_flops", "digest_seed", "edge_flops", "family_named", "forward_flops", "legal_moves", "move_from_json", "params",
    "training_flops", "weight_shape",
]  # fmt: skip
