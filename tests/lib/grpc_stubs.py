"""Generate the Python side of the `.proto` files; `python -m tests.lib.grpc_stubs`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROTOS = (Path("common/protocol/agent.proto"), Path("common/protocol/monitoring.proto"))
GENERATED = tuple(
    proto.with_name(proto.stem + ending)
    for proto in PROTOS
    for ending in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")
)


def generate(into: Path) -> None:
    """Write the generated files below `into`, at their paths in the repository."""
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
            *map(str, PROTOS),
        ],
        check=True,
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PATH": scripts + os.pathsep + os.environ.get("PATH", "")},
    )


if __name__ == "__main__":
    generate(ROOT)
