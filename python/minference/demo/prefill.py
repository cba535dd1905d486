# SPDX-License-Identifier: Apache-2.0
"""Measures a prefill: time of attention and of the whole, what it predicts, what a pattern keeps.

Dense and sparse go through one code path: the model calls an attention function by name, and
``probe_attention`` puts the same clock around whichever function that name stands for.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import minference
from minference.demo.candidates import Candidate
from minference.demo.inputs import LoadedModel

LOGIT_ROWS = 512  # Rows of logits held at a time: 96 MiB in fp32 with a vocabulary of 49152.

# Receives each prefill call of the attention function: layer_idx, q, k, v as [batch, seqlen,
# num_heads, head_dim], softmax_scale.
Observer = Callable[[int, Tensor, Tensor, Tensor, float], None]


@dataclass
class AttentionClock:
    """Seconds spent inside the attention function, and inside the observer of its inputs."""

    attention_s: float = 0.0
    observer_s: float = 0.0


@dataclass(frozen=True)
class Prefill:
    """One prefill: its times, and the final hidden states ``[seqlen, hidden_size]``."""

    attention_s: float
    total_s: float
    hidden: Tensor


@dataclass(frozen=True)
class Predictions:
    """What the model predicts over the last half of a text.

    Attributes:
        perplexity: exp of the mean negative log-likelihood of the actual next tokens.
        next_tokens: The most likely token at each position, ``[seqlen - seqlen // 2]``.
    """

    perplexity: float
    next_tokens: Tensor


def use_dense(loaded: LoadedModel) -> None:
    """Let the model attend through ``scaled_dot_product_attention`` of torch."""
    loaded.model.set_attn_implementation("sdpa")


def use_candidate(loaded: LoadedModel, candidate: Candidate) -> None:
    """Let the model attend through minference, each head with its pattern."""
    minference.set_patterns(loaded.model, candidate.patterns, min_seqlen=1)


@contextlib.contextmanager
def probe_attention(
    implementation: str,
    *,
    observe: Observer | None = None,
    advance: Callable[[int], None] | None = None,
) -> Iterator[AttentionClock]:
    """Time every call of an attention implementation until the block ends.

    Args:
        implementation: Its name, as in ``model.set_attn_implementation``.
        observe: Called with the inputs of each prefill call; its own time is kept apart.
        advance: Called after each prefill call with the number of query rows done.
    """
    clock = AttentionClock()
    attention = ALL_ATTENTION_FUNCTIONS[implementation]

    def timed(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> Any:
        start = time.perf_counter()
        result = attention(module, query, key, value, mask, **options)
        clock.attention_s += time.perf_counter() - start
        seqlen_q = query.shape[2]
        if seqlen_q > 1 and observe is not None:
            start = time.perf_counter()
            q, k, v = (tensor.transpose(1, 2) for tensor in (query, key, value))
            observe(module.layer_idx, q, k, v, options["scaling"])
            clock.observer_s += time.perf_counter() - start
        if seqlen_q > 1 and advance is not None:
            advance(seqlen_q)
        return result

    # Item assignment shadows the registered function in this mapping; deletion uncovers it again.
    ALL_ATTENTION_FUNCTIONS[implementation] = timed
    try:
        yield clock
    finally:
        del ALL_ATTENTION_FUNCTIONS[implementation]  # type: ignore[no-untyped-call]


def prefill(
    loaded: LoadedModel,
    ids: Tensor,
    *,
    observe: Observer | None = None,
    advance: Callable[[int], None] | None = None,
) -> Prefill:
    """Prefill ``ids`` ``[seqlen]`` up to the logits of the last position, cache included."""
    model = loaded.model
    implementation = model.config._attn_implementation
    with (
        torch.inference_mode(),
        probe_attention(implementation, observe=observe, advance=advance) as clock,
    ):
        start = time.perf_counter()
        hidden = model.model(input_ids=ids[None], use_cache=True).last_hidden_state
        model.lm_head(hidden[:, -1:])
        total_s = time.perf_counter() - start - clock.observer_s
    return Prefill(clock.attention_s, total_s, hidden[0])


def predict_last_half(loaded: LoadedModel, hidden: Tensor, ids: Tensor) -> Predictions:
    """Predict tokens ``seqlen // 2`` to the end, each from the hidden state before it.

    Logits are fp32 whatever the model's dtype: in bf16 the best two tokens tie too often.
    """
    first = ids.numel() // 2
    states, targets = hidden[first - 1 : -1], ids[first:]
    next_tokens = torch.empty_like(targets)
    nll = 0.0
    with torch.inference_mode():
        weight = loaded.model.lm_head.weight.float()
        for row in range(0, targets.numel(), LOGIT_ROWS):
            rows = slice(row, row + LOGIT_ROWS)
            logits = states[rows].float() @ weight.T
            next_tokens[rows] = logits.argmax(-1)
            nll += F.cross_entropy(logits, targets[rows], reduction="sum").item()
    return Predictions(math.exp(nll / targets.numel()), next_tokens)


@dataclass
class PatternObserver:
    """Collects what a candidate costs and keeps: per layer, ``[num_heads_q]`` of each.

    Attributes:
        density: Tiles computed, over those of dense causal attention.
        kept_mass: Share of the dense softmax mass on the kept keys, mean over the last half of the
            rows. Both log-sum-exps are over the same scores, so exp(lse_kept - lse_all) is it.
    """

    candidate: Candidate
    density: list[list[float]] = field(default_factory=list)
    kept_mass: list[list[float]] = field(default_factory=list)

    def __call__(
        self, layer_idx: int, q: Tensor, k: Tensor, v: Tensor, softmax_scale: float
    ) -> None:
        """Measure one layer on its queries and keys."""
        patterns = self.candidate.of_layer(layer_idx)
        density = minference.density(q, k, patterns, softmax_scale=softmax_scale)[0]
        self.density.append(density.tolist())
        self.kept_mass.append(kept_mass(q, k, v, patterns, softmax_scale=softmax_scale).tolist())


def kept_mass(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    patterns: minference.Pattern | Sequence[minference.Pattern],
    *,
    softmax_scale: float,
) -> Tensor:
    """Return the share of the softmax mass that ``patterns`` keep: ``[num_heads_q]``, float64.

    The mean is over the last half of the rows: the first rows have few keys to leave out.
    """
    dense = minference.Dense()
    _, lse_kept = minference.prefill_attn(q, k, v, patterns, softmax_scale=softmax_scale)
    _, lse_all = minference.prefill_attn(q, k, v, dense, softmax_scale=softmax_scale)
    first = q.shape[1] // 2
    return (lse_kept - lse_all)[0, :, first:].double().exp().mean(-1)
