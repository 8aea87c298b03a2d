"""What all tests share: the reference data beside the checkout, and one Ray instance a run."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from loopback import Loopback
from stores import ENVIRONMENT, s3_server

hypothesis.settings.register_profile("shared", deadline=None)  # other work on the machine is no failure
hypothesis.settings.load_profile("shared")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C and hands that down to what the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the seeds that tests drew, whether they passed or not: `record_property("seed", ...)`."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", []):
                if name == "seed" and getattr(report, "when", "") == "teardown":
                    terminalreporter.write_line(f"{report.nodeid}: {value}")


ROOT = Path(__file__).resolve().parent.parent

# Before any import of ray: ports on loopback only, no token, no wrapping of workers in another environment.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test asks the network
os.environ.setdefault("RAY_worker_register_timeout_seconds", "300")  # Ray's own name


KEYS_OF_WORKERS = dict.fromkeys(("GEMINI_API_KEY", "OPENAI_API_KEY"), "test-key-that-nobody-may-see-7f3a")
"""Providers' keys, as a cluster's machines have them: workers take them from their own environment."""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference numbers and odd files that may lie beside the checkout."""
    folder = ROOT.parent / "shared"
    if not (folder / "parity").is_dir():
        pytest.skip(f"no reference data in {folder.name}/ beside the checkout")
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """One Ray instance for the whole run; `runtime.session` finds it and leaves it running."""
    import ray

    # Sockets lie below it, and their paths may have some hundred characters only.
    folder = tempfile.mkdtemp(prefix="rd")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS_OF_WORKERS.items():
            patch.setenv(name, value)
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            _temp_dir=folder,
            logging_level="error",
            log_to_driver=False,
        )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def moto() -> Iterator[int]:
    """The port of an S3 server with nothing in it."""
    with s3_server() as port:
        yield port


@pytest.fixture
def s3(moto: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Loopback]:
    """A proxy in front of `moto`, which the environment names with its credentials."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with Loopback(upstream=moto) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server
