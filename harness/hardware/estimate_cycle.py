"""Steady decoding with prompts in between: its limits, and what it comes to at the efficiency that runs have reached.

Each of the requests that run takes as many steps as it has output tokens, and one of them holds its prompt. Over such
a cycle every request is served once.
"""

from __future__ import annotations

from dataclasses import dataclass

from servemark.harness.hardware.devices import Gpu
from servemark.harness.hardware.limits import Bound, Resource, bound, in_one_pass, tpot_floor, ttft_floor
from servemark.harness.hardware.work import Arithmetic


@dataclass(frozen=True, slots=True)
class Traffic:
    """Tokens of a request: prompt, answer, and `context`, for how many each shall find room in the KV cache."""

    input_tokens: int
    output_tokens: int
    context: int

    @property
    def decode_context(self) -> float:
        """Cached tokens before a decode step, on average over an answer."""
        return self.input_tokens + max(0, self.output_tokens - 2) / 2


@dataclass(frozen=True, slots=True)
class Cycle:
    """`decode` is a step without a prompt, `prefill` a prompt alone, `whole` all steps of a cycle.

    `requests` are those of a data rank that take their steps together.
    """

    decode: Bound
    prefill: Bound
    whole: Bound
    steps: int
    requests: float

    @classmethod
    def of(cls, arithmetic: Arithmetic, gpu: Gpu, batch: int, traffic: Traffic) -> Cycle:
        together = in_one_pass(arithmetic, batch)
        prompt, output = traffic.input_tokens, traffic.output_tokens
        whole = arithmetic.generation(together, prompt, output)
        return cls(
            decode=tpot_floor(arithmetic, gpu, batch, traffic.decode_context),
            prefill=ttft_floor(arithmetic, gpu, prompt),
            whole=bound(arithmetic.per_gpu(whole), gpu),
            steps=output,
            requests=together / min(batch, arithmetic.layout.data),
        )

    def tpot_floor(self, ttft_s: float) -> float:
        """Of the mean, where TTFT is this: what a cycle takes beyond a request's own prompt, its tokens wait for."""
        later = max(1, self.steps - 1)
        return max(self.decode.seconds, (self.whole.seconds - ttft_s) / later if self.steps > 1 else 0.0)

    def ttft_floor(self, tpot_s: float) -> float:
        """Of the mean, where TPOT is this."""
        return max(self.prefill.seconds, self.whole.seconds - (self.steps - 1) * tpot_s)

    def binding(self, mbu: float, mfu: float) -> Resource:
        """What takes longer over all steps, with these shares reached."""
        return "bandwidth" if self.whole.bandwidth_s / mbu >= self.whole.compute_s / mfu else "compute"

    def at(self, mbu: float, mfu: float) -> Pace:
        """With these shares of bandwidth and peak reached in every step."""
        alone = max(self.decode.bandwidth_s / mbu, self.decode.compute_s / mfu)
        prompts = max(0.0, self.whole.compute_s - (self.steps - 1) * self.decode.compute_s)
        mixed_steps = min(float(self.steps), self.requests)
        others = (self.requests - 1) / self.requests
        bandwidth_s = max(self.decode.bandwidth_s * others, self.prefill.bandwidth_s)
        compute_s = self.decode.compute_s * others + prompts / mixed_steps
        mixed = max(bandwidth_s / mbu, compute_s / mfu)
        added = max(0.0, mixed - alone) * mixed_steps
        return Pace(
            step_s=alone,
            tpot_s=alone + added / self.steps * others,
            ttft_s=mixed,
            cycle_s=self.steps * alone + added,
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """`step_s` is a decode step without a prompt, `tpot_s` the mean with those of the other requests in between.

    `ttft_s` is the step that holds a prompt, so without any queueing.
    """

    step_s: float
    tpot_s: float
    ttft_s: float
    cycle_s: float
