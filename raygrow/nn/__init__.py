"""The network of an architecture, surgery on it, and the optimiser state carried through."""

from raygrow.nn.begin import begun
from raygrow.nn.graft import Extension, all_finite, clone, graft
from raygrow.nn.heritage import Heritage
from raygrow.nn.network import Network, Trace, bias_name, weight_name
from raygrow.nn.optimizer import (
    ADAM_BETAS,
    ADAM_EPS,
    BORN,
    MOMENTS,
    NewMoments,
    NewRate,
    Optimizer,
    OptimizerKind,
    OptimizerPlan,
    State,
    carry_state,
)

__all__ = [
    "ADAM_BETAS", "ADAM_EPS", "BORN", "MOMENTS", "Extension", "Heritage", "Network", "NewMoments", "NewRate", "Optimizer",
    "OptimizerKind", "OptimizerPlan", "State", "Trace", "all_finite", "begun", "bias_name", "carry_state", "clone", "graft",
    "weight_name",
]  # fmt: skip
