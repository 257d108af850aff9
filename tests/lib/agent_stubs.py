"""Generate the Python side of `common/protocol/agent.proto`; `python -m tests.lib.agent_stubs`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROTO = Path("common/protocol/agent.proto")
GENERATED = tuple(
    PROTO.parent / name for name in ("agent_pb2.py", "agent_pb2.pyi", "agent_pb2_grpc.py")
)


def generate(into: Path) -> None:
    """Write the three generated files below `into`, at their paths in the repository."""
    # protoc finds the plugin of mypy-protobuf on the path of this interpreter's environment.
    scripts = str(Path(sys.executable).parent)
    subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={ROOT}",
            f"--python_out={into}",
            f"--grpc_python_out={into}",
            f"--mypy_out={into}",
            str(PROTO),
        ],
        check=True,
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PATH": scripts + os.pathsep + os.environ.get("PATH", "")},
    )


if __name__ == "__main__":
    generate(ROOT)
