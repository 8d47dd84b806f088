"""Planned requests as the bytes that are sent, and the hash that names exactly those."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from servemark.adapters.vllm import ADAPTER, VllmAdapter
from servemark.harness.errors import BadInput
from servemark.harness.load.messages import Job
from servemark.harness.plan.encoding import Jobs
from servemark.harness.plan.schedule import Schedule, plan
from servemark.harness.plan.spec import load_workload
from servemark.harness.plan.tokens import vocabulary_for
from servemark.harness.server.control import Control
from servemark.harness.server.target import Replica, Target
from servemark.harness.types import HttpRequest, Options, Request, ServerFacts

HEADERS = (("Authorization", "Bearer k"), ("X-Request-Id", "mine"))


class Wrong(VllmAdapter):
    def encode(self, request: Request, options: Options) -> HttpRequest:
        return HttpRequest("POST", "/a path with blanks")


@pytest.fixture
def target() -> Iterator[Target]:
    with Control("http://127.0.0.1:9/base") as control:
        yield Target(ADAPTER, control.url, HEADERS, control, ServerFacts(), "m")


def schedule(
    tmp_path: Path, target: Target, seed: int = 1, run: str = "requests: 20", load: str = "rate: 10"
) -> Schedule:
    path = tmp_path / "w.yaml"
    path.write_text(
        "version: 1\nprompts: {source: synthetic, input_tokens: 'uniform(20, 60)', output_tokens: 8}\n"
        f"load: {{{load}}}\nrun: {{{run}, warmup: 0, "
        f"seeds: {{arrivals: {seed}, prompts: {seed}, lengths: {seed}, order: {seed}}}}}\n"
    )
    return plan(load_workload(str(path), {}), vocabulary_for("chat", "m", None, target.ask, None, None))


def jobs(made: Schedule, target: Target) -> Jobs:
    return Jobs(made, target, Options(model="m"), "run-1")


def split(job: Job, place: int = 0) -> tuple[str, dict[str, str], dict[str, object]]:
    head, _, body = job.message(place).partition(b"\r\n\r\n")
    line, *lines = head.decode("ascii").split("\r\n")
    return line, dict(each.split(": ", 1) for each in lines), json.loads(body)


def test_a_job_is_the_whole_message(tmp_path: Path, target: Target) -> None:
    made = list(jobs(schedule(tmp_path, target), target))
    assert [job.index for job in made] == list(range(20))
    offsets = [job.offset_ns or 0 for job in made]
    assert offsets == sorted(offsets)
    line, headers, body = split(made[3])
    assert line == "POST /base/v1/chat/completions HTTP/1.1"
    assert headers["Host"] == "127.0.0.1:9"
    assert headers["Authorization"] == "Bearer k"
    assert headers["Content-Length"] == str(len(made[3].payload.partition(b"\r\n\r\n")[2]))
    assert body["model"] == "m"
    assert body["stream"] is True
    assert made[3].asked_output_tokens == 8
    assert made[3].asked_prompt_tokens in range(20, 61)


def test_each_replica_has_its_own_head_before_the_same_body(tmp_path: Path, target: Target) -> None:
    """The worker chooses when it sends, so the request is ready for all of them."""
    with Control("https://other.example") as second:
        several = replace(target, others=(Replica(second.url, second, ServerFacts()),))
        [alone], [both] = (list(jobs(schedule(tmp_path, each, run="requests: 1"), each)) for each in (target, several))
    assert both.message(0) == alone.message(0) == alone.payload
    (line, headers, body), (line_two, headers_two, body_two) = (split(both, place) for place in (0, 1))
    assert (line, line_two) == ("POST /base/v1/chat/completions HTTP/1.1", "POST /v1/chat/completions HTTP/1.1")
    assert (headers.pop("Host"), headers_two.pop("Host")) == ("127.0.0.1:9", "other.example")
    assert headers == headers_two
    assert body == body_two
    assert both.size == len(both.message(0)) + len(both.heads[1])


def test_each_request_has_an_id_of_its_run_and_place(tmp_path: Path, target: Target) -> None:
    found = [split(job)[1]["X-Request-Id"] for job in jobs(schedule(tmp_path, target), target)]
    assert found == [f"run-1-{index}" for index in range(20)]


def test_same_seeds_give_the_same_bytes(tmp_path: Path, target: Target) -> None:
    one, two, other = (list(jobs(schedule(tmp_path, target, seed), target)) for seed in (1, 1, 2))
    assert one == two
    assert [job.payload for job in one] != [job.payload for job in other]
    assert len({job.payload for job in one}) == 20


def test_the_hash_names_exactly_the_requests_that_were_sent(tmp_path: Path, target: Target) -> None:
    """The look-ahead encodes more than is sent; a run of so many requests must have the same hash."""
    ahead = schedule(tmp_path, target, run="duration: 60s", load="concurrency: 2")
    made = jobs(ahead, target)
    iterator = iter(made)
    for _ in range(15):
        next(iterator)
    exactly = schedule(tmp_path, target, run="requests: 12", load="concurrency: 2")
    assert len(list(jobs(exactly, target))) == 12
    assert made.hash_at(12) == (exactly.hash_hex, 12)
    assert made.hash_at(11)[0] != exactly.hash_hex


def test_a_count_that_is_not_known_gets_the_hash_of_all_that_was_planned(tmp_path: Path, target: Target) -> None:
    whole = schedule(tmp_path, target)
    made = jobs(whole, target)
    list(made)
    assert made.hash_at(999) == (whole.hash_hex, 20)


def test_a_workload_without_a_request_is_refused_before_the_run(tmp_path: Path, target: Target) -> None:
    with pytest.raises(BadInput, match="plans no request"):
        jobs(schedule(tmp_path, target, run="duration: 1ms", load="rate: 0.001"), target)


def test_what_cannot_be_written_is_a_sentence_with_the_requests_number(tmp_path: Path, target: Target) -> None:
    made = schedule(tmp_path, replace(target, adapter=Wrong()))
    with pytest.raises(BadInput, match=r"request 0 cannot be written for target vllm: no HTTP request line"):
        jobs(made, replace(target, adapter=Wrong()))
