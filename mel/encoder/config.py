"""The size of an encoder and how it pools: one frozen value, to and from the configs that others write."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Literal

from mel.types import MelError

Pooling = Literal["pooler", "mean", "cls"]
ModelType = Literal["bert", "xlm-roberta", "roberta", "camembert"]
"""Hugging Face's names; all but BERT's number positions from the padding id + 1 on, and are the same otherwise."""

_CLASSES: dict[ModelType, str] = {
    "bert": "BertModel", "xlm-roberta": "XLMRobertaModel", "roberta": "RobertaModel", "camembert": "CamembertModel",
}  # fmt: skip

# Our field, Hugging Face's key, and what its configs mean where the key is left out (None: it must be there).
_HF_SIZES = (
    ("vocab_size", "vocab_size", None),
    ("hidden_size", "hidden_size", None),
    ("num_layers", "num_hidden_layers", None),
    ("num_heads", "num_attention_heads", None),
    ("ffn_size", "intermediate_size", None),
    ("type_vocab_size", "type_vocab_size", 2),
    ("layer_norm_eps", "layer_norm_eps", 1e-12),
    ("dropout", "hidden_dropout_prob", 0.1),
)
_HF_POSITIONS = "max_position_embeddings"

# What the transformer here takes for granted. A key that is left out has the first value.
_HF_FIXED = {
    "hidden_act": ("gelu", "gelu_python"),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
}
# Keys of models that bring code of their own, whatever else they say.
_OWN_CODE = ("auto_map", "feed_forward_type", "rope_theta", "rotary_emb_base")


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The shape of a BERT encoder and the pooling that makes one embedding of a row.

    Attributes:
      max_positions: how long a row may be.
      model_type: which of BERT's likes it is.
      pad_id: which id padding has in files. Here it has id 0 always, and what has id 0 in files has this one.
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
    model_type: ModelType = "bert"
    pad_id: int = 0

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_heads

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "pad_id" else 1
            if field.type == "int" and not (isinstance(value, int) and value >= least):
                raise MelError(f"An encoder cannot have {field.name} {value!r}: a positive whole number is needed.")
        if self.hidden_size % self.num_heads:
            raise MelError(f"hidden_size {self.hidden_size} is not divisible by num_heads {self.num_heads}.")
        for name in ("layer_norm_eps", "dropout"):
            if not isinstance(value := getattr(self, name), (int, float)):
                raise MelError(f"{name} {value!r} is no number.")
        if not self.layer_norm_eps > 0:
            raise MelError(f"layer_norm_eps {self.layer_norm_eps!r} is not above 0.")
        if not 0 <= self.dropout < 1:
            raise MelError(f"dropout {self.dropout!r} is not a rate: 0 <= dropout < 1 is needed.")
        for name, choices in (("pooling", Pooling), ("model_type", ModelType)):
            if (value := getattr(self, name)) not in typing.get_args(choices):
                raise MelError(f"{name} {value!r} is not known: choose one of {', '.join(typing.get_args(choices))}.")

    @property
    def position_offset(self) -> int:
        """Which row of the position table the first token of a row has."""
        return 0 if self.model_type == "bert" else self.pad_id + 1

    @classmethod
    def from_hf(cls, values: Mapping[str, Any], pooling: Pooling = "pooler") -> EncoderConfig:
        """Reads the dictionary of a Hugging Face `config.json`.

        Raises:
          MelError: it lacks a size, or asks for something other than an absolute-position BERT
            encoder with exact gelu.
        """
        if not isinstance(values, Mapping):
            raise MelError("The config of this encoder is no JSON object: one of a BertModel or its likes is needed.")
        model_type = values.get("model_type", "bert")
        found = {"model_type": model_type} if model_type not in _CLASSES else {}
        found |= {key: values[key] for key, allowed in _HF_FIXED.items() if values.get(key, allowed[0]) not in allowed}
        found |= {key: values[key] for key in _OWN_CODE if values.get(key) is not None}
        for key, value in found.items():
            raise MelError(
                f"This encoder has {key} {value!r}, which is another architecture: {', '.join(_CLASSES)} with "
                "absolute positions and exact gelu can be loaded."
            )
        for _, key, default in _HF_SIZES:
            if key not in values and default is None:
                raise MelError(f"The config of this encoder lacks {key!r}: one of a BertModel or its likes is needed.")
        pad_id, positions = values.get("pad_token_id"), values.get(_HF_POSITIONS, 512)
        pad_id = int(model_type != "bert") if pad_id is None else pad_id
        for key, value in (("pad_token_id", pad_id), (_HF_POSITIONS, positions)):
            if not isinstance(value, int):
                raise MelError(f"The config of this encoder has {key} {value!r}: a whole number is needed.")
        positions -= 0 if model_type == "bert" else pad_id + 1
        sizes = {field: values.get(key, default) for field, key, default in _HF_SIZES}
        return cls(**sizes, max_positions=positions, pooling=pooling, model_type=model_type, pad_id=pad_id)

    def to_hf(self) -> dict[str, Any]:
        """The dictionary from which `transformers` makes the same model; pooling has no place in it."""
        sizes = {key: getattr(self, field) for field, key, _ in _HF_SIZES}
        sizes |= {_HF_POSITIONS: self.max_positions + self.position_offset, "pad_token_id": self.pad_id}
        fixed = {key: allowed[0] for key, allowed in _HF_FIXED.items()}
        kind = {"model_type": self.model_type, "architectures": [_CLASSES[self.model_type]]}
        return {**kind, "attention_probs_dropout_prob": self.dropout, **fixed, **sizes}

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
