"""How a model is laid out over GPUs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """A server runs on tensor x pipeline x data GPUs; there are `replicas` such servers.

    Tensor ranks split each layer, pipeline ranks the layers, data ranks the requests. With `expert` the experts are
    spread over the tensor and data ranks, where else each data rank has all of them, split like the rest.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    expert: bool = False
    replicas: int = 1

    @property
    def gpus_per_server(self) -> int:
        return self.tensor * self.pipeline * self.data

    @property
    def gpus(self) -> int:
        return self.gpus_per_server * self.replicas
