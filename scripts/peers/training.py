"""Our training step in PyTorch: same loss, clipping, AdamW, schedule and averages as `hep2jax.training.steps`."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from hep2jax.config import Config, OptimizerConfig
from hep2jax.metrics.pixels import VOID
from hep2jax.training import optimizers
from scripts.peers import networks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """Options of how PyTorch runs the step."""

    channels_last: bool = False
    """Store feature maps as NHWC."""
    compiled: bool = False
    """Use `torch.compile` for the forward and backward pass."""
    bfloat16: bool = False
    """Use autocast; parameters, statistics and losses stay in float32."""
    float64: bool = False
    """Compute everything in float64, as a reference."""


WAYS = {
    "eager": Way(),
    "channels_last": Way(channels_last=True),
    "compile": Way(compiled=True),
    "compile_channels_last": Way(compiled=True, channels_last=True),
    "bfloat16": Way(channels_last=True, bfloat16=True),
    "compile_bfloat16": Way(compiled=True, channels_last=True, bfloat16=True),
    "reference": Way(float64=True),
}


def normalise(image: Tensor, tone_curve: Tensor) -> Tensor:
    """uint8 [B, H, W] → [B, 1, H, W] in the precision of `tone_curve`, as in `hep2jax.training.steps.normalise`."""
    offset, gain, exponent, shift = tone_curve[:, :, None, None].unbind(1)
    value = ((image.to(tone_curve.dtype) - offset) * gain).clamp(-1.0, 4.0)
    bright = value > 0
    curved = torch.where(bright, torch.where(bright, value, 1.0) ** exponent, value)
    return (curved + shift)[:, None]


class Trainer:
    """A network, its optimizer and its averages on one device.

    It supports AdamW and cross-entropy with class weights and side heads, which the configurations of the networks use.
    Unlike ours, the running variances are unbiased; this does not affect training.
    """

    def __init__(self, model: nn.Module, config: Config, way: Way, device: str) -> None:
        self._model = model.to(device).train()
        if way.channels_last:
            self._model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if way.float64:
            self._model.double()
        self._config, self._way, self._device = config, way, torch.device(device)
        self._parameters = list(self._model.parameters())
        kernels = [value for value in self._parameters if value.ndim > 1]
        others = [value for value in self._parameters if value.ndim <= 1]
        groups = [{"params": kernels, "weight_decay": config.optimizer.weight_decay}, {"params": others}]
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0, fused=True)
        self._averaged = [*self._parameters, *(b for b in self._model.buffers() if b.is_floating_point())]
        self._averages = [value.detach().clone() for value in self._averaged]
        # Shapes never change. PyTorch assumes dynamic shapes from the second network of a process on, and with them
        # bilinear upsampling does not compile.
        self._forward, self._predict = self._loss, self._probabilities
        if way.compiled:
            self._forward = torch.compile(self._loss, dynamic=False)
            self._predict = torch.compile(self._probabilities, dynamic=False)
        self._step = 0

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        """Copy the batch to the device."""
        return {name: self._precise(torch.tensor(value, device=self._device)) for name, value in batch.items()}

    def _precise(self, value: Tensor) -> Tensor:
        return value.double() if self._way.float64 and value.is_floating_point() else value

    def gradients(self, batch: Mapping[str, Tensor], class_weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its gradients by name of the parameter."""
        loss = self._autocast_loss(batch, class_weights)
        loss.backward()
        pairs = self._model.named_parameters()
        return loss.detach(), {name: value.grad for name, value in pairs if value.grad is not None}

    def step(self, batch: Mapping[str, Tensor], class_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Execute one step; returns the loss and the global norm of the gradients before clipping."""
        options = self._config.optimizer
        loss = self._autocast_loss(batch, class_weights)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._parameters, options.clip_norm or math.inf)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(options, self._step, self._config.train.num_steps)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._step += 1
        decay = min(options.ema_decay, self._step / (self._step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._averaged, 1 - decay)  # as torch.optim.swa_utils does
        return loss.detach(), norm

    def predict(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Probabilities as in `hep2jax.training.steps.make_predict_step`; leaves the network in evaluation mode."""
        self._model.eval()
        with torch.inference_mode(), self._autocast():
            return self._predict(batch["image"], batch["tone_curve"])

    def wait(self) -> None:
        """Wait until the device has finished all queued work."""
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._way.bfloat16)

    def _autocast_loss(self, batch: Mapping[str, Tensor], class_weights: Tensor) -> Tensor:
        with self._autocast():
            return self._forward(batch["image"], batch["tone_curve"], batch["labels"], class_weights)

    def _probabilities(self, image: Tensor, tone_curve: Tensor) -> Tensor:
        return self._model(normalise(image, tone_curve))[0].softmax(1)

    def _loss(self, image: Tensor, tone_curve: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
        logits, sides = self._model(normalise(image, tone_curve))
        labels = labels.long()
        return sum(
            (self._config.loss.side_weight * coarse_cross_entropy(side, labels, class_weights) for side in sides),
            cross_entropy(logits, labels, class_weights),
        )


def cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Weighted mean over cells or pixels, without void pixels."""
    return functional.cross_entropy(networks.at_least_float32(logits), labels, class_weights, ignore_index=VOID)


def coarse_cross_entropy(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """`cross_entropy` of logits of rectangles of pixels, as if they were repeated to the size of the labels."""
    valid = (labels != VOID)[..., None]
    pixels = functional.one_hot(torch.where(labels == VOID, 0, labels), len(class_weights)) * valid
    shares = functional.avg_pool2d(pixels.movedim(-1, 1).float(), labels.shape[1] // logits.shape[2])
    masses = shares * class_weights[:, None, None]
    return -(masses * functional.log_softmax(networks.at_least_float32(logits), 1)).sum() / masses.sum()


def learning_rate(options: OptimizerConfig, step: int, num_steps: int) -> float:
    """The same as `hep2jax.training.optimizers.make_schedule` with the cosine schedule."""
    peak, warmup = options.learning_rate, optimizers.warmup_steps(options, num_steps)
    if step < warmup:
        return peak / warmup + (peak - peak / warmup) * step / warmup
    share = min((step - warmup) / max(num_steps - warmup, 1), 1.0)
    return peak * (0.99 * 0.5 * (1 + math.cos(math.pi * share)) + 0.01)
