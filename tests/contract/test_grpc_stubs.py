"""The committed gRPC stubs are what the generator makes of the .proto files."""

from __future__ import annotations

from pathlib import Path

from common import limits
from common.protocol import agent_pb2
from tests.lib.grpc_stubs import GENERATED, ROOT, generate


def test_the_committed_stubs_are_those_of_the_proto_files(tmp_path: Path) -> None:
    generate(tmp_path)
    for path in GENERATED:
        assert (tmp_path / path).read_bytes() == (ROOT / path).read_bytes(), path


def test_an_envelope_survives_the_agents_messages() -> None:
    envelope = bytes(range(256)) * 16
    carried = agent_pb2.CarryRequest(envelope=envelope).SerializeToString()
    assert agent_pb2.CarryRequest.FromString(carried).envelope == envelope
    assert len(carried) < limits.ENVELOPE_BYTES_MAX
