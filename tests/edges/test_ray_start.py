"""A private Ray is begun once, while other things are made ready; who takes it ends it, and untaken it ends by itself."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.campaigns import SMALL, run_to_end

pytest.importorskip("ray")

SCRIPT = """
import math, os, ray
from raygrow.adapters.ray_start import ahead, connect
from raygrow.population.pool_plan import PoolPlan

pool = PoolPlan(cpus_per_actor=1.5)
for serial_or_elsewhere in (ahead(PoolPlan(kind="serial"), 3, None), ahead(pool, 3, "a cluster")):
    with serial_or_elsewhere:
        assert not ray.is_initialized()
with ahead(pool, 3, None):
    # The command has begun it; the function that it calls asks again.
    with ahead(pool, 3, None):
        end = connect(pool, 3, None)
    assert ray.is_initialized()
assert ray.is_initialized()
assert ray.cluster_resources()["CPU"] == max(os.cpu_count(), math.ceil(4.5))
# Another pool of this process shares it and does not end it.
connect(pool, 3, None)()
assert ray.is_initialized()
end()
assert not ray.is_initialized()
with ahead(pool, 3, None):
    pass
# Nobody took that one; the next begins when it has ended.
end = connect(PoolPlan(actors=1), 3, None)
assert ray.cluster_resources()["CPU"] == os.cpu_count()
end()
assert not ray.is_initialized()
print("done")
"""


def test_one_private_ray_at_a_time_and_none_left() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=200)
    assert done.stdout == "done\n", done.stderr


def test_a_refusal_comes_while_ray_is_coming_up_and_is_one_line(tmp_path: Path) -> None:
    config = tmp_path / "plan.yaml"
    data = {"kind": "csv", "path": "absent.csv", "label": "y"}
    config.write_text(yaml.safe_dump({**SMALL, "data": data, "pool": {"kind": "ray"}}))
    done = run_to_end("run", config, "--out", tmp_path / "run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "absent.csv: no such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_cluster_that_does_not_take_us_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Ray's own words for it, which change from version to version, and then in ours."""
    import ray
    from ray._private.utils import check_version_info

    from raygrow.adapters.ray_start import connect
    from raygrow.errors import Refused
    from raygrow.population.pool_plan import PoolPlan

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    its = {"ray_version": "2.40.0", "python_version": "3.9.1"}
    monkeypatch.setattr(ray, "init", lambda **_: check_version_info(its, "a driver"))
    with pytest.raises(Refused) as refused:
        connect(PoolPlan(), 1, "ray://head:10001")
    line = str(refused.value)
    assert line.startswith("pool: cannot use the Ray cluster at ray://head:10001: it runs Ray 2.40.0 on Python 3.9.1, ")
    assert f"this process Ray {ray.__version__} on Python {platform.python_version()}; " in line
    assert "ray job submit" in line and "\n" not in line
    # As Ray says that the process it forked for a client died.
    died = RuntimeError("Starting Ray client server failed. See ray_client_server_23000.err for detailed logs.")
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(died))
    with pytest.raises(Refused, match=r"now and then under load; run the same again, or .* GRPC_ENABLE_FORK_SUPPORT=0"):
        connect(PoolPlan(), 1, "ray://head:10001")
    # Any other failure keeps its reason, and names what usually is wrong.
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("connection timeout")))
    with pytest.raises(Refused, match=r"connection timeout; is it running, and is the token \(RAY_AUTH_MODE"):
        connect(PoolPlan(), 1, "ray://head:10001")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("ModuleNotFoundError: No module named 'raygrow'", "its node lacks raygrow: every node needs raygrow and"),
        ("ModuleNotFoundError: No module named 'mine.strategies'", "its node lacks mine: every node"),
        ("ValueError: no", "ValueError: no"),
    ],
)
def test_what_a_node_lacks_is_named(reason: str, expected: str) -> None:
    from raygrow.adapters.ray_pool import _explained

    assert _explained(reason).startswith(reason)
    assert expected in _explained(reason)
    assert ("its node lacks" in _explained(reason)) == ("No module" in reason)
