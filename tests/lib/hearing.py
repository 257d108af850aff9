"""Children that hear Ctrl-C, also where a shell has started the tests in the background."""

from __future__ import annotations

import signal


def hear_ctrl_c() -> None:
    """Hear SIGINT: what a shell starts in the background is deaf to it, and so are its children.

    For `preexec_fn` of a child.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
