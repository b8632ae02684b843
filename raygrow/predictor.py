"""The network a user takes away: raw features in, answers in the user's own units out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from raygrow.data import Preprocessing
from raygrow.nn import Network


class Predictor(nn.Module):
    """A grown network with its preprocessing inside.

    Attributes:
        labels: classification: the original label of every output column; else empty.
        targets: regression: the name of every output column; else empty.
        features: names of the columns of the input, in order.
    """

    mean: Tensor
    scale: Tensor
    target_mean: Tensor
    target_scale: Tensor

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.features = preprocessing.features
        self.labels = preprocessing.labels
        self.targets = preprocessing.targets
        self.bound = preprocessing.bound

        def constant(values: tuple[float, ...]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)

        self.register_buffer("mean", constant(preprocessing.mean))
        self.register_buffer("scale", constant(preprocessing.scale))
        self.register_buffer("target_mean", constant(preprocessing.target_mean))
        self.register_buffer("target_scale", constant(preprocessing.target_scale))

    def forward(self, x: Tensor) -> Tensor:
        """Raw features [n, features], float64 or float32, to class probabilities [n, classes] or targets [n, targets].

        Features are standardised in float64 as in training; a feature that did not vary in train (scale 0) reads 0.
        """
        x = x.to(torch.float64)
        varies = self.scale > 0
        x = torch.where(varies, (x - self.mean) / torch.where(varies, self.scale, 1.0), 0.0)
        x = x.clamp(-self.bound, self.bound)
        output: Tensor = self.network(x.to(next(self.network.parameters()).dtype))
        if self.labels:
            return output.softmax(-1)
        return output.to(torch.float64) * self.target_scale + self.target_mean
