from pathlib import Path

from tests.lib.relaying import *


def test_x(tmp_path: Path) -> None:
    r = Relaying(tmp_path)
    with r.running(), r.as_site("north") as n, r.as_board() as b:
        e = r.sites["north"].seal(r.roster)
        p = submit(n, e)
        assert submit(n, e) == p == 1
        assert collected(b) == [(1, e)]
    print(r.log())
