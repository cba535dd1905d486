# SPDX-License-Identifier: Apache-2.0
"""Runs one model on one text, dense and with each pattern, and collects what comes out."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from minference.demo.candidates import Candidate
from minference.demo.inputs import LoadedModel
from minference.demo.maps import CapturedLayer, LayerCapture
from minference.demo.passkey import Passkey, hide_passkeys, is_retrieved
from minference.demo.prefill import (
    Observer,
    PatternObserver,
    Prefill,
    predict_last_half,
    prefill,
    use_candidate,
    use_dense,
)
from minference.demo.progress import Progress
from minference.demo.report import Outcome

BASELINE = "dense (torch SDPA)"
WARM_UP_TOKENS = 512
PASSKEY_TOKENS = 4096  # At 8192 this model misses the key with dense attention, too.
PASSKEY_DEPTHS = (0.1, 0.5, 0.9)
PICTURED_LAYERS = 4
REPEAT_WITHIN_S = 75  # Later no further turn starts: a slow machine, too, is done in minutes.


class Comparison:
    """Dense attention and each candidate, on the same tokens ``ids`` ``[seqlen]``.

    Attributes:
        outcomes: The dense baseline, then one per candidate.
        captured: Inputs of the attention function in a few layers, under dense attention.
    """

    def __init__(self, loaded: LoadedModel, ids: Tensor, candidates: Sequence[Candidate]) -> None:
        self.loaded = loaded
        self.ids = ids
        self.candidates = candidates
        self.outcomes = [Outcome(BASELINE), *(Outcome(each.name) for each in candidates)]
        self.captured: list[CapturedLayer] = []
        self.passkeys: list[Passkey] = hide_passkeys(
            loaded, ids, tokens=min(PASSKEY_TOKENS, ids.numel()), depths=PASSKEY_DEPTHS
        )
        self.dense_next_tokens = torch.empty(0)

    def measure(self, *, repeats: int) -> None:
        """Prefill up to ``repeats`` times each way, taking turns; then ask for the passkeys."""
        passes = len(self.outcomes) * self.loaded.num_layers
        turn_tokens = passes * self.ids.numel()
        passkey_tokens = passes * sum(passkey.ids.numel() for passkey in self.passkeys)
        with Progress(repeats * turn_tokens + passkey_tokens) as progress:
            progress.step("warming up")
            for index in range(len(self.outcomes)):
                # No first timing may pay for allocation and dispatch.
                self.attend(index)
                prefill(self.loaded, self.ids[:WARM_UP_TOKENS])
            start = time.perf_counter()
            for turn in range(repeats):
                if turn > 0 and time.perf_counter() - start > REPEAT_WITHIN_S:
                    progress.advance((repeats - turn) * turn_tokens)
                    break
                self.take_turn(turn, progress)
            for index, outcome in enumerate(self.outcomes):
                self.attend(index)
                for number, passkey in enumerate(self.passkeys, 1):
                    progress.step(f"passkey {number}/{len(self.passkeys)}: {outcome.name}")
                    found = is_retrieved(self.loaded, passkey, advance=progress.advance)
                    outcome.passkeys.append(found)

    def take_turn(self, turn: int, progress: Progress) -> None:
        """Prefill once each way; look closely the first time."""
        for index, outcome in enumerate(self.outcomes):
            progress.step(f"prefill {turn + 1}: {outcome.name}")
            self.attend(index)
            if turn == 0:
                self.examine(index, progress)
            else:
                self.time_prefill(index, progress)

    def attend(self, index: int) -> None:
        """Let the model attend as outcome ``index`` does."""
        if index == 0:
            use_dense(self.loaded)
        else:
            use_candidate(self.loaded, self.candidates[index - 1])

    def time_prefill(
        self, index: int, progress: Progress, observe: Observer | None = None
    ) -> Prefill:
        """Prefill once and note the times; those of ``observe`` are not among them."""
        done = prefill(self.loaded, self.ids, observe=observe, advance=progress.advance)
        self.outcomes[index].attention_s.append(done.attention_s)
        self.outcomes[index].total_s.append(done.total_s)
        return done

    def examine(self, index: int, progress: Progress) -> None:
        """Prefill once, and look at what was attended and what is predicted from it."""
        outcome = self.outcomes[index]
        layers = self.loaded.num_layers
        pictured = [layers * (2 * i + 1) // (2 * PICTURED_LAYERS) for i in range(PICTURED_LAYERS)]
        observer = PatternObserver(self.candidates[index - 1]) if index else LayerCapture(pictured)
        done = self.time_prefill(index, progress, observer)
        if isinstance(observer, LayerCapture):
            self.captured = observer.layers
        else:
            outcome.density, outcome.kept_mass = observer.density, observer.kept_mass
        predictions = predict_last_half(self.loaded, done.hidden, self.ids)
        if index == 0:
            self.dense_next_tokens = predictions.next_tokens
        same = predictions.next_tokens == self.dense_next_tokens
        outcome.perplexity = predictions.perplexity
        outcome.next_token_agreement = same.double().mean().item()
