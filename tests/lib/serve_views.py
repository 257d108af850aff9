"""A board's pages with an invented study, in a process of its own.

Words: folder, port and, for TLS, the files of certificate and key.
"""

from __future__ import annotations

import sys
from pathlib import Path

from server.monitor_board.web.serve import Listen, serve
from server.monitor_board.web.views import BoardView
from tests.lib.board_views import make_study, make_view


class _Views:
    def newest_position(self) -> int:
        return 7

    def make(self) -> BoardView:
        return make_view(make_study(periods=8))


if __name__ == "__main__":
    folder, port, *files = sys.argv[1:]
    serve(_Views(), Path(folder), Listen("127.0.0.1", int(port), *map(Path, files)))
