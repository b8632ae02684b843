"""Ray itself: a private one, begun while other things are made ready, or a cluster that runs already."""

from __future__ import annotations

import atexit
import math
import os
import re
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raygrow.errors import Refused
from raygrow.population.pool_plan import PoolPlan


class _Private:
    """A Ray of this process, started and ended by one thread: the kernel ends Ray's processes with that thread."""

    def __init__(self, cpus: int) -> None:
        self._cpus = cpus
        self._error: BaseException | None = None
        self._up, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._live, name="raygrow-ray", daemon=True)
        self._thread.start()
        # A process that ends without having closed its pool.
        atexit.register(self.end)

    def _live(self) -> None:
        import ray

        try:
            ray.init(
                address="local",
                num_cpus=self._cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                namespace="raygrow",
            )
        except BaseException as error:
            self._error = error
        finally:
            self._up.set()
        self._over.wait()
        ray.shutdown()

    def wait(self) -> None:
        self._up.wait()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Let it end as soon as it can, without waiting for that."""
        self._over.set()

    def end(self) -> None:
        self._over.set()
        self._thread.join()
        atexit.unregister(self.end)


_begun: _Private | None = None
"""Begun and not taken by a pool yet."""
_abandoned: _Private | None = None


@contextmanager
def ahead(pool: PoolPlan, members: int, address: str | None) -> Iterator[None]:
    """Begin the private Ray that the pool of this plan will ask for, unless there is one; inside, ``connect`` takes it.

    Coming up, Ray waits for its processes for seconds: time to import torch and to prepare the data. Where no pool asks
    for it after all, because something is refused, it ends by itself in the background.
    """
    global _begun, _abandoned
    if pool.kind == "ray" and address is None and _begun is None:
        if _abandoned is not None:
            _abandoned.end()
            _abandoned = None
        _settle_environment(address)
        import ray

        if not ray.is_initialized():
            _begun = _Private(max(os.cpu_count() or 1, math.ceil(pool.actors_for(members) * pool.cpus_per_actor)))
    try:
        yield
    finally:
        if _begun is not None:
            _begun.abandon()
            _begun, _abandoned = None, _begun


def connect(
    pool: PoolPlan, members: int, address: str | None, cure: str = "`--pool serial` needs none"
) -> Callable[[], None]:
    """Connect to the cluster at an address, to the Ray this process has, or to a private one.

    Args:
        cure: what helps where no private one comes up.

    Returns:
        What ends the connection; nothing where it is not ours to end.

    Raises:
        Refused: there is none to be had.
    """
    global _begun, _abandoned
    try:
        if address is not None:
            return _join(address)
        with ahead(pool, members, address):
            private, _begun = _begun, None
        if private is None:
            return lambda: None
        try:
            private.wait()
        except BaseException:
            private.abandon()
            _abandoned = private
            raise
        return private.end
    except Exception as error:
        if address is None:
            raise Refused(f"pool: cannot use a local Ray: {last_line(error)}; {cure}") from None
        raise Refused(f"pool: cannot use the Ray cluster at {address}: {_why_not(error)}") from None


def _join(address: str) -> Callable[[], None]:
    _settle_environment(address)
    import ray

    if ray.is_initialized():
        return lambda: None
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", namespace="raygrow")
    finally:
        # Ray sets a handler of its own, which would end the process where the campaign has one that leaves it whole.
        if in_main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
    shutdown: Callable[[], None] = ray.shutdown
    return shutdown


def _settle_environment(address: str | None) -> None:
    """Before Ray is imported."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None and "RAY_AUTH_MODE" not in os.environ:
        # Ray would write a token readable by others into the home folder; a private cluster has a token of its own,
        # handed to its processes through the environment.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def _why_not(error: BaseException) -> str:
    """Why a cluster does not take this process, and what helps."""
    # Ray says first what the cluster has, then what this process has.
    if "Version mismatch" in str(error) and len(found := re.findall(r"\b(?:Ray|Python): (\S+)", str(error))) == 4:
        its_ray, its_python, ray, python = found
        return (
            f"it runs Ray {its_ray} on Python {its_python}, this process Ray {ray} on Python {python}; use an environment "
            "of the cluster's versions, or submit the campaign to it: `ray job submit -- raygrow run ... --address auto`"
        )
    # A process that Ray forks among gRPC's threads dies now and then: github.com/ray-project/ray/issues/63202.
    if "Starting Ray client server failed" in str(error):
        return (
            "its head could not start a server for this client, which happens now and then under load; run the same again, "
            "or start the head with GRPC_ENABLE_FORK_SUPPORT=0 in its environment"
        )
    return f"{last_line(error)}; is it running, and is the token (RAY_AUTH_MODE, RAY_AUTH_TOKEN) its own?"


def last_line(error: BaseException) -> str:
    """The line of a Ray error that says what happened: the last one of the remote traceback."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {cause}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
