# SPDX-License-Identifier: Apache-2.0
"""What every attention must compute alike: prompts, padding, caches, generation."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, StaticCache

from tiny_models.inputs import Call

# Longer than every window of a tiny model (24), than its chunks (32), and than a row block (64).
SEQLEN, BATCH, PADDING = 90, 2, 37
CHUNKS = [50, 39, 1]
CAPACITY = 128  # For a static cache.
ENCODER_SEQLEN, ENCODER_PADDING = 70, 23
NEW_TOKENS = 5
HUGE = 1e30  # Not a logit; some models use it for "never".
NOTICED = 1e-3  # How far hiding a key must move logits, relative to the largest.


class NotApplicable(Exception):
    """The model has no such input."""


@dataclass(frozen=True)
class Run:
    """Logits of the rows that are not padding; each piece is ``[rows, ...]``."""

    pieces: list[Tensor]
    # Each piece is a token of generate(); a piece counts only while a row's earlier tokens are
    # equal.
    are_steps: bool = False


@dataclass(frozen=True)
class Subject:
    """A model and how it is called."""

    model: Any
    call: Call
    padding_id: int = 0  # Used where there is no text.

    @property
    def parameters(self) -> set[str]:
        return set(inspect.signature(self.model.forward).parameters)

    @property
    def cache_name(self) -> str:
        """`cache` since transformers 5.24."""
        return "cache" if "cache" in self.parameters else "past_key_values"

    @property
    def text_config(self) -> Any:
        return self.model.config.get_text_config(decoder=True)

    def inputs(
        self, seqlen: int, mask: Tensor | None = None, encoder_mask: Tensor | None = None
    ) -> dict[str, Any]:
        """All inputs except the ids of the text."""
        call = self.call
        inputs: dict[str, Any] = dict(call.other_inputs(BATCH, seqlen, ENCODER_SEQLEN))
        if call.has_encoder_text:
            inputs["input_ids"] = self.encoder_ids(encoder_mask)
        if encoder_mask is not None:
            inputs["attention_mask"] = encoder_mask
        if mask is not None:
            if call.mask_name not in self.parameters:
                msg = f"forward takes no {call.mask_name}"
                raise NotApplicable(msg)
            inputs[call.mask_name] = mask
        return inputs

    def encoder_outputs(self) -> Any:
        """What generate() computes once and passes to every step."""
        if not self.call.is_encoder_decoder:
            return None
        inputs = self.inputs(SEQLEN)
        with torch.no_grad():
            return self.model.get_encoder()(**inputs, return_dict=True)

    def forward(self, ids: Tensor, **inputs: Any) -> Any:
        if not self.call.may_cache:
            inputs["use_cache"] = False
        with torch.no_grad():
            return self.model(**{self.call.ids_name: ids}, **inputs)

    def rows(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Select the rows that ``mask [batch, rows]`` marks; rows that a model adds come first."""
        if logits.shape[0] != mask.shape[0]:  # Codebooks were folded into the batch.
            mask = mask.repeat_interleave(logits.shape[0] // mask.shape[0], dim=0)
        return logits[:, -mask.shape[1] :][mask.bool()].float()

    def ids(self, mask: Tensor | None = None) -> Tensor:
        ids = self.call.ids(BATCH, SEQLEN)
        if mask is not None:
            is_text = mask.bool().repeat_interleave(len(ids) // len(mask), dim=0)
            ids[~is_text] = self.padding_id
        return ids

    def encoder_ids(self, mask: Tensor | None = None) -> Tensor:
        ids = self.call.encoder_ids(BATCH, ENCODER_SEQLEN)
        return ids if mask is None else ids.masked_fill(~mask.bool(), self.padding_id)


def padding_mask(side: str, seqlen: int = SEQLEN, padding: int = PADDING) -> Tensor:
    """The last sequence of the batch is shorter by ``padding``."""
    mask = torch.ones(BATCH, seqlen, dtype=torch.int64)
    mask[-1, slice(0, padding) if side == "left" else slice(seqlen - padding, seqlen)] = 0
    return mask


def encoder_padding_mask(subject: Subject, side: str) -> Tensor:
    if not subject.call.has_encoder_text:
        msg = "the encoder reads no text"
        raise NotApplicable(msg)
    return padding_mask(side, ENCODER_SEQLEN, ENCODER_PADDING)


ALL_ROWS = torch.ones(BATCH, SEQLEN, dtype=torch.int64)


# ---- One forward ---------------------------------------------------------------------------------


def plain(subject: Subject) -> Run:
    logits = subject.forward(subject.ids(), use_cache=False, **subject.inputs(SEQLEN)).logits
    return Run([subject.rows(logits, ALL_ROWS)])


def padded(side: str) -> Callable[[Subject], Run]:
    def run(subject: Subject) -> Run:
        mask = padding_mask(side)
        inputs = subject.inputs(SEQLEN, mask)
        logits = subject.forward(subject.ids(mask), use_cache=False, **inputs).logits
        return Run([subject.rows(logits, mask)])

    return run


def encoder_padded(side: str) -> Callable[[Subject], Run]:
    def run(subject: Subject) -> Run:
        inputs = subject.inputs(SEQLEN, encoder_mask=encoder_padding_mask(subject, side))
        logits = subject.forward(subject.ids(), use_cache=False, **inputs).logits
        return Run([subject.rows(logits, ALL_ROWS)])

    return run


def last_rows(side: str | None) -> Callable[[Subject], Run]:
    """Models may then attend with fewer queries than the mask was made for."""

    def run(subject: Subject) -> Run:
        if "logits_to_keep" not in subject.parameters:
            msg = "forward takes no logits_to_keep"
            raise NotApplicable(msg)
        mask = padding_mask(side) if side else None
        pieces = []
        for count in (1, 3):
            inputs = subject.inputs(SEQLEN, mask)
            inputs |= {"use_cache": True, "logits_to_keep": count}
            logits = subject.forward(subject.ids(mask), **inputs).logits
            kept = ALL_ROWS[:, -count:] if mask is None else mask[:, -count:]
            pieces.append(subject.rows(logits, kept))
        return Run(pieces)

    return run


def image_kind_names(subject: Subject) -> list[str]:
    """Names of the arguments that say which tokens belong to an image."""
    if not hasattr(subject.model.config, "vision_config"):
        return []
    return [n for n in ("mm_token_type_ids", "token_type_ids") if n in subject.parameters]


def image_block(subject: Subject) -> Run:
    """Some tokens stand for an image; in many models these all see each other."""
    names = image_kind_names(subject)
    kinds = torch.zeros_like(ALL_ROWS)
    kinds[:, 30:55] = 1
    inputs = subject.inputs(SEQLEN) | {names[0]: kinds}
    logits = subject.forward(subject.ids(), use_cache=False, **inputs).logits
    return Run([subject.rows(logits, ALL_ROWS)])


# ---- Chunks over a cache -------------------------------------------------------------------------


def chunked(make_cache: Callable[[Subject], Any], side: str | None) -> Callable[[Subject], Run]:
    def run(subject: Subject) -> Run:
        mask = padding_mask(side) if side else ALL_ROWS
        cache, end, pieces = make_cache(subject), 0, []
        encoder_outputs = subject.encoder_outputs()
        for chunk in subject.ids(mask).split(CHUNKS, dim=1):
            begin, end = end, end + chunk.shape[1]
            inputs = subject.inputs(end - begin, mask[:, :end] if side else None)
            if encoder_outputs is not None:
                encoder_names = ("input_ids", *subject.call.others)
                inputs = {n: v for n, v in inputs.items() if n not in encoder_names}
                inputs["encoder_outputs"] = encoder_outputs
            inputs |= {"use_cache": True, subject.cache_name: cache}
            out = subject.forward(chunk, **inputs)
            if cache is None and out.get(subject.cache_name) is None:
                return chunked(dynamic_cache, side)(subject)  # It does not return its cache.
            cache = out.get(subject.cache_name, cache)
            pieces.append(subject.rows(out.logits, mask[:, begin:end]))
        return Run(pieces)

    return run


def no_cache_yet(subject: Subject) -> None:
    """No cache is passed: the model makes the one that it wants."""


def dynamic_cache(subject: Subject) -> Any:
    cache = DynamicCache(config=subject.text_config)
    if subject.call.is_encoder_decoder:
        return EncoderDecoderCache(cache, DynamicCache(config=subject.text_config))
    return cache


def static_cache(subject: Subject) -> Any:
    cache = StaticCache(config=subject.text_config, max_cache_len=CAPACITY)
    if subject.call.is_encoder_decoder:
        return EncoderDecoderCache(cache, DynamicCache(config=subject.text_config))
    return cache


# ---- Generation ----------------------------------------------------------------------------------


def generated(use_cache: bool) -> Callable[[Subject], Run]:
    """From a batch padded on the left; an encoder's is padded on the right, as by tokenizers."""

    def run(subject: Subject) -> Run:
        call, model, mask = subject.call, subject.model, padding_mask("left")
        inputs = call.other_inputs(BATCH, SEQLEN, ENCODER_SEQLEN)
        if call.is_encoder_decoder:
            if "decoder_attention_mask" in subject.parameters:
                inputs["decoder_attention_mask"] = mask
            else:
                mask = ALL_ROWS
            inputs["decoder_input_ids"] = subject.ids(mask)
            if call.has_encoder_text:
                encoder_mask = encoder_padding_mask(subject, "right")
                inputs["input_ids"] = subject.encoder_ids(encoder_mask)
                inputs["attention_mask"] = encoder_mask
        else:
            inputs |= {"input_ids": subject.ids(mask), "attention_mask": mask}
        model.generation_config.eos_token_id = None  # Runs all steps, whatever the tokens.
        model.generation_config.pad_token_id = 0
        if call.is_encoder_decoder:
            model.generation_config.decoder_start_token_id = int(subject.ids()[0, 0])
        out = model.generate(
            **inputs,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            num_beams=1,
            use_cache=use_cache,
            disable_compile=True,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return Run([step.float() for step in out.logits], are_steps=True)

    return run


DECODER: dict[str, Callable[[Subject], Run]] = {
    "prompt": plain,
    "left padding": padded("left"),
    "right padding": padded("right"),
    "chunks": chunked(no_cache_yet, None),
    "chunks, left padding": chunked(no_cache_yet, "left"),
    "static cache": chunked(static_cache, None),
    "generate": generated(use_cache=True),
    "generate, no cache": generated(use_cache=False),
    "last rows": last_rows(None),
    "last rows, left padding": last_rows("left"),
}
ENCODER_DECODER: dict[str, Callable[[Subject], Run]] = DECODER | {
    "encoder left padding": encoder_padded("left"),
    "encoder right padding": encoder_padded("right"),
}


def scenarios_of(subject: Subject) -> dict[str, Callable[[Subject], Run]]:
    scenarios = ENCODER_DECODER if subject.call.is_encoder_decoder else DECODER
    return scenarios | ({"image tokens": image_block} if image_kind_names(subject) else {})


# ---- Comparison ----------------------------------------------------------------------------------


def relative_error(got: Run, want: Run) -> float:
    """The largest difference over the largest logit; inf if a logit is not finite."""
    # Chameleon gives the tokens of images the lowest possible logit.
    largest = max(piece[piece.abs() < HUGE].abs().max().item() for piece in want.pieces)
    worst, alive = 0.0, None
    for got_piece, want_piece in zip(got.pieces, want.pieces, strict=True):
        if got_piece.shape != want_piece.shape:
            return float("inf")
        if alive is None or not want.are_steps:
            alive = torch.ones(len(want_piece), dtype=torch.bool)
        difference = (got_piece - want_piece).abs()[alive]
        if not difference.isfinite().all():
            return float("inf")
        worst = max([worst, *([difference.max().item()] if difference.numel() else [])])
        # A tie may fall either way; from then on the texts differ.
        same = got_piece.argmax(-1) == want_piece.argmax(-1)
        alive = alive & same.reshape(len(same), -1).all(dim=1)
    return worst / max(largest, 1e-30)


def sensitivity(subject: Subject) -> float:
    """How far logits move when the last rows lose a key, as with a wrong mask.

    If a model takes no mask, or attends few keys, a token is changed instead.
    """
    last = ALL_ROWS[:, -5:]
    visible = torch.ones(SEQLEN, SEQLEN, dtype=torch.bool).tril()
    hidden = visible.clone()
    hidden[-5:, -6] = False
    ids, runs = subject.ids(), []
    with contextlib.suppress(Exception):
        for mask in (visible, hidden):
            additive = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
            inputs = subject.inputs(SEQLEN, additive.expand(BATCH, 1, -1, -1))
            logits = subject.forward(ids, use_cache=False, **inputs).logits
            runs.append(Run([subject.rows(logits, last)]))
    moved = relative_error(runs[1], runs[0]) if len(runs) == 2 else 0.0
    if moved <= NOTICED:
        runs = []
        for token in (2, 3):
            ids[:, -6] = token
            logits = subject.forward(ids, use_cache=False, **subject.inputs(SEQLEN)).logits
            runs.append(Run([subject.rows(logits, last)]))
        moved = max(moved, relative_error(runs[1], runs[0]))
    return moved
