"""A board's pages with an invented study, in a process of their own: folder and port as words."""

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
    serve(_Views(), Path(sys.argv[1]), Listen("127.0.0.1", int(sys.argv[2])))
