"""What a network is: pure data, no tensors."""

from raygrow.architecture.activations import ACTIVATIONS, ActivationFacts
from raygrow.architecture.candidates import Candidate
from raygrow.architecture.cost import backward_flops, forward_flops, params, training_flops
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
from raygrow.architecture.seeds import digest_seed
from raygrow.architecture.spec import INPUT, OUTPUT, Architecture, Edge, Node

__all__ = [
    "ACTIVATIONS", "GROWING_MOVES", "INPUT", "MOVES", "OUTPUT", "AbstractMove", "ActivationFacts", "AddEdge", "AddNode",
    "Architecture", "Candidate", "Edge", "Hold", "Node", "Site", "Widen", "backward_flops", "digest_seed",
    "forward_flops", "legal_moves", "move_from_json", "params", "training_flops",
]  # fmt: skip
