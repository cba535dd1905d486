# SPDX-License-Identifier: Apache-2.0
"""Model families that cover all kinds; `make test-models` runs every family."""

from __future__ import annotations

import warnings

import pytest
from families import transformers
from tiny_models.build import Entry, entries
from tiny_models.compare import judge

pytest.importorskip("minference.integrations.transformers")

# Class -> the reason why it is here.
MODELS = {
    "LlamaForCausalLM": "the plain one",
    "Qwen3ForCausalLM": "normalised queries and keys",
    "MistralForCausalLM": "a window in every layer",
    "Gemma2ForCausalLM": "softcap",
    "Gemma3ForConditionalGeneration": "windows in some layers; images",
    "Gemma4ForCausalLM": "only the last rows reach the last layers",
    "GptOssForCausalLM": "sinks",
    "MiMoV2FlashForCausalLM": "sinks in some layers; values of another size",
    "Inkling2ForConditionalGeneration": "sinks of every row; position bias",
    "Llama4ForCausalLM": "chunks that see only themselves",
    "DeepseekV3ForCausalLM": "latent attention",
    "DeepseekV32ForCausalLM": "keys chosen by an indexer",
    "DeepseekV4ForCausalLM": "columns appended to the mask",
    "GlmMoeDsaForCausalLM": "an indexer's choice shared by layers",
    "MiniMaxM3SparseForConditionalGeneration": "blocks chosen by an indexer",
    "Step3p7ForConditionalGeneration": "layers that differ in their heads",
    "Qwen3NextForCausalLM": "few layers with attention",
    "ZambaForCausalLM": "layers shared by places",
    "PaliGemmaForConditionalGeneration": "a prefix that sees itself",
    "T5ForConditionalGeneration": "position bias; an encoder",
    "BartForConditionalGeneration": "an encoder and cross-attention",
    "T5GemmaForConditionalGeneration": "softcap and cross-attention",
    "WhisperForConditionalGeneration": "an encoder of sound",
    "PegasusXForConditionalGeneration": "a decoder that does not say it is causal",
    "EncoderDecoderModel": "two models as one",
    "ModernBertDecoderForCausalLM": "windows, and no grouped queries",
}
# Refused: the implementation's name changes nothing in them, or they have nothing to change.
REFUSED = {"BloomForCausalLM", "GPTNeoForCausalLM", "FalconForCausalLM"}


@pytest.mark.parametrize("class_name", [*MODELS, *sorted(REFUSED)])
def test_family_is_equal_or_refused(class_name):
    found = [entry for entry in entries() if entry.class_name == class_name]
    if not found:
        pytest.skip(f"transformers {transformers.__version__} has no {class_name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Models warn about themselves.
        verdict = judge(Entry(found[0].family, class_name))
    assert verdict.result == ("refused" if class_name in REFUSED else "equal"), verdict.reason
    if class_name not in REFUSED:
        assert verdict.sensitivity > 1e-3  # A hidden key would show.
        assert len(verdict.errors) >= 6  # The number of scenarios compared.
        assert not verdict.refusals


def test_every_family_has_a_name():
    """Check the lists that the sweep reads: it would not notice one that transformers renamed."""
    families = {entry.family for entry in entries()}
    assert len(families) > 250
    assert {"llama", "t5", "whisper", "gemma3"} <= families
