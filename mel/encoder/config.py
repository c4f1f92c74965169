"""The size of an encoder and how it pools: one frozen value, to and from the configs that others write."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Literal

from mel.types import MelError

Pooling = Literal["pooler", "mean", "cls"]

# Our field, Hugging Face's key, and what BertConfig means where the key is left out (None: it must be there).
_HF_SIZES = (
    ("vocab_size", "vocab_size", None),
    ("hidden_size", "hidden_size", None),
    ("num_layers", "num_hidden_layers", None),
    ("num_heads", "num_attention_heads", None),
    ("ffn_size", "intermediate_size", None),
    ("max_positions", "max_position_embeddings", 512),
    ("type_vocab_size", "type_vocab_size", 2),
    ("layer_norm_eps", "layer_norm_eps", 1e-12),
    ("dropout", "hidden_dropout_prob", 0.1),
)

# What the transformer here takes for granted. A key that is left out has the first value.
_HF_FIXED = {
    "model_type": ("bert",),
    "hidden_act": ("gelu", "gelu_python"),
    "position_embedding_type": ("absolute",),
    "pad_token_id": (0, None),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The shape of a BERT encoder and the pooling that makes one embedding of a row.

    Attributes:
      pooling: "pooler" (the first token, a dense layer, tanh), "mean" (of the tokens that are not
        padding) or "cls" (the first token as it is).
      dropout: the rate of every dropout, used only where a training step asks for it.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    max_positions: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    dropout: float = 0.0
    pooling: Pooling = "pooler"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and not (isinstance(value, int) and value > 0):
                raise MelError(f"An encoder cannot have {field.name} {value!r}: a positive whole number is needed.")
        if self.hidden_size % self.num_heads:
            raise MelError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}.")
        if not self.layer_norm_eps > 0:
            raise MelError(f"layer_norm_eps {self.layer_norm_eps!r} is not above 0.")
        if not 0 <= self.dropout < 1:
            raise MelError(f"dropout {self.dropout!r} is not a rate: 0 <= dropout < 1 is needed.")
        if self.pooling not in typing.get_args(Pooling):
            choices = ", ".join(typing.get_args(Pooling))
            raise MelError(f"pooling {self.pooling!r} is not known: choose one of {choices}.")

    @classmethod
    def from_hf(cls, values: Mapping[str, Any], pooling: Pooling = "pooler") -> EncoderConfig:
        """Reads the dictionary of a Hugging Face `config.json`.

        Raises:
          MelError: it lacks a size, or asks for something other than an absolute-position BERT
            encoder with exact gelu and padding id 0.
        """
        for key, allowed in _HF_FIXED.items():
            if values.get(key, allowed[0]) not in allowed:
                raise MelError(f"This encoder has {key} {values[key]!r}; only {allowed[0]!r} can be loaded.")
        for _, key, default in _HF_SIZES:
            if key not in values and default is None:
                raise MelError(f"The config of this encoder lacks {key!r}: a BertConfig is needed.")
        return cls(**{field: values.get(key, default) for field, key, default in _HF_SIZES}, pooling=pooling)

    def to_hf(self) -> dict[str, Any]:
        """The dictionary from which `transformers` makes the same BertModel; pooling has no place in it."""
        sizes = {key: getattr(self, field) for field, key, _ in _HF_SIZES}
        fixed = {key: allowed[0] for key, allowed in _HF_FIXED.items()}
        return {"architectures": ["BertModel"], "attention_probs_dropout_prob": self.dropout, **fixed, **sizes}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EncoderConfig:
        """Reads what `to_json` wrote.

        Raises:
          MelError: a field is missing or unknown.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        wrong = [name for name in names if name not in values] + [name for name in values if name not in names]
        if wrong:
            raise MelError(f"An encoder config has the fields {', '.join(names)}: {wrong[0]!r} is missing or unknown.")
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """All fields as a plain dictionary."""
        return dataclasses.asdict(self)
