"""How many parts a reply may announce at the Fleet API: what our courier sends, with room."""

from __future__ import annotations

from typing import Final

from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree
from google.protobuf.message import DecodeError

MESSAGE_BYTES_MAX: Final = 1 << 20  # a message without its parts is about 1 kB, its tree 5 kB
OBJECTS_MAX: Final = 100  # the largest envelope is 52 chunks of 5 MiB and four records
DEPTH_MAX: Final = 10  # message, content, record, array, chunk


def are_bounded(body: bytes) -> bool:
    """Return whether a request to store messages is one, and each of its trees is bounded."""
    try:
        request = PushMessagesRequest.FromString(body)
    except DecodeError:
        return False
    return all(object_ids(tree) is not None for tree in request.message_object_trees)


def object_ids(tree: ObjectTree) -> list[str] | None:
    """Return each id in a tree once, or None when there are too many or they lie too deep."""
    found: dict[str, None] = {}
    waiting = [(tree, 1)]
    for _ in range(OBJECTS_MAX):
        node, depth = waiting.pop()
        if depth > DEPTH_MAX:
            return None
        found[node.object_id] = None
        waiting.extend((child, depth + 1) for child in node.children[: OBJECTS_MAX + 1])
        if not waiting:
            return list(found)
    return None
