"""Whether the relay of monitoring reports can be reached as the courier would reach it."""

from __future__ import annotations

from typing import Any

import grpc

from common.errors import TransportError
from common.protocol import monitoring_pb2 as wire
from common.protocol import monitoring_pb2_grpc
from site_client.courier.report_exchange import RelayAccess, open_channel

_WORDS = {
    "B3": "it answers, and has no roster yet: the coordinator pins one before reports can come",
    "B12": "it answers, and the roster has revoked this site",
    "B14": "yes; it is busy",
}


def ask_relay(access: RelayAccess, *, wait_s: float) -> tuple[bool, str]:
    """Ask the relay for one notice; return whether reports can go there, and words.

    Raises:
        TransportError: it does not answer within `wait_s`, or not as the consortium's relay.
        KeyFileError: the site's certificate or its key is not there.
    """
    make: Any = monitoring_pb2_grpc.MonitoringStub
    with open_channel(access) as channel:
        try:
            request = wire.NoticesRequest(after_position=0, limit=1)
            for _ in make(channel).Notices(request, timeout=wait_s):
                pass
        except grpc.RpcError as error:
            number = str(error.details())[:20]
            if number in _WORDS:
                return number != "B12", _WORDS[number]
            raise TransportError(
                "the relay of monitoring reports cannot be reached",
                expected=f"the coordinator's relay at {access.address}",
                arrived=error.code().name,
                todo="check address, proxy and firewall (CONNECT to its port); TLS inspection must "
                "let this connection be; ask whether the relay is up",
            ) from None
    return True, "yes"
