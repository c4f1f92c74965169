"""The encoder: BERT in Flax linen, from token rows to unit vectors.

Dense layers see 2-D activations [T, D] with T = N * L, attention sees [N, H, L, d], and the layers are
scanned over stacked weights: on CPU that form trains fastest and compiles once, whatever the depth.
Rows of several widths can go through together: only attention takes them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from mel.encoder.backend import Compute
from mel.encoder.config import EncoderConfig
from mel.types import MelError

TOKEN_TABLE: tuple[str, ...] = ("embeddings", "word", "embedding")
"""The path of the token table [V, D] in the parameters."""

PAD_ID = 0
TABLE_STD = 0.02

Params = dict[str, Any]
Kept = Literal["all", "products", "states"]
"""What a backward pass finds of a layer as the forward pass left it: all of it, what its dense layers gave, or only the
states that it began with; the rest is computed again."""


class Embeddings(nn.Module):
    """Sums the embeddings of token, position and token type 0, and normalises."""

    config: EncoderConfig
    dtype: Any

    @nn.compact
    def __call__(self, tokens_NL: jax.Array, deterministic: bool, word_NLD: jax.Array | None = None) -> jax.Array:
        """Returns [T, D]."""
        config = self.config
        if word_NLD is None:
            word_NLD = nn.Embed(config.vocab_size, config.hidden_size, name="word")(tokens_NL)
        positions_L = jnp.arange(tokens_NL.shape[1]) + config.position_offset
        rows = config.max_positions + config.position_offset
        position_LD = nn.Embed(rows, config.hidden_size, name="position")(positions_L)
        type_1D = nn.Embed(config.type_vocab_size, config.hidden_size, name="type")(jnp.zeros(1, jnp.int32))
        states_TD = (word_NLD + (position_LD + type_1D)[None]).reshape(-1, config.hidden_size)  # pyright: ignore[reportOptionalOperand]
        states_TD = _layer_norm(config, self.dtype, "norm")(states_TD)
        return nn.Dropout(config.dropout, deterministic=deterministic)(states_TD)


class Layer(nn.Module):
    """One transformer layer: attention and a feed-forward network, each with residual and LayerNorm."""

    config: EncoderConfig
    compute: Compute
    deterministic: bool

    @nn.compact
    def __call__(self, asked_PD: jax.Array, states_TD: jax.Array, real: Sequence[jax.Array]) -> jax.Array:
        """Returns the next states [P, D] of the asked positions.

        Args:
          asked_PD: the states of P positions: all of them or, where nobody reads the others, just the first of each
            row.
          states_TD: the states of all positions, one group of rows after the other.
          real: of each group, which positions are not padding [N, L]; they stand first in a row.
        """
        config, dtype = self.config, self.compute.dtype
        drop = nn.Dropout(config.dropout, deterministic=self.deterministic)
        attended_PD = self._dense(config.hidden_size, "output")(self._attention(asked_PD, states_TD, real, drop))
        middle_PD = _layer_norm(config, dtype, "attention_norm")(asked_PD + drop(attended_PD))
        inner_PF = _gelu(self._dense(config.ffn_size, "up")(middle_PD))
        outer_PD = self._dense(config.hidden_size, "down")(inner_PF)
        return _layer_norm(config, dtype, "ffn_norm")(middle_PD + drop(outer_PD))

    def _attention(
        self, asked_PD: jax.Array, states_TD: jax.Array, real: Sequence[jax.Array], drop: nn.Module
    ) -> jax.Array:
        size, heads = self.config.hidden_size, self.config.num_heads

        def project(states_XD, name) -> Iterator[jax.Array]:
            return _by_group(self._dense(size, name)(states_XD).reshape(-1, heads, size // heads), real)

        projected = project(asked_PD, "query"), project(states_TD, "key"), project(states_TD, "value")
        mixed = [self._attend(*parts, drop).reshape(-1, size) for parts in zip(*projected, real, strict=True)]
        return _joined(mixed)

    def _attend(self, query_NQHd, key_NLHd, value_NLHd, real_NL: jax.Array, drop: nn.Module) -> jax.Array:
        """The values of a row mixed as each of its asked positions attends to them, [N, Q, H, d]."""
        # The kernel knows no dropout, and nothing is to be gained where one position asks.
        dropping = not self.deterministic and self.config.dropout > 0
        short = query_NQHd.shape[1] == 1 or key_NLHd.shape[1] <= self.compute.plain_up_to
        if self.compute.attention == "plain" or dropping or short:
            return _plain_attention(query_NQHd, key_NLHd, value_NLHd, real_NL, drop)
        lengths_N = jnp.maximum(real_NL.sum(1, dtype=jnp.int32), 1)
        return jax.nn.dot_product_attention(
            query_NQHd, key_NLHd, value_NLHd, key_value_seq_lengths=lengths_N, implementation=self.compute.attention
        )

    def _dense(self, features: int, name: str) -> nn.Module:
        return nn.Dense(features, dtype=self.compute.dtype, name=name)


class BertEncoder(nn.Module):
    """Turns token rows into embeddings of unit length.

    Attributes:
      config: the sizes and the pooling.
      compute: in which precision and with which attention.
      kept: what the backward pass need not compute again. Of no use in a forward pass alone.
    """

    config: EncoderConfig
    compute: Compute = Compute()
    kept: Kept = "states"

    def setup(self):
        self.embeddings = Embeddings(self.config, self.compute.dtype)
        self.layers = self.param("layers", _init_layers, self.config)
        self.pooler = nn.Dense(self.config.hidden_size)

    def __call__(
        self,
        tokens: jax.Array | Sequence[jax.Array],
        deterministic: bool = True,
        words: jax.Array | Sequence[jax.Array] | None = None,
    ) -> jax.Array:
        """Returns embedding_ND, float32.

        Args:
          tokens: int32 token ids [N, L], 0 where padded; or several such groups, whose embeddings come one group after
            the other. A row of padding only gives some finite value.
          deterministic: False drops out at the config's rate and needs the rng "dropout".
          words: the tokens' rows of the token table [N, L, D], of each group, where the caller has looked them up.

        Raises:
          MelError: L is above the encoder's number of positions.
        """
        groups = _listed(tokens)
        run, weights, states_TD = self._start(groups, deterministic, None if words is None else _listed(words))
        lower, last = jax.tree.map(lambda stack: stack[:-1], weights), jax.tree.map(lambda stack: stack[-1], weights)
        states_TD, _ = lax.scan(lambda states_TD, layer: (run(layer, states_TD, states_TD), None), states_TD, lower)
        # Pooling by the first token reads one position of the last layer, so only that one is computed.
        if self.config.pooling == "mean":
            rows = _by_group(run(last, states_TD, states_TD), groups)
            return _unit_length(_joined([self._pool(*group) for group in zip(rows, groups, strict=True)]))
        first_ND = _joined([rows_NLD[:, 0] for rows_NLD in _by_group(states_TD, groups)])
        return _unit_length(self._pool(run(last, first_ND, states_TD)[:, None]))

    def hidden_states(self, tokens_NL: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the states after the embeddings and after each layer [layers + 1, N, L, D], and the
        pooled vector [N, D] before it is normalised; for comparison with other implementations."""
        run, weights, first_TD = self._start([tokens_NL], True)

        def step(states_TD, layer):
            states_TD = run(layer, states_TD, states_TD)
            return states_TD, states_TD

        _, later_STD = lax.scan(step, first_TD, weights)
        states_SNLD = jnp.stack([first_TD, *later_STD]).reshape(-1, *tokens_NL.shape, self.config.hidden_size)
        return states_SNLD, self._pool(states_SNLD[-1], tokens_NL)

    def _start(
        self, groups: Sequence[jax.Array], deterministic: bool, words: Sequence[jax.Array] | None = None
    ) -> tuple[Callable[..., Any], Any, jax.Array]:
        """The function that runs one layer, the stacked weights (and dropout keys) it takes, the first states."""
        length, longest = max(tokens_NL.shape[1] for tokens_NL in groups), self.config.max_positions
        if length > longest:
            raise MelError(f"Rows of {length} tokens are too long: the encoder has {longest} positions.")
        deterministic = deterministic or self.config.dropout == 0
        keys = None if deterministic else jax.random.split(self.make_rng("dropout"), self.config.num_layers)
        real = [tokens_NL != PAD_ID for tokens_NL in groups]
        layer = Layer(self.config, self.compute, deterministic, parent=None)

        def run(weights_and_key, asked_PD, states_TD):
            weights, key = weights_and_key
            rngs = None if key is None else {"dropout": key}
            return layer.apply({"params": weights}, asked_PD, states_TD, real, rngs=rngs)

        if self.kept != "all":
            policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if self.kept == "products" else None
            run = jax.checkpoint(run, prevent_cse=False, policy=policy)
        looked_up = [None] * len(groups) if words is None else words
        pairs = zip(groups, looked_up, strict=True)
        first_TD = _joined([self.embeddings(tokens_NL, deterministic, word_NLD) for tokens_NL, word_NLD in pairs])
        return run, (self.layers, keys), first_TD

    def _pool(self, states_NQD: jax.Array, tokens_NL: jax.Array | None = None) -> jax.Array:
        """Of the states of all positions of a row, or of its first one; a mean needs the tokens too."""
        states_NQD = states_NQD.astype(jnp.float32)
        match self.config.pooling:
            case "pooler":
                return jnp.tanh(self.pooler(states_NQD[:, 0]))
            case "cls":
                return states_NQD[:, 0]
            case "mean":
                kept_NL1 = (tokens_NL != PAD_ID)[:, :, None].astype(jnp.float32)
                return (states_NQD * kept_NL1).sum(1) / jnp.maximum(kept_NL1.sum(1), 1)


def parameter_shapes(config: EncoderConfig) -> Params:
    """The nested dictionary of all parameters, as shapes and dtypes; no device is touched."""
    tokens_NL = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return jax.eval_shape(lambda tokens_NL: BertEncoder(config).init(jax.random.key(0), tokens_NL), tokens_NL)["params"]


def init_params(config: EncoderConfig, seed: int) -> Params:
    """Random weights to start from: normal, biases 0, LayerNorm scales 1.

    Tables have BERT's deviation of 0.02. Kernels have 1 / sqrt(inputs) (LeCun et al., "Efficient
    BackProp", 1998) instead, because at the widths trained from nothing here 0.02 is so small that
    every text starts with nearly the same embedding.

    They are NumPy float32 arrays, and the same for the same config and seed.
    """
    generator = np.random.default_rng(seed)

    def draw(path, shape):
        match path[-1].key:
            case "bias":
                return np.zeros(shape.shape, np.float32)
            case "scale":
                return np.ones(shape.shape, np.float32)
            case "kernel":
                return generator.standard_normal(shape.shape, np.float32) / np.sqrt(shape.shape[-2], dtype=np.float32)
            case _:
                return TABLE_STD * generator.standard_normal(shape.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, parameter_shapes(config))


def _init_layers(key: jax.Array, config: EncoderConfig) -> Params:
    def init(key):
        state_TD, real_NL = jnp.zeros((1, config.hidden_size)), jnp.ones((1, 1), bool)
        return Layer(config, Compute(), True, parent=None).init(key, state_TD, state_TD, [real_NL])["params"]

    return jax.vmap(init)(jax.random.split(key, config.num_layers))  # pyright: ignore[reportReturnType]


def _listed(arrays: jax.Array | Sequence[jax.Array]) -> Sequence[jax.Array]:
    return arrays if isinstance(arrays, (list, tuple)) else [arrays]  # pyright: ignore[reportReturnType]


def _by_group(states: jax.Array, groups: Sequence[jax.Array]) -> Iterator[jax.Array]:
    """The states of groups of N rows and L positions, one after the other, apart: [N, L, ...] each, or [N, 1, ...]
    where there are those of one position a row."""
    alone = len(states) == sum(len(group) for group in groups)
    first = 0
    for rows, width in ((len(group), 1 if alone else group.shape[1]) for group in groups):
        yield states[first : first + rows * width].reshape(rows, width, *states.shape[1:])
        first += rows * width


def _joined(parts: Sequence[jax.Array]) -> jax.Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


def _plain_attention(query_NQHd, key_NLHd, value_NLHd, real_NL, drop: nn.Module) -> jax.Array:
    """Softmax attention over the real positions, its softmax in float32; [N, Q, H, d]."""
    # On CPU, products over [N, H, L, d] are the fastest form.
    query_NHQd, key_NHLd, value_NHLd = (x.transpose(0, 2, 1, 3) for x in (query_NQHd, key_NLHd, value_NLHd))
    query_NHQd = query_NHQd * query_NHQd.shape[-1] ** -0.5
    scores_NHQL = jnp.einsum("nhqd,nhld->nhql", query_NHQd, key_NHLd).astype(jnp.float32)
    mask_N11L = jnp.where(real_NL, 0.0, jnp.finfo(jnp.float32).min)[:, None, None, :]
    weights_NHQL = drop(jax.nn.softmax(scores_NHQL + mask_N11L).astype(value_NHLd.dtype))
    return jnp.einsum("nhql,nhld->nhqd", weights_NHQL, value_NHLd).transpose(0, 2, 1, 3)


def _gelu(x: jax.Array) -> jax.Array:
    """x times the normal distribution's share below x (Hendrycks & Gimpel, "Gaussian error linear units", 2016)."""
    # JAX takes the complementary error function, exact to the last digit in the tail, which costs twice as much or more
    # on CPUs and GPUs; pretrained encoders have seen this one.
    x_32 = x.astype(jnp.float32)
    return (x_32 * (0.5 + 0.5 * lax.erf(x_32 * np.float32(np.sqrt(0.5))))).astype(x.dtype)


def _layer_norm(config: EncoderConfig, dtype: Any, name: str) -> nn.Module:
    # The fast variance of Flax, E[x²] - E[x]², loses digits that parity with published weights needs.
    return nn.LayerNorm(config.layer_norm_eps, dtype=dtype, use_fast_variance=False, name=name)


def _unit_length(x_ND: jax.Array) -> jax.Array:
    square_N1 = jnp.square(x_ND).sum(-1, keepdims=True)
    # A zero row stays zero, and so does its gradient's NaN: the square root never sees 0.
    return x_ND * lax.rsqrt(jnp.where(square_N1 > 0, square_N1, 1.0))
