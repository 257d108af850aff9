"""Ray for one run: started here on loopback with a secret of its own, or a cluster that is joined.

A Ray on one machine listens on all its addresses and lets whoever connects run code, unless told
otherwise; here it is told otherwise.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from common.errors import ConfigError

ADDRESS: Final = "RAY_ADDRESS"
"""Ray's own variable: a cluster that runs already. Without it Ray starts here, on loopback."""
OBJECT_STORE_BYTES: Final = 256 << 20
_PATH_MAX: Final = 40  # Ray's sockets lie below it, and a socket's path has 107 characters at most
QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


_MANY_MACHINES: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_ALONE: Final = {
    "RAY_AUTH_MODE": "token",
    # Without it Ray takes 127.0.0.1 for a mistake and listens on every address of the machine.
    _MANY_MACHINES: "0",
}


@contextlib.contextmanager
def own_ray(workers: int | None) -> Iterator[int]:
    """Start Ray on loopback, or join the cluster of `RAY_ADDRESS`; give the number of workers."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    address = os.environ.get(ADDRESS, "")
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"address": address}
        if not address:
            folder = tempfile.gettempdir()
            scratch = tempfile.TemporaryDirectory(
                prefix="ray-",
                dir=folder if len(folder) <= _PATH_MAX else "/tmp",  # noqa: S108 - a fresh one
                ignore_cleanup_errors=True,  # Ray's last process may still write its log
            )
            options = {
                "address": "local",
                "num_cpus": workers or os.cpu_count() or 1,
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": stack.enter_context(scratch),
            }
            stack.enter_context(environment(_ALONE))
            # Otherwise whoever may open a port of this machine could run code as we.
            stack.enter_context(environment({"RAY_AUTH_TOKEN": secrets.token_hex(32)}))
        import ray

        _read_environment_again()
        stack.callback(ray.shutdown)
        try:
            ray.init(
                **options,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                runtime_env={"env_vars": _of_workers()},
            )
        except Exception as error:
            raise _no_ray(address, type(error).__name__) from None
        for number, handler in handlers.items():
            # Ray ends the process by itself on SIGTERM, past everything that we would close.
            if threading.current_thread() is threading.main_thread() and handler is not None:
                signal.signal(number, handler)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield max(1, int(resources.get("CPU", 1)))


def _read_environment_again() -> None:
    """Let Ray see our variables: it reads some when it is imported, which may have been before."""
    from ray._private import ray_constants
    from ray._raylet import (  # type: ignore[attr-defined]
        AuthenticationTokenLoader,
        Config,
    )

    words = os.environ.get(_MANY_MACHINES, "1" if sys.platform == "linux" else "0")
    ray_constants.ENABLE_RAY_CLUSTER = words.lower() in ("1", "true")
    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


def _of_workers() -> dict[str, str]:
    """Return the environment of Ray's workers: our modules, one thread, and no word to anybody."""
    return {**QUIET, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables while the block lasts, and put all back: Flower itself changes some."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def need_ray() -> None:
    """Raise `ConfigError` when Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError(
            "Flower's simulation engine does not start",
            expected="Ray, which it runs on",
            arrived="no such package",
            todo="install cohortium[simulation-flower], or use --engine local",
        )


def _no_ray(address: str, seen: str) -> ConfigError:
    return ConfigError(
        "Ray does not start" if not address else "the Ray cluster cannot be joined",
        expected="a Ray that starts on this machine"
        if not address
        else f"a cluster at {ADDRESS} = {address} with this Ray and this Python",
        arrived=seen,
        todo="free memory and disk, or use --engine local"
        if not address
        else "check it with `ray status`, or unset the variable to run on this machine",
    )
