# SPDX-License-Identifier: Apache-2.0
"""One family: built, run under each attention, and judged."""

from __future__ import annotations

import copy
import dataclasses
import time
import traceback
from dataclasses import asdict, dataclass, field
from typing import Any

import minference
import minference.integrations.transformers  # Registers the name.
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface

from tiny_models.build import CannotBuild, Entry, build
from tiny_models.inputs import find_call
from tiny_models.scenarios import (
    NOTICED,
    NotApplicable,
    Run,
    Subject,
    plain,
    relative_error,
    scenarios_of,
    sensitivity,
)

# In float32. 1e-4 of the largest logit is 1700 roundings of it.
TOLERANCE = 1e-4
NAME = "minference"
NOT_REPLACED = "transformers does not let its attention be replaced"


@dataclass
class Verdict:
    """A row of the table."""

    family: str
    class_name: str
    result: str = ""  # equal | refused | not used | cannot be built | error | WRONG
    reason: str = ""
    set_patterns: str = ""  # Why it refused the model, which was then switched by name.
    errors: dict[str, float] = field(default_factory=dict)  # Per scenario that ran.
    refusals: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    not_applicable: dict[str, str] = field(default_factory=dict)  # Scenario -> eager's error.
    sdpa: dict[str, float | str] = field(default_factory=dict)  # Control: transformers' own SDPA.
    sensitivity: float = 0.0
    is_switched: bool = False  # The decoder's configuration names "minference".
    calls: int = 0  # Calls of the attention function, in all scenarios.
    kernel_calls: int = 0  # Calls of kernels, in the prompt of the first scenario.
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class CallCounter:
    """Replaces the attention function, which set_patterns may register again."""

    def __init__(self) -> None:
        self.calls = 0

    def watch(self) -> None:
        function = AttentionInterface._global_mapping[NAME]
        if getattr(function, "counter", None) is self:
            return

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return function(*args, **kwargs)

        counted.counter = self  # type: ignore[attr-defined]
        AttentionInterface.register(NAME, counted)


class KernelCounter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += func.namespace == "minference"
        return func(*args, **(kwargs or {}))


def judge(entry: Entry) -> Verdict:
    begin = time.monotonic()
    verdict = Verdict(entry.family, entry.class_name)
    try:
        model = build(entry)
    except CannotBuild as error:
        verdict.result, verdict.reason = "cannot be built", " ".join(str(error).split())
    else:
        subject = Subject(model, find_call(model))
        wanted = _run_eager(subject, verdict)
        verdict.sdpa = _run_sdpa(subject, wanted)
        _run_minference(subject, wanted, verdict)
        _conclude(verdict)
    verdict.seconds = time.monotonic() - begin
    return verdict


def fresh(subject: Subject, attention: str = "eager", padding_id: int = 0) -> Subject:
    """Copy a subject: models keep state (positions of images), and some draw random numbers."""
    subject = dataclasses.replace(
        subject, model=copy.deepcopy(subject.model), padding_id=padding_id
    )
    if attention != "eager":
        subject.model.set_attn_implementation(attention)
    torch.manual_seed(4)
    return subject


def padding_leak(subject: Subject, name: str) -> float:
    """How much eager's logits of real rows depend on the tokens in the padding.

    If they do, they also depend on what each attention writes to rows of padding, which nothing
    specifies. Neither token is the padding token, because some models derive positions from that.
    """
    scenario = scenarios_of(subject)[name]
    one, other = (scenario(fresh(subject, padding_id=token)) for token in (7, 9))
    return relative_error(one, other)


def _run_eager(subject: Subject, verdict: Verdict) -> dict[str, Run]:
    runs = {}
    for name, scenario in scenarios_of(subject).items():
        try:
            run = scenario(fresh(subject))
            if all(piece.isfinite().all() for piece in run.pieces):
                runs[name] = run
            else:
                verdict.not_applicable[name] = "logits are not finite"
        except NotApplicable as error:
            verdict.not_applicable[name] = str(error)
        except Exception as error:
            verdict.not_applicable[name] = one_line(error)
    verdict.sensitivity = sensitivity(fresh(subject))
    return runs


def _run_sdpa(subject: Subject, wanted: dict[str, Run]) -> dict[str, float | str]:
    try:
        fresh(subject, "sdpa")
    except (ValueError, ImportError) as error:
        return {"all": one_line(error)}
    results: dict[str, float | str] = {}
    for name, want in wanted.items():
        try:
            got = scenarios_of(subject)[name](fresh(subject, "sdpa"))
            results[name] = error = relative_error(got, want)
            if error > TOLERANCE and padding_leak(subject, name) > TOLERANCE:
                results[name] = "eager attends padding"
        except Exception as error:
            results[name] = one_line(error)
    return results


def _run_minference(subject: Subject, wanted: dict[str, Run], verdict: Verdict) -> None:
    try:
        _with_minference(subject, verdict)
    except (NotImplementedError, ValueError, KeyError) as error:
        verdict.refusals["all"] = one_line(error)
        return
    except Exception as error:
        verdict.failures["all"] = _place_of(error)
        return
    counter = CallCounter()
    for name, want in wanted.items():
        switched = _with_minference(subject, verdict)
        counter.watch()
        try:
            got = scenarios_of(subject)[name](switched)
            error = relative_error(got, want)
            if error > TOLERANCE and (leak := padding_leak(subject, name)) > TOLERANCE:
                verdict.not_applicable[name] = f"eager attends padding: {leak:.0e}"
            else:
                verdict.errors[name] = error
        except Exception as error:
            if _is_refusal(error):
                verdict.refusals[name] = one_line(error)
            else:
                verdict.failures[name] = _place_of(error)
    verdict.calls = counter.calls
    if "prompt" in verdict.errors:
        switched = _with_minference(subject, verdict)
        with KernelCounter() as kernels:
            plain(switched)
        verdict.kernel_calls = kernels.calls


def _with_minference(subject: Subject, verdict: Verdict) -> Subject:
    subject = fresh(subject)
    try:
        minference.set_patterns(subject.model, minference.Dense())
    except (NotImplementedError, ValueError) as error:
        verdict.set_patterns = one_line(error)
        subject.model.set_attn_implementation(NAME)
    verdict.is_switched = subject.text_config._attn_implementation == NAME
    return subject


def _is_refusal(error: Exception) -> bool:
    is_type = isinstance(error, (NotImplementedError, ValueError))
    return is_type and str(error).startswith("minference:")


def _conclude(verdict: Verdict) -> None:
    wrong = {name: error for name, error in verdict.errors.items() if not error <= TOLERANCE}
    reasons = [f"{name}: {text}" for name, text in verdict.refusals.items()]
    if wrong:
        verdict.result = "WRONG"
        reasons = [f"{name}: {error:.1e} off" for name, error in wrong.items()]
    elif verdict.failures:
        verdict.result = "error"
        reasons = [f"{name}: {text}" for name, text in verdict.failures.items()]
    elif not verdict.errors:
        verdict.result = "refused" if verdict.refusals else "error"
        reasons = list(verdict.refusals.values()) or ["no scenario ran"]
    elif verdict.calls == 0:
        verdict.result = "not used" if verdict.is_switched else "refused"
        reasons = [verdict.set_patterns or NOT_REPLACED]
    else:
        verdict.result = "equal"
        if verdict.set_patterns:
            reasons.insert(0, f"set_patterns: {verdict.set_patterns}")
    if verdict.sensitivity <= NOTICED:
        reasons.append(f"insensitive: a hidden key moves logits by {verdict.sensitivity:.0e}")
    verdict.reason = "; ".join(dict.fromkeys(reasons))


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    is_ours = text.startswith("minference:")
    return text if is_ours else f"{type(error).__name__}: {text}"


def _place_of(error: Exception) -> str:
    """The error and the innermost lines that raised it, by file name only."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    where = " < ".join(f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in reversed(frames))
    return f"{one_line(error)} ({where})"
