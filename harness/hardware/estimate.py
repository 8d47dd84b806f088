"""What a deployment could do before it is bought: whether it fits, its floors, bounds of throughput and of cost.

Bounds are what no engine on this hardware can beat. With the efficiency that runs have reached they become
predictions, which stand beside them and name the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from servemark.harness.hardware.cost import costs
from servemark.harness.hardware.devices import Gpu
from servemark.harness.hardware.estimate_cycle import Cycle
from servemark.harness.hardware.estimate_facts import asked_json, gpu_json, memory_json, run_json
from servemark.harness.hardware.estimate_fleet import fleet
from servemark.harness.hardware.estimate_layouts import notes
from servemark.harness.hardware.estimate_point import Point, Question, Row, resting
from servemark.harness.hardware.estimate_search import doubled, largest, misses
from servemark.harness.hardware.layout import Layout
from servemark.harness.hardware.limits import Memory, throughput_bound
from servemark.harness.hardware.price import Price
from servemark.harness.hardware.work import Arithmetic


@dataclass(frozen=True)
class Deployment:
    """A kind of GPU and a layout, asked a question."""

    question: Question
    gpu: Gpu
    layout: Layout
    price: Price | None = None

    @cached_property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic(self.question.model, self.layout)

    @cached_property
    def memory(self) -> Memory:
        return self.question.engine.room(self.arithmetic, self.gpu, self.question.traffic.context)

    @cached_property
    def largest_batch(self) -> int:
        """By memory, on one server."""
        return self.memory.largest_batch(self.question.traffic.context)

    def least_tensor(self, batch: int) -> int | None:
        asked = self.question
        return asked.engine.least_tensor(asked.model, self.layout, self.gpu, batch, asked.traffic.context)

    def cycle(self, batch: int) -> Cycle:
        return Cycle.of(self.arithmetic, self.gpu, batch, self.question.traffic)

    @property
    def prefill_tps_bound(self) -> float:
        """Prompt tokens per second of the whole deployment, when it does nothing else and its GPUs never wait."""
        prompt = self.question.traffic.input_tokens
        flops = self.arithmetic.prefill(prompt).work.flops
        busy_s = sum(done / self.gpu.flops_per_s(dtype) for dtype, done in flops.items())
        return prompt * self.layout.gpus / busy_s

    def row(self, batch: int) -> Row:
        if batch > self.largest_batch:
            return Row(batch, False, self.least_tensor(batch), None, None, None, None)
        cycle = self.cycle(batch)
        binding = cycle.whole.binding
        return Row(batch, True, self.layout.tensor, self.bound(batch), self.predicted(batch), cycle.decode, binding)

    def bound(self, batch: int, ttft_s: float = 0.0) -> Point:
        """With TTFT at its floor, or at `ttft_s` where that is more."""
        cycle, traffic = self.cycle(batch), self.question.traffic
        rate = throughput_bound(self.arithmetic, self.gpu, batch, traffic.input_tokens, traffic.output_tokens)
        ttft_s = max(cycle.prefill.seconds, ttft_s)
        point = self._point(batch, cycle.decode.seconds, cycle.tpot_floor(ttft_s), ttft_s, rate)
        return replace(point, binding=cycle.whole.binding)

    def bound_for_slo(self, batch: int) -> Point:
        """TTFT is used up to its limit as far as TPOT needs it."""
        goal = self.question.objectives
        if goal is None or goal.ttft_s is None or goal.tpot_s is None:
            return self.bound(batch)
        return self.bound(batch, min(goal.ttft_s, self.cycle(batch).ttft_floor(goal.tpot_s)))

    def predicted(self, batch: int) -> Point | None:
        """None where nothing tells an MBU. What is bound by compute, as a step with a prompt, needs an MFU too."""
        traffic, cycle = self.question.traffic, self.cycle(batch)
        slow, busy = (self.question.efficiency(figure, batch) for figure in ("mbu", "mfu"))
        if slow is None or slow.mbu is None:
            return None
        if busy is None or busy.mfu is None:
            alone = self._point(batch, cycle.decode.bandwidth_s / slow.mbu, None, None, None)
            return resting(alone, slow, None) if cycle.decode.binding == "bandwidth" else None
        pace = cycle.at(slow.mbu, busy.mfu)
        rate = batch * traffic.output_tokens / pace.cycle_s * self.layout.replicas
        point = self._point(batch, pace.step_s, pace.tpot_s, pace.ttft_s, rate)
        return resting(replace(point, binding=cycle.binding(slow.mbu, busy.mfu)), slow, busy)

    def _point(
        self, batch: int, step_s: float, tpot_s: float | None, ttft_s: float | None, output_tps: float | None
    ) -> Point:
        traffic = self.question.traffic
        rps = None if output_tps is None else output_tps / traffic.output_tokens
        later = traffic.output_tokens - 1
        per_1m, per_1m_total, per_request = self._cost(output_tps, rps)
        return Point(
            batch=batch,
            step_s=step_s,
            tpot_s=tpot_s,
            ttft_s=ttft_s,
            e2e_s=None if tpot_s is None or ttft_s is None else ttft_s + later * tpot_s,
            output_tps=output_tps,
            output_tps_per_gpu=None if output_tps is None else output_tps / self.layout.gpus,
            output_tps_per_user=None if tpot_s is None else 1 / tpot_s,
            rps=rps,
            usd_per_1m_output=per_1m,
            usd_per_1m_total=per_1m_total,
            usd_per_request=per_request,
        )

    def _cost(self, output_tps: float | None, rps: float | None) -> tuple[float | None, float | None, float | None]:
        """Dollars per 1M output tokens, per 1M tokens, per request."""
        if self.price is None or output_tps is None or rps is None:
            return None, None, None
        input_tps = rps * self.question.traffic.input_tokens
        found = costs(self.price, self.layout.gpus, output_tps=output_tps, input_tps=input_tps, rps=rps)
        return found.usd_per_1m_output, found.usd_per_1m_total, found.usd_per_request

    def best(self, point_at: Callable[[int], Point | None]) -> Point | None:
        """With the largest batch that fits and meets the objectives; without any, the largest that fits."""

        def meeting(batch: int) -> Point | None:
            point = point_at(batch)
            return point if point is not None and self.question.meets(point) else None

        return largest(self.largest_batch, meeting)

    def curve(self) -> list[Row]:
        return [self.row(batch) for batch in doubled(self.largest_batch)]

    def to_json(self) -> dict[str, Any]:
        asked, most = self.question, self.largest_batch
        rows = [self.row(batch) for batch in sorted({*asked.batches, *([most] if most else [])})]
        return {
            "gpu": self.gpu.name,
            "layout": asdict(self.layout) | {"gpus": self.layout.gpus},
            "memory": memory_json(self.memory, asked.traffic.context)
            | {"least_tensor": self.least_tensor(self.layout.data), "largest_batch": most},
            "prefill_tps_bound": self.prefill_tps_bound if self.memory.fits else None,
            "usd_per_gpu_hour": None if self.price is None else self.price.usd_per_gpu_hour,
            "price_source": None if self.price is None else self.price.source,
            "usd_per_hour": None if self.price is None else self.price.usd_per_gpu_hour * self.layout.gpus,
            "rows": [row.to_json() for row in rows],
            "at_slo": self._at_slo(),
            "for_rate": self._for_rate(),
            "curve": [row.to_json() for row in self.curve()],
            "notes": list(notes(asked.model, self.layout)),
        }

    def _at_slo(self) -> dict[str, Any] | None:
        if self.question.objectives is None:
            return None
        found: dict[str, Any] = {"why": {}}
        for kind, point_at in (("bound", self.bound), ("predicted", self.predicted)):
            point = self.best(self.bound_for_slo if kind == "bound" else point_at)
            found[kind] = None if point is None else point.to_json()
            if point is None and (kind == "bound" or self.question.predicts):
                alone = point_at(1) if self.largest_batch else None
                found["why"][kind] = list(misses(self.question.objectives, alone))
        return found

    def _for_rate(self) -> dict[str, Any] | None:
        """From predictions where there are any."""
        rate, predicts = self.question.rate, self.question.predicts
        if rate is None:
            return None
        point = self.best(self.predicted if predicts else self.bound_for_slo)
        found = fleet(rate, point, "predicted" if predicts else "bound", self.layout, self.price)
        return None if found is None else found.to_json()


def estimate(
    question: Question, kinds: Sequence[tuple[Gpu, Price | None]], layouts: Sequence[Layout]
) -> dict[str, Any]:
    """As JSON; times in seconds, sizes in bytes, rates per second, as the names say."""
    asked = [Deployment(question, gpu, layout, price) for gpu, price in kinds for layout in layouts]
    return {
        "kind": "estimate",
        "model": question.model.facts(),
        "asked": asked_json(question),
        "gpus": [gpu_json(question.model, gpu) for gpu, _ in kinds],
        "like": [run_json(run, question.model, [gpu.name for gpu, _ in kinds], layouts) for run in question.runs],
        "deployments": [each.to_json() for each in asked],
    }
