# SPDX-License-Identifier: Apache-2.0
"""The command ``minference``. An error that a user can fix is one line on stderr and status 1."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import minference
from minference.demo.candidates import Candidate, parse_candidates
from minference.demo.errors import DemoError

DEMO_PACKAGES = ("accelerate", "gguf", "matplotlib", "tqdm", "transformers")
INSTALL_DEMO = "pip install 'minference[demo]'"
MIN_TOKENS = 512
CONTEXT_TOKENS = 8192  # Positions that SmolLM2 was trained on.
DEFAULT_PATTERNS = "dense,vertical_slash:500:700,a_shape:128:1024"
STATUS_FAILED, STATUS_INTERRUPTED = 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        demo(build_parser().parse_args(argv))
    except DemoError as error:
        return fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted")
        return STATUS_INTERRUPTED
    except BrokenPipeError:
        # The reader of stdout has left. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STATUS_FAILED
    except (MemoryError, RuntimeError) as error:
        # torch reports a failed allocation as RuntimeError.
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        return fail("not enough memory: close other programs, or lower --tokens")
    return 0


def fail(message: str) -> int:
    """Print one line on stderr; return the exit status that goes with it."""
    print("minference: " + " ".join(message.split()), file=sys.stderr)
    return STATUS_FAILED


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="minference", description="Sparse prefill attention.")
    version = f"minference {minference.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "demo",
        help="compare dense and sparse prefill of a real text by a real model",
        description="Prefill a real text with SmolLM2-135M-Instruct, dense and sparse. Compare"
        " times, density, perplexity and passkey retrieval; write demo.json and demo.png.",
    )
    add = command.add_argument
    add(
        "--text",
        type=Path,
        metavar="FILE",
        help="UTF-8 text; without it, Python's reference manual",
    )
    add(
        "--tokens",
        type=integer(MIN_TOKENS, CONTEXT_TOKENS),
        default=CONTEXT_TOKENS,
        metavar="N",
        help=f"length of the prompt, {MIN_TOKENS} to %(default)s (the model's context; default)",
    )
    add(
        "--patterns",
        type=candidates,
        default=DEFAULT_PATTERNS,
        metavar="LIST",
        help="comma-separated: KIND:SIZE:..., or a head config FILE.json (default: %(default)s)",
    )
    add(
        "--threads",
        type=integer(1, 1024),
        default=torch.get_num_threads(),
        metavar="N",
        help="CPU threads (default: %(default)s)",
    )
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="dtype of weights and activations (default: what the processor multiplies fastest)",
    )
    add(
        "--repeats",
        type=integer(1, 100),
        default=3,
        metavar="N",
        help="prefills to time each way, at most: fewer on a slow machine (default: %(default)s)",
    )
    add(
        "--out",
        type=Path,
        default=Path("out"),
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )
    return parser


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of integers from ``low`` to ``high``."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            msg = f"expected {low} to {high}, got {text}"
            raise argparse.ArgumentTypeError(msg)
        return value

    return parse


def candidates(text: str) -> list[Candidate]:
    """Parse ``--patterns``; argparse shows the reason only of its own error type."""
    try:
        return parse_candidates(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def demo(arguments: argparse.Namespace) -> None:
    """Run ``minference demo``."""
    missing = [name for name in DEMO_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        msg = f"the demo needs the Python package {missing[0]}: run {INSTALL_DEMO}"
        raise DemoError(msg)
    try:
        # Only here: these import transformers and matplotlib, which the library does without.
        from minference.demo.run import Options, run_demo
    except ImportError as error:
        msg = f"cannot import {error.name or 'a package'} ({error}): run {INSTALL_DEMO}"
        raise DemoError(msg) from error
    run_demo(
        Options(
            candidates=arguments.patterns,
            tokens=arguments.tokens,
            repeats=arguments.repeats,
            threads=arguments.threads,
            out=arguments.out,
            text=arguments.text,
            dtype=getattr(torch, arguments.dtype) if arguments.dtype else None,
        )
    )
