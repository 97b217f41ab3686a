"""What follows the gradients in an optimiser step: clipping, Adam, and on a GPU one recording of both."""

import torch
from torch import Tensor, nn

from pipeline_lib import device
from pipeline_lib.config.models import Training

FIRST = 3  # steps that are run as they stand before one is recorded


class Update:
    """Adam with decoupled weight decay on a network's weights, whose gradients are clipped before."""

    def __init__(self, network: nn.Module, config: Training) -> None:
        self.weights, self.config = list(network.parameters()), config
        where = self.weights[0].device
        self.on_gpu = where.type == "cuda"
        self.rate = torch.tensor(config.lr, device=where) if self.on_gpu else config.lr
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=self.rate,
            betas=config.adam_betas,
            weight_decay=config.weight_decay,
            fused=True,
            capturable=self.on_gpu,
        )
        self.graph: torch.cuda.CUDAGraph | None = None
        self.norm: Tensor | None = None
        self.gradients: list[int] = []  # addresses that the recording reads
        self.same, self.able = 0, self.on_gpu and device.has_kernels()

    def step(self, rate: float) -> Tensor:
        """One step at a learning rate; the norm of the gradients before clipping."""
        if not self.on_gpu:
            self.optimizer.param_groups[0]["lr"] = rate
            return self._step()
        assert isinstance(self.rate, Tensor)
        self.rate.fill_(rate)
        if self._recorded() and self.graph and self.norm is not None:
            self.graph.replay()
            return self.norm.clone()
        return self._step()

    def _step(self) -> Tensor:
        norm = torch.nn.utils.clip_grad_norm_(self.weights, self.config.grad_clip or float("inf"))
        self.optimizer.step()
        return norm

    def _recorded(self) -> bool:
        """Whether there is a recording that reads the gradients where they are; made once they have stayed there."""
        now = [0 if weight.grad is None else weight.grad.data_ptr() for weight in self.weights]
        if now != self.gradients:
            self.gradients, self.graph, self.same = now, None, 0
        self.same += 1
        if self.graph is None and self.able and self.same > FIRST:
            made = device.recorded(self._step, "the update")
            self.able = made is not None
            if made:
                self.graph, self.norm = made
        return self.graph is not None

    def state_dict(self) -> dict[str, object]:
        """For the checkpoint."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        """From a checkpoint, which may have been written on another device: settings and memory layout are our own."""
        self.optimizer.load_state_dict(state)
        for group in self.optimizer.param_groups:
            group["lr"], group["capturable"] = self.rate, self.on_gpu
        for weight, moments in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                moments[name] = torch.empty_like(weight).copy_(moments[name])
