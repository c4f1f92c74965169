"""What a step costs, and how fast it is beside what the device could do.

Both counts are of the batch's layout, so padding counts as work; its share is given beside them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import jax

from mel.encoder.config import EncoderConfig
from mel.encoder.transformer import Kept, parameter_shapes
from mel.shards.batches import Layout
from mel.types import MelError

BYTES = {"float32": 4, "bfloat16": 2}

# Dense bfloat16 (float16 where a card has no bfloat16) and dense float32 (TF32 where it has that) in TFLOP/s,
# and GB/s of memory, as in NVIDIA's data sheets of these cards; RTX 4090: the Ada architecture whitepaper.
PEAKS = (
    (r"\bH200 NVL\b", 836, 418, 4800),
    (r"\bH200\b", 989, 495, 4800),
    (r"\bH100 NVL\b", 836, 418, 3900),
    (r"\bH100 PCIe\b", 756, 378, 2000),
    (r"\bH100\b", 989, 495, 3350),
    (r"\bA100 80GB PCIe\b", 312, 156, 1935),
    (r"\bA100\b.*80GB", 312, 156, 2039),
    (r"\bA100\b", 312, 156, 1555),
    (r"\bL4\b", 121, 60, 300),
    (r"\bA10G\b", 70, 35, 600),
    (r"\bT4\b", 65, 8.1, 320),
    (r"\bRTX 4090$", 165, 82.6, 1008),
    (r"\bV100-SXM", 125, 15.7, 900),
    (r"\bV100-PCIE", 112, 14, 900),
)


@dataclasses.dataclass(frozen=True)
class Peak:
    """The most that one device can do: 10^12 floating-point operations and 10^9 bytes a second; 0 where unknown."""

    tflops: float = 0.0
    gbytes_per_s: float = 0.0

    def __post_init__(self):
        if self.tflops < 0 or self.gbytes_per_s < 0:
            raise MelError(f"A device of {self.tflops} TFLOP/s and {self.gbytes_per_s} GB/s cannot be: give no minus.")


def device_peak(device_kind: str, dtype: str, tflops: float = 0.0, gbytes_per_s: float = 0.0) -> Peak:
    """The peak of one device.

    Args:
      device_kind: as JAX names it ("NVIDIA H100 80GB HBM3").
      dtype: of the matrix products, "float32" or "bfloat16".
      tflops: used instead of the published value where above 0.
      gbytes_per_s: likewise.
    """
    for pattern, half, single, gbytes in PEAKS:
        if re.search(pattern, device_kind, re.IGNORECASE):
            return Peak(tflops or (half if dtype == "bfloat16" else single), gbytes_per_s or gbytes)
    return Peak(tflops, gbytes_per_s)


def step_flops(config: EncoderConfig, layout: Layout, mentions: int) -> float:
    """Floating-point operations of one step that any implementation has to do.

    The matrix products of the forward pass, two operations a multiplication and addition, times three:
    the backward pass has twice as many. Nothing that is computed again counts (Chowdhery et al.,
    "PaLM: Scaling language modeling with pathways", 2022, appendix B; Kaplan et al., "Scaling laws for
    neural language models", 2020, section 2.1). Of the last layer only what the pooling reads counts.
    """
    size, ffn = config.hidden_size, config.ffn_size
    tokens = layout.tokens
    forward = 2 * mentions * layout.candidates * size
    for layers, positions_a_text in _layers(config):
        asked = [rows * (positions_a_text or width) for width, rows in zip(layout.widths, layout.texts, strict=True)]
        key_and_value = 4 * tokens * size**2
        others = sum(asked) * (4 * size**2 + 4 * size * ffn)
        attention = sum(4 * count * width * size for count, width in zip(asked, layout.widths, strict=True))
        forward += layers * (key_and_value + others + attention)
    if config.pooling == "pooler":
        forward += 2 * sum(layout.texts) * size**2
    return 3.0 * forward


def step_bytes(
    config: EncoderConfig, layout: Layout, mentions: int, dtype: str, kept: Kept = "states", devices: int = 1
) -> float:
    """Bytes that one step has to move to and from the memory of all devices at the least.

    Each op reads its inputs and writes its outputs once, in `dtype`; ops are the matrix products,
    attention (fused: its scores never leave the chip), gelu, and residual with LayerNorm. With D the
    hidden size and F that of the feed-forward network, that is for each token of a layer

      forward   projections 2 D + attention 2 D = 4 D to keys and values, and their input D
                query D + attention 2 D + output 2 D + norm 3 D + up D + F + gelu 2 F + down F + D + norm 3 D
      backward  keys and values 6 D + attention 4 D
                query 2 D + attention 4 D + output 4 D + norms 8 D + up 2 D + 2 F + gelu 3 F + down 2 D + 2 F

    where the first lines count all tokens and the second ones those positions that are asked for. What is not
    kept is moved once more before the backward pass: all of forward, or where products are kept attention, gelu
    and the norms. A float32 parameter, its gradient and its two moments are read and written once each, on every
    device.

    Args:
      config: the encoder; `vocab_size` is the number of rows trained.
      layout: the texts and candidates of a batch.
      mentions: how many of them.
      dtype: of the activations, "float32" or "bfloat16".
      kept: what a backward pass need not compute again.
      devices: each has all parameters.
    """
    size, ffn, tokens = config.hidden_size, config.ffn_size, layout.tokens
    # Token rows: read and normalised, again where only states are kept; the gradients, and into the table.
    values = tokens * size * (2 + 4 + (2 if kept == "states" else 0))
    for layers, positions_a_text in _layers(config):
        asked = sum(layout.texts) * positions_a_text or tokens
        forward = tokens * 5 * size + asked * (13 * size + 4 * ffn)
        between = tokens * 2 * size + asked * (8 * size + 2 * ffn)
        backward = tokens * 10 * size + asked * (22 * size + 7 * ffn)
        values += layers * (forward + {"all": 0, "products": between, "states": forward}[kept] + backward)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(parameter_shapes(config)))
    logits = 6 * mentions * layout.candidates  # written, read; read, their gradient written, read twice
    return float(BYTES[dtype] * values + 4 * logits + devices * 8 * 4 * parameters)


@dataclasses.dataclass(frozen=True)
class Speed:
    """Turns steps and seconds into rates and shares.

    Attributes:
      config: the encoder; `vocab_size` is the number of rows trained.
      layout: of nearly every batch.
      mentions: a batch.
      dtype: what the encoder computes in, "float32" or "bfloat16".
      peak: of one device.
      devices: how many.
      kept: what the backward pass need not compute again.
    """

    config: EncoderConfig
    layout: Layout
    mentions: int
    dtype: str
    peak: Peak = Peak()
    devices: int = 1
    kept: Kept = "states"

    @functools.cached_property
    def flops(self) -> float:
        return step_flops(self.config, self.layout, self.mentions)

    @functools.cached_property
    def bytes(self) -> float:
        return step_bytes(self.config, self.layout, self.mentions, self.dtype, self.kept, self.devices)

    def rates(self, steps: int, seconds: float, real_tokens: float) -> dict[str, float]:
        """What so many steps in so many seconds come to, by name; without what nobody can know.

        "mentions_per_second" (a mention and its gold are a pair), "tokens_per_second" (padding left out)
        and "padding_share" where `real_tokens` is above 0, "mfu" (the share of the peak FLOP/s) and
        "byte_roofline_share" (the share of the time in which the least bytes had to be moved) where
        the peak is known.
        """
        rates = {"mentions_per_second": self.mentions * steps / seconds}
        if real_tokens:
            rates["tokens_per_second"] = real_tokens / seconds
            rates["padding_share"] = 1 - real_tokens / (steps * self.layout.tokens)
        if self.peak.tflops:
            rates["mfu"] = self.flops * steps / seconds / (self.devices * self.peak.tflops * 1e12)
        if self.peak.gbytes_per_s:
            rates["byte_roofline_share"] = self.bytes * steps / seconds / (self.devices * self.peak.gbytes_per_s * 1e9)
        return rates


def _layers(config: EncoderConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """How many layers are alike, and for how many positions a text they compute an output; 0 for all."""
    return (config.num_layers - 1, 0), (1, 0 if config.pooling == "mean" else 1)
