"""The files of cluster/: valid by the schemas of Ray, KubeRay and Kubernetes, and safe by rules of our own.

Each rule is also shown a file that breaks it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cluster_rules as rules
import pytest
import yaml
from loopback import Loopback, wait_for
from stores import fill
from torch.utils.tensorboard import SummaryWriter

from raydist.runtime import start

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = ROOT / "cluster"
KUBERAY = CLUSTER / "kuberay"
MANIFESTS = tuple(sorted(path.name for path in KUBERAY.glob("*.yaml")))
LAUNCHERS = tuple(sorted(path.name for path in CLUSTER.glob("ray-cluster.*.yaml")))
DOCKERFILES = ("Dockerfile", "Dockerfile.cuda")
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def secrets() -> dict[str, set[str]]:
    """Name -> keys, as the example has them."""
    return rules.secret_keys((KUBERAY / "secret.example.yaml").read_text())


def test_the_folder_has_what_a_cluster_needs() -> None:
    assert MANIFESTS == (
        "network-policy.yaml",
        "raycluster.yaml",
        "rayjob.yaml",
        "secret.example.yaml",
        "tensorboard.yaml",
    )
    assert LAUNCHERS == ("ray-cluster.aws.yaml", "ray-cluster.gcp.yaml", "ray-cluster.on-premises.yaml")


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_kubernetes_file_is_valid_and_safe(name: str, secrets: dict[str, set[str]]) -> None:
    assert rules.kubernetes((KUBERAY / name).read_text(), secrets) == []


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_file_is_valid_and_safe(name: str) -> None:
    assert rules.launcher((CLUSTER / name).read_text()) == []


def test_shipped_schemas_are_those_of_the_reference_data(shared: Path) -> None:
    for name in rules.KUBERAY.values():
        file = shared / "schemas" / f"{name}.json"
        if not file.exists():
            pytest.skip("no schemas in the reference data")
        assert rules.schema(name).schema == json.loads(file.read_text())


def test_the_job_has_the_cluster_of_the_cluster_file() -> None:
    cluster = yaml.safe_load((KUBERAY / "raycluster.yaml").read_text())["spec"]
    job = yaml.safe_load((KUBERAY / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    assert job == cluster


KUBERNETES_FAULTS = [
    ("raycluster.yaml", "minReplicas: 0", "minReplica: 0", "minReplica"),
    ("raycluster.yaml", "maxReplicas: 20", "maxReplicas: many", "many"),
    ("raycluster.yaml", "maxReplicas: 20", "maxReplicas: 0", "does not grow"),
    ("raycluster.yaml", "memory: 24Gi", "memory: 24GiB", "24GiB"),
    ("raycluster.yaml", "raydist:0.1.0\n", "raydist:latest\n", "not pinned"),
    ("raycluster.yaml", "raydist:0.1.0\n", "raydist\n", "not pinned"),
    ("raycluster.yaml", "raydist:0.1.0\n", "raydist:0.0.9\n", "not of raydist"),
    ("raycluster.yaml", "raydist:0.1.0-cuda", "raydist:0.1.0", "belong together"),
    ("raycluster.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "may run as root"),
    ("raycluster.yaml", "runAsUser: 1000", "runAsUser: 0", "may run as root"),
    ("raycluster.yaml", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "may gain rights"),
    ("raycluster.yaml", "0.1.0-cuda\n              command", "0.1.0\n              command", "would fetch 2 images"),
    ("raycluster.yaml", "mode: token", "mode: disabled", "no token"),
    ("raycluster.yaml", "secretName: raydist-ray-token", "secretName: another", "no token"),
    ("raycluster.yaml", "serviceType: ClusterIP", "serviceType: LoadBalancer", "LoadBalancer"),
    ("raycluster.yaml", "serviceType: ClusterIP", "enableIngress: true", "ingress"),
    ("raycluster.yaml", 'rayVersion: "2.60.0"', 'rayVersion: "2.59.0"', "constraints.txt has"),
    ("raycluster.yaml", "enableInTreeAutoscaling: true", "enableInTreeAutoscaling: false", "no autoscaling"),
    ("raycluster.yaml", "medium: Memory, sizeLimit: 7Gi", "sizeLimit: 7Gi", "medium Memory"),
    (
        "raycluster.yaml",
        "medium: Memory, sizeLimit: 7Gi",
        "medium: Memory, sizeLimit: 1Gi",
        "of the container's memory",
    ),
    (
        "raycluster.yaml",
        "secretRef: {name: raydist-object-store}",
        "secretRef: {name: object-store}",
        "no object-store",
    ),
    ("raycluster.yaml", "key: HF_TOKEN, optional", "key: HUB_TOKEN, optional", "raydist-providers/HUB_TOKEN"),
    ("raycluster.yaml", "{name: scratch, emptyDir", "{name: other, emptyDir", "mounts scratch"),
    ("raycluster.yaml", "tolerations:", "toleration:", "toleration"),
    ("raycluster.yaml", "automountServiceAccountToken: false", "hostNetwork: true", "hostNetwork"),
    ("raycluster.yaml", "enableServiceLinks: false", "enableServiceLinks: true", "look like settings"),
    ("raycluster.yaml", 'MAX_CPUS, value: "216"', 'MAX_CPUS, value: "8"', "no RAYDIST_RAY_MAX_CPUS=216"),
    ("raycluster.yaml", "name: RAYDIST_RAY_MAX_GPUS", "name: RAY_MAX_GPUS", "no RAYDIST_RAY_MAX_GPUS=4"),
    ("rayjob.yaml", "      enableServiceLinks: false\n      restart", "      restart", "look like settings"),
    ("tensorboard.yaml", "enableServiceLinks: false", "enableServiceLinks: true", "look like settings"),
    ("rayjob.yaml", "entrypoint:", "entryPoint:", "entryPoint"),
    ("rayjob.yaml", "backoffLimit: 2", "backoffLimit: twice", "twice"),
    ("rayjob.yaml", "submissionMode:", 'runtimeEnvYAML: "env_vars: {A: b}"\n  submissionMode:', "runtime environment"),
    ("rayjob.yaml", 'rayVersion: "2.60.0"', 'rayVersion: "2.9"', "constraints.txt has"),
    ("rayjob.yaml", "securityContext: *pod_security\n      containers", "containers", "may run as root"),
    ("tensorboard.yaml", "type: ClusterIP", "type: NodePort", "NodePort"),
    ("tensorboard.yaml", "replicas: 1", "replica: 1", "replica"),
    ("tensorboard.yaml", "key: AWS_REGION", "key: AWS_ZONE", "raydist-object-store/AWS_ZONE"),
    ("tensorboard.yaml", "readOnlyRootFilesystem", "privileged: true\n            readOnlyRootFilesystem", "as root"),
    ("tensorboard.yaml", "limits: {cpu", "limits: {gpu", "no limits of cpu"),
    (
        "tensorboard.yaml",
        "valueFrom:\n                secretKeyRef: {name: raydist-object-store, key: AWS_SECRET_ACCESS_KEY}",
        "value: abc",
        "literal value",
    ),
    ("secret.example.yaml", "AWS_ACCESS_KEY_ID: REPLACE_ME", "AWS_ACCESS_KEY_ID: AKIAIOSFODNN7EXAMPLE", "a secret"),
    ("secret.example.yaml", "auth_token: REPLACE_ME", "auth_token: a1b2c3", "no placeholder"),
    ("secret.example.yaml", "type: Opaque", "typ: Opaque", "typ"),
    ("network-policy.yaml", "policyTypes: [Ingress]", "policyType: [Ingress]", "policyType"),
    ("network-policy.yaml", "port: 8265", "ports: 8265", "ports"),
]


@pytest.mark.parametrize(("name", "good", "bad", "said"), KUBERNETES_FAULTS)
def test_a_fault_in_a_kubernetes_file_is_found(
    name: str, good: str, bad: str, said: str, secrets: dict[str, set[str]]
) -> None:
    text = (KUBERAY / name).read_text()
    assert good in text
    assert said in "\n".join(rules.kubernetes(text.replace(good, bad), secrets))


def test_every_kubernetes_file_has_been_shown_a_fault() -> None:
    assert {name for name, *_ in KUBERNETES_FAULTS} == set(MANIFESTS)


LAUNCHER_FAULTS = [
    ("aws", "max_workers: 24", "max_worker: 24", "max_worker"),
    ("aws", "resources: {CPU: 16, GPU: 1}", "resources: {CPU: 16.5, GPU: 1}", "16.5"),
    ("aws", "head_node_type: head", "head_node_type: haed", "head_node_type"),
    ("aws", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "127.0.0.1"),
    ("aws", "--object-manager-port", "--object-manger-port", "--object-manger-port"),
    ("aws", "--metrics-export-port=8080", "--metrics-export-port=http", "'http' is not a valid integer"),
    ("aws", "--env RAY_AUTH_MODE=token", "--env RAY_AUTH_MODE=disabled", "no token"),
    ("aws", "--env RAY_AUTH_MODE=token", "--env AWS_SECRET_ACCESS_KEY=abc", "a literal secret"),
    ("aws", "raydist:0.1.0-cuda", "raydist:latest", "not pinned"),
    ("aws", "InstanceMarketOptions: *spot", "KeyName: mine", "gpu is no spot machine"),
    (
        "aws",
        "xlarge\n      # An image",
        "xlarge\n      InstanceMarketOptions: {MarketType: spot}\n      # An image",
        "may vanish",
    ),
    ("aws", "resources: {CPU: 0}", "resources: {CPU: 4}", "decoders may run on the head"),
    ("gcp", "upscaling_speed: 1.0", "upscaling_speed: fast", "fast"),
    ("gcp", "min_workers: 0\n    max_workers: 4", "min_workers: 4\n    max_workers: 4", "gpu does not grow"),
    ("gcp", "min_workers: 0\n    max_workers: 4", "min_workers: 40\n    max_workers: 40", "max_workers"),
    ("gcp", "provisioningModel: SPOT", "provisioningModel: STANDARD", "decode is no spot machine"),
    ("gcp", "provisioningModel: SPOT", "provisioningModel: CHEAP", "CHEAP"),
    ("gcp", "machineType: g2-standard-16", "InstanceType: g2-standard-16", "InstanceType"),
    ("gcp", "autoDelete: true", "autoDelete: perhaps", "perhaps"),
    ("aws", "VolumeSize: 150", "VolumeSize: large", "large"),
    ("aws", "SecurityGroupIds: [", "SecurityGroup: [", "SecurityGroup"),
    ("aws", "InstanceType: g6.4xlarge", "InstanceType: g6.5xlarge", "no instance type"),
    ("gcp", ", GPU: 1}", "}", "no machine has a GPU"),
    ("gcp", "/home/ray/.ray/auth_token: ~/.ray/auth_token", "/home/ray/a: ~/a", "no token"),
    ("on-premises", "ssh_user:", "user:", "user"),
    ("on-premises", "min_workers: 2", "min_workers: 0", "machines stay out"),
    ("on-premises", "capacity_threshold=0.8", "capacity_threshold=1.0", "may fill the machine's disk"),
    ("on-premises", "raydist:0.1.0-cuda", "raydist:0.0.1-cuda", "not of raydist"),
    ("on-premises", "--env-file /etc/raydist/object-store.env", "--privileged", "--privileged"),
    ("on-premises", "--dashboard-host=127.0.0.1", "", "127.0.0.1"),
]


@pytest.mark.parametrize(("name", "good", "bad", "said"), LAUNCHER_FAULTS)
def test_a_fault_in_a_launcher_file_is_found(name: str, good: str, bad: str, said: str) -> None:
    text = (CLUSTER / f"ray-cluster.{name}.yaml").read_text()
    assert good in text
    assert said in "\n".join(rules.launcher(text.replace(good, bad)))


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_passes_the_linter(name: str) -> None:
    assert _linted((CLUSTER / name).read_text()) == ""


@pytest.mark.parametrize("name", DOCKERFILES)
@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("--no-cache-dir", "", "DL3042"),
        ("python:3.11.15-slim-bookworm@sha256:", "python:latest #", "DL3007"),
        ("USER 1000", "USER root", "DL3002"),
        ("WORKDIR /home/ray", "WORKDIR home/ray", "DL3000"),
    ],
)
def test_a_fault_in_a_dockerfile_is_found(name: str, good: str, bad: str, said: str) -> None:
    text = (CLUSTER / name).read_text()
    assert good in text
    assert said in _linted(text.replace(good, bad))


def _linted(text: str) -> str:
    command = [str(BIN / "hadolint"), "--no-color", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (not done.stdout), done.stderr
    return done.stdout


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_is_pinned_and_runs_without_root(name: str) -> None:
    lines = _instructions((CLUSTER / name).read_text())
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert [base for base in bases if not re.fullmatch(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", base)] == []
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users == ["1000"]
    after = lines[lines.index("USER 1000") :]
    assert [line for line in after if line.startswith(("RUN", "COPY", "ADD"))] == []
    installs = [part for line in lines if line.startswith("RUN") for part in line.split("&&") if "pip install" in part]
    assert [part for part in installs if "-c constraints.txt" not in part and "--no-deps" not in part] == []


def test_the_two_images_differ_in_torch_and_the_driver_only() -> None:
    cpu, cuda = (_instructions((CLUSTER / name).read_text()) for name in DOCKERFILES)
    changed = [line for line in difflib.ndiff(cpu, cuda) if line[0] in "+-"]
    expected = ("COPY constraints.txt", "RUN pip install", "ENV NVIDIA_")
    assert [line for line in changed if not line[2:].startswith(expected)] == []
    assert [line for line in changed if "RUN pip" in line and not line.endswith(" torch")] == []


def test_an_image_gets_what_it_copies_and_no_more() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    wanted: set[str] = set()
    for name in DOCKERFILES:
        for line in _instructions((CLUSTER / name).read_text()):
            if line.startswith("COPY") and "--from" not in line:
                wanted.update(line.split()[1:-1])
    assert kept == wanted
    assert [name for name in sorted(wanted) if not (ROOT / name).exists()] == []


def test_what_an_image_installs_is_pinned() -> None:
    """The names that pyproject.toml asks for; what those ask for was compared with a whole installation once."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    command = (CLUSTER / "Dockerfile").read_text()
    extras = re.search(r"chosen = \(([^)]*)\)", command)
    assert extras is not None
    chosen = re.findall(r"'(\w+)'", extras[1])
    needs = [*project["dependencies"], *(need for extra in chosen for need in project["optional-dependencies"][extra])]
    pins = {
        _plain(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    assert [need for need in needs if _plain(re.split(r"[\[<>=;! ]", need)[0]) not in pins] == []


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")


def _instructions(text: str) -> list[str]:
    """The lines of a Dockerfile without comments, each instruction on one line."""
    bare = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [" ".join(line.split()) for line in bare.splitlines() if line.strip()]


def test_only_pods_that_are_named_for_it_and_the_operator_reach_the_job_port() -> None:
    policy = next(yaml.safe_load_all((KUBERAY / "network-policy.yaml").read_text()))
    (rule,) = [rule for rule in policy["spec"]["ingress"] if {"protocol": "TCP", "port": 8265} in rule.get("ports", [])]
    pods, _ = rule["from"]
    submitter = yaml.safe_load((KUBERAY / "rayjob.yaml").read_text())["spec"]["submitterPodTemplate"]
    assert pods == {"podSelector": {"matchLabels": submitter["metadata"]["labels"]}}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_an_image_sets_what_raydist_sets_for_ray_on_one_machine(name: str) -> None:
    (line,) = [line for line in _instructions((CLUSTER / name).read_text()) if line.startswith("ENV RAYDIST_MODELS")]
    told = dict(word.split("=", 1) for word in line.split()[1:])
    # Loopback ports are of one machine alone; the others are the driver's own, which sets them there.
    own = ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_ENABLE_UV_RUN_RUNTIME_ENV", "RAY_DATA_DISABLE_PROGRESS_BARS")
    wanted = {name: value for name, value in start._QUIET.items() if name not in own}
    assert {name: told.get(name) for name in wanted} == wanted


def test_tensorboard_reads_runs_from_a_bucket_as_deployed(s3: Loopback, moto: int, tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("loss/train", 0.5, 1)
    fill(
        moto,
        "REPLACE_ME_BUCKET".lower().replace("_", "-"),
        {f"archive/runs/lora/{file.name}": file for file in tmp_path.iterdir()},
    )
    pod = rules.pods(next(yaml.safe_load_all((KUBERAY / "tensorboard.yaml").read_text())))[0]
    container = pod["containers"][0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    changed = {
        "0.0.0.0": "127.0.0.1",
        "6006": port,
        "s3://REPLACE_ME_BUCKET/archive/runs": "s3://replace-me-bucket/archive/runs",
    }
    program, *words = [changed.get(word, word) for word in [*container["command"], *container["args"]]]
    environment = {name: value for name, value in os.environ.items() if name in _named(container) or name in KEPT}
    assert "AWS_ENDPOINT_URL" in environment
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([str(BIN / program), *words], env=environment, **quiet) as server:
        try:
            wait_for(lambda: _asked(f"http://127.0.0.1:{port}/data/runs") == ["lora"], 90)
        finally:
            server.kill()


KEPT = ("PATH", "HOME", "AWS_EC2_METADATA_DISABLED", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")


def _named(container: dict[str, Any]) -> set[str]:
    return {variable["name"] for variable in container["env"]}


def _asked(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError):
        return None
