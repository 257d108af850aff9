"""Stock Flower in the same place as our demo: TLS, node authentication, four SuperNodes, defaults.

Used by `round_overhead.py` as the rival: a model of the same size, no training at all, Flower's own
FedAvg and its default settings, so that every second is Flower's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

from common.crypto.certificates import Authority, TlsKey
from common.crypto.node_key import make_node_key
from simulations.deployment import free_port
from simulations.processes import ProcessGroup

SITES = 4
_APP = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "stock"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "benchmark"
[tool.flwr.app.components]
serverapp = "stock.server:app"
clientapp = "stock.client:app"
[tool.flwr.app.config]
rounds = 4
stamps = ""
""",
    "LICENSE": "Apache-2.0\n",
    "README.md": "Stock Flower, for a benchmark.\n",
    "stock/__init__.py": "",
    "stock/client.py": """\
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    content = {"arrays": message.content["arrays"], "m": MetricRecord({"num-examples": 1.0})}
    return Message(RecordDict(content), reply_to=message)
@app.evaluate()
def evaluate(message, context):
    content = {"m": MetricRecord({"num-examples": 1.0, "loss": 1.0})}
    return Message(RecordDict(content), reply_to=message)
""",
    "stock/server.py": """\
import time
import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
app = ServerApp()
@app.main()
def main(grid, context):
    def stamp(number, arrays):
        with open(context.run_config["stamps"], "a") as stream:
            stream.write(f"{time.time()}\\n")
        return MetricRecord({"x": 1.0})
    FedAvg(min_available_nodes=4, min_train_nodes=4, min_evaluate_nodes=4).start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(25, np.float32)]),
        num_rounds=int(context.run_config["rounds"]),
        evaluate_fn=stamp,
    )
""",
}


def round_seconds(folder: Path, *, rounds: int) -> list[float]:
    """Run stock Flower for some rounds and return the seconds of each."""
    port, stamps = free_port(), folder / "stamps"
    for name, text in _APP.items():
        path = folder / "app" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _certificates(folder)
    keys = [folder / f"site-{number}.key" for number in range(SITES)]
    for key in keys:
        key.with_suffix(".pub").write_text(make_node_key(key))
    home = folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
        f'root-certificates = "{folder / "ca.pem"}"\n'
    )
    with ProcessGroup(folder / "logs") as processes:
        command = [_program("flower-superlink"), "--host", "127.0.0.1", "--port", str(port)]
        command += ["--ssl-certfile", str(folder / "server.pem"), "--enable-supernode-auth"]
        command += ["--ssl-keyfile", str(folder / "server.key")]
        command += ["--ssl-ca-certfile", str(folder / "ca.pem")]
        command += ["--database", str(folder / "state.db")]
        processes.start("superlink", command, environment=_environment(home))
        _flwr(home, "list", "here", attempts=30)
        for number, key in enumerate(keys):
            public = str(key.with_suffix(".pub"))
            _flwr(home, "supernode", "register", public, "here", "--name", f"site-{number}")
            command = [_program("flower-supernode"), "--superlink", f"127.0.0.1:{port}"]
            command += ["--root-certificates", str(folder / "ca.pem")]
            command += ["--auth-supernode-private-key", str(key), "--port", str(free_port())]
            own = folder / f"home-{number}"
            processes.start(f"site-{number}", command, environment=_environment(own))
        overrides = f"rounds={rounds} stamps={json.dumps(str(stamps))}"
        _flwr(home, "run", str(folder / "app"), "here", "--run-config", overrides)
        deadline = time.monotonic() + 60 + 40 * rounds
        while not stamps.exists() or len(stamps.read_text().split()) <= rounds:
            if time.monotonic() > deadline:
                raise SystemExit(f"stock Flower did not finish: see {folder / 'logs'}")
            time.sleep(0.5)
    times = [float(text) for text in stamps.read_text().split()]
    return [after - before for before, after in pairwise(times)]


def _certificates(folder: Path) -> None:
    now_s, key = int(time.time()), TlsKey.generate()
    authority = Authority.make("Benchmark", TlsKey.generate(), now_s=now_s)
    (folder / "ca.pem").write_text(authority.certificate_pem)
    key.write(folder / "server.key")
    hosts = ["localhost", "127.0.0.1"]
    (folder / "server.pem").write_text(authority.issue_server_certificate(hosts, key, now_s=now_s))


def _flwr(home: Path, *words: str, attempts: int = 1) -> None:
    for attempt in range(attempts):
        done = subprocess.run(
            [_program("flwr"), *words],
            env=_environment(home),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        if attempt == attempts - 1:
            raise SystemExit(f"flwr {' '.join(words)}: {done.stdout}{done.stderr}")
        time.sleep(0.5)


def _program(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        print(round_seconds(Path(scratch), rounds=3))
