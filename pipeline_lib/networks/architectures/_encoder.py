"""The modules of the classifier of noisy images of Dhariwal and Nichol (2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline_lib.exits import BadConfig
from pipeline_lib.networks.architectures._adm import Contracting, group_norm, heads_of
from pipeline_lib.networks.architectures.encoder import Options
from pipeline_lib.networks.layers import activate


class AttentionPool(nn.Module):
    """(B,C,S,S) -> (B, classes): what the mean of all pixels finds when it attends to them and to itself, projected."""

    def __init__(self, side: int, channels: int, heads: int, classes: int) -> None:
        super().__init__()
        self.heads = heads
        self.place = nn.Parameter(torch.randn(side**2 + 1, channels) / channels**0.5)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat((tokens.mean(1, keepdim=True), tokens), 1) + self.place
        # (B,N,3C) -> three of (B, heads, N, C / heads)
        q, k, v = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q[:, :, :1], k, v).flatten(1))


class Encoder(Contracting):
    """x (B,C,H,W), t (B,), no labels -> logits (B, classes)."""

    def __init__(self, options: Options, resolution: int, image_channels: int, classes: int) -> None:
        """Raises BadConfig where resolution or attention heads do not fit, or there are no classes to tell apart."""
        if classes < 1:
            raise BadConfig("a classifier of noisy images (network encoder) needs labels, which the dataset has not.")
        super().__init__(options, resolution, image_channels, classes)
        side = resolution >> (len(self.levels) - 1)
        self.norm = group_norm(self.channels)
        self.pool = AttentionPool(side, self.channels, heads_of(self.channels, options), classes)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        x, _ = self.contract(x, self.embed(t, labels))
        return self.pool(activate(self.norm, x)[0])
