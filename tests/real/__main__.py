"""One of the real servers by hand, until Ctrl-C: `PYTHONPATH=tests python -m real KIND [PORT] [FLAG ...]`."""

from __future__ import annotations

import sys
import threading

from real.kinds import KINDS
from real.rig import RigFailed, home


def main(name: str = "", port: str | None = None, *flags: str) -> None:
    if name not in KINDS:
        sys.exit(f"name one of {', '.join(KINDS)}, then a port if it matters, then flags of the server")
    kind, log = KINDS[name], home() / f"{name}.log"
    try:
        kind.install()
        print(f"starting; log: {log}", flush=True)
        server = kind.serve(log, *flags, port=int(port) if port else None)
    except RigFailed as error:
        sys.exit(str(error))
    metrics = f" --metrics-url {server.metrics_url}" if server.metrics_url else ""
    print(f"ready: bench run --target {kind.target} --url {server.url}{metrics} --workload chat", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
