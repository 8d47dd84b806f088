"""vLLM's OpenAI server (vllm serve), as of version 0.32."""

from __future__ import annotations

from typing import Any

from servemark.adapters.sim.connection import Exchange
from servemark.adapters.sim.dialect import (
    PROMETHEUS,
    VERSION,
    Dialect,
    Direct,
    Generated,
    respond_empty,
    respond_json,
)
from servemark.adapters.sim.dialects.vllm.asking import error_body, fields_of, read_asked
from servemark.adapters.sim.dialects.vllm.metrics import metrics_text
from servemark.adapters.sim.simulation import Simulation

OWNER = "servemark-sim"


class VllmDialect(Dialect):
    def __init__(self, sim: Simulation) -> None:
        super().__init__(sim)
        self.routes = {
            "/health": Direct(respond_empty),
            "/ping": Direct(respond_empty),
            "/version": Direct(lambda exchange: respond_json(exchange, {"version": VERSION})),
            "/v1/models": Direct(self._models),
            "/metrics": Direct(lambda exchange: exchange.respond(200, metrics_text(self.sim), PROMETHEUS)),
            "/tokenize": Direct(self._tokenize, ("POST",)),
            "/reset_prefix_cache": Direct(self._reset_prefix_cache, ("POST",)),
            "/v1/completions": Generated(
                lambda body, ordinal: read_asked(self.sim, "completions", body, self.id_of("cmpl-", ordinal))
            ),
            "/v1/chat/completions": Generated(
                lambda body, ordinal: read_asked(self.sim, "chat", body, self.id_of("chatcmpl-", ordinal))
            ),
        }

    def failure(self, status: int) -> bytes:
        type_ = "ServiceUnavailableError" if status == 503 else "InternalServerError"
        return error_body("simulated fault", type_, None, status)

    def _models(self, exchange: Exchange) -> None:
        card: dict[str, Any] = {"id": self.sim.model, "object": "model", "created": self.sim.created}
        card |= {"owned_by": OWNER, "root": self.sim.hardware.hf_id, "parent": None}
        card |= {"max_model_len": self.sim.context, "permission": []}
        respond_json(exchange, {"object": "list", "data": [card]})

    def _tokenize(self, exchange: Exchange) -> None:
        fields = fields_of(exchange.body, self.sim)
        prompt = fields.values.get("prompt")
        ids = self.sim.tokenizer.ids(prompt) if isinstance(prompt, str) else fields.chat(self.sim.tokenizer)
        answer = {"count": len(ids), "max_model_len": self.sim.context, "tokens": ids, "token_strs": None}
        respond_json(exchange, answer)

    def _reset_prefix_cache(self, exchange: Exchange) -> None:
        """200 even where requests run and nothing is reset, as with vLLM."""
        self.sim.engine.pool.forget_all()
        respond_empty(exchange)


DIALECT = VllmDialect
