# SPDX-License-Identifier: Apache-2.0
"""Hides a number in a long text and asks for it: the plainest test of sparse prefill."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor
from transformers import DynamicCache

from minference.demo.inputs import LoadedModel
from minference.demo.prefill import probe_attention

# A plain prompt: wrapped in its chat template, this model misses the key even with dense attention.
INTRODUCTION = (
    "There is an important pass key hidden inside a long text. Find it and memorize it.\n\n"
)
NEEDLE = "\n\nThe pass key is {key}. Remember it. {key} is the pass key.\n\n"
QUESTION = "\n\nWhat is the pass key? The pass key is"
KEY_DIGITS = 5
ANSWER_TOKENS = KEY_DIGITS + 3  # This tokenizer spends one token a digit, and one on the space.


@dataclass(frozen=True)
class Passkey:
    """A prompt ``[seqlen]`` with ``key`` hidden at ``depth`` (0 start, 1 end) of its filler."""

    key: str
    depth: float
    ids: Tensor


def hide_passkeys(
    loaded: LoadedModel, filler: Tensor, *, tokens: int, depths: Sequence[float]
) -> list[Passkey]:
    """Hide another key at each of ``depths``, in prompts of exactly ``tokens`` tokens.

    Args:
        loaded: Whose tokenizer to use.
        filler: Tokens of the text to hide it in; at least ``tokens`` of them.
        tokens: Length of each prompt.
        depths: Where in the filler, from 0 to 1.
    """

    def encode(text: str) -> list[int]:
        return list(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])

    draw = random.Random(0)  # The same keys on every run.
    passkeys = []
    for depth in depths:
        key = "".join(str(draw.randrange(10)) for _ in range(KEY_DIGITS))
        introduction, needle, question = map(
            encode, (INTRODUCTION, NEEDLE.format(key=key), QUESTION)
        )
        room = tokens - len(introduction) - len(needle) - len(question)
        haystack = filler[:room].tolist()
        place = round(depth * room)
        ids = introduction + haystack[:place] + needle + haystack[place:] + question
        passkeys.append(Passkey(key, depth, torch.tensor(ids, dtype=torch.int64)))
    return passkeys


def is_retrieved(
    loaded: LoadedModel, passkey: Passkey, *, advance: Callable[[int], None] | None = None
) -> bool:
    """Whether the model, as it attends now, answers with the key.

    Only the prefill is sparse: single query rows are decoded densely, from the cache it left.
    """
    model = loaded.model
    # transformers 5.24 renames the argument, and warns of the old name.
    name = "cache" if "cache" in signature(model.forward).parameters else "past_key_values"
    cache = {name: DynamicCache(config=model.config)}
    ids, answer = passkey.ids[None], []
    with (
        torch.inference_mode(),
        probe_attention(model.config._attn_implementation, advance=advance),
    ):
        for _ in range(ANSWER_TOKENS):
            logits = model(input_ids=ids, logits_to_keep=1, **cache).logits
            ids = logits[:, -1:].argmax(-1)
            answer.append(int(ids))
    return passkey.key in loaded.tokenizer.decode(answer)
