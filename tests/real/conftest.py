"""A server of each kind for the tests that need it; one that cannot start fails them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from real.kinds import KEY, KINDS, Kind
from real.rig import RealServer, RigFailed


class Servers:
    """One at a time, since each takes a core; started when it is needed, and again after a test killed it."""

    def __init__(self, logs: pytest.TempPathFactory, capture: pytest.CaptureFixture[str]) -> None:
        self._logs = logs
        self._capture = capture
        self._asked: tuple[Kind, tuple[str, ...]] | None = None
        self._server: RealServer | None = None
        self._failed: dict[tuple[Kind, tuple[str, ...]], str] = {}

    def running(self, kind: Kind, flags: tuple[str, ...]) -> RealServer:
        if self._server is None or not self._server.alive or self._asked != (kind, flags):
            self.stop()
            self._server, self._asked = self._started(kind, flags), (kind, flags)
        return self._server

    def any_of(self, kind: Kind) -> RealServer:
        """The one that runs already if it is of this kind."""
        flags = self._asked[1] if self._asked is not None and self._asked[0] == kind else kind.flags
        return self.running(kind, flags)

    def _started(self, kind: Kind, flags: tuple[str, ...]) -> RealServer:
        if said := self._failed.get((kind, flags)):  # a second wait would tell no more
            pytest.fail(said, pytrace=False)
        try:
            with self._capture.global_and_fixture_disabled():
                kind.install()
            return kind.serve(self._logs.mktemp(kind.name) / f"{kind.name}.log", *flags)
        except RigFailed as error:
            self._failed[kind, flags] = str(error)
            pytest.fail(str(error), pytrace=False)

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
        self._server = self._asked = None


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Servers]:
    servers = Servers(tmp_path_factory, pytestconfig.pluginmanager.getplugin("capturemanager"))
    yield servers
    servers.stop()


@pytest.fixture
def server(servers: Servers, kind: Kind) -> RealServer:
    return servers.running(kind, kind.flags)


@pytest.fixture
def locked(servers: Servers, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> RealServer:
    """It asks for the key that SERVER_KEY holds."""
    monkeypatch.setenv("SERVER_KEY", KEY)
    return servers.running(kind, kind.locked)


@pytest.fixture
def doomed(servers: Servers, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> RealServer:
    """For a test that ends it. It may ask for the key that SERVER_KEY holds."""
    monkeypatch.setenv("SERVER_KEY", KEY)
    return servers.any_of(kind)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one server stand together: some take half a minute to start. Those that end it come last."""
    items.sort(key=_place)


def _place(item: Any) -> tuple[int, int]:
    kind = item.callspec.params.get("kind") if hasattr(item, "callspec") else None
    if not isinstance(kind, Kind):
        return -1, -1
    stages = ("server", "locked", "doomed")
    stage = next((at for at, name in enumerate(stages) if name in item.fixturenames), -1)
    return list(KINDS).index(kind.name), stage
