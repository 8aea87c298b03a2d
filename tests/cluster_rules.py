"""cluster_rules: what must hold of the files in cluster/, as lists of faults; an empty list is a good file.

Reads   the text of a file, so that a test can hand in one with a fault in it
Asks    Ray's own schema for its launcher and the clouds' for machines, KubeRay's for its kinds, Kubernetes' for the
        others; then rules of our own
"""

from __future__ import annotations

import gzip
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
import click
import jsonschema
import kubernetes_validate
import yaml
from botocore.validate import ParamValidator

from raydist import __version__

ROOT = Path(__file__).resolve().parent.parent
KUBERAY = {"RayCluster": "kuberay-raycluster", "RayJob": "kuberay-rayjob"}
PLACEHOLDER = "REPLACE_ME"

SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)
"""Of a variable that holds one; RAY_AUTH_MODE and AWS_REGION do not."""
SECRET_TEXT = re.compile(r"AKIA[0-9A-Z]{16}|AIza[\w-]{30}|hf_\w{20}|sk-\w{20}|-----BEGIN|://[^/\s:]+:[^/\s@]+@")
"""What keys of Amazon, Google, the hub and OpenAI look like, private keys, and passwords in addresses."""


def ray_version() -> str:
    """The one that raydist's pins name."""
    return next(
        line.partition("==")[2].strip()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.startswith("ray==")
    )


@cache
def schema(name: str) -> jsonschema.Draft202012Validator:
    """A schema of KubeRay or Google that lies beside the tests."""
    with gzip.open(ROOT / "tests" / "data" / f"{name}.json.gz") as file:
        return jsonschema.Draft202012Validator(json.load(file))


def kubernetes(text: str, secrets: dict[str, set[str]]) -> list[str]:
    """Faults of a file of Kubernetes documents.

    Args:
        text: the file's.
        secrets: name of a secret -> its keys, as the example of secrets has them.
    """
    faults = _texts(text)
    for document in yaml.safe_load_all(text):
        kind, name = document.get("kind", "?"), document.get("metadata", {}).get("name", "?")
        # The rules below count on the shape that the schema gives.
        found = _schema_faults(kind, document) or _own_faults(kind, document, secrets)
        faults += [f"{kind}/{name}: {fault}" for fault in found]
    return faults


def _own_faults(kind: str, document: dict[str, Any], secrets: dict[str, set[str]]) -> list[str]:
    return [
        *_secret_faults(document, secrets),
        *_service_faults(kind, document),
        *(fault for pod in pods(document) for fault in _pod_faults(pod)),
        *(fault for spec in ray_specs(document) for fault in _ray_faults(spec, secrets)),
    ]


def secret_keys(text: str) -> dict[str, set[str]]:
    """Name -> keys of the secrets in a file, those in comments too: they are the optional ones."""
    documents = yaml.safe_load_all(re.sub(r"^( *)# ([A-Z_]+: REPLACE_ME)$", r"\1\2", text, flags=re.MULTILINE))
    return {document["metadata"]["name"]: set(document["stringData"]) for document in documents}


def every(value: Any) -> Iterator[dict[str, Any]]:
    """All mappings in a document, from the outside in."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from every(part)
    elif isinstance(value, list):
        for part in value:
            yield from every(part)


def pods(document: Any) -> list[dict[str, Any]]:
    """The pods' specs in a document."""
    return [part for part in every(document) if isinstance(part.get("containers"), list)]


def ray_specs(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The clusters' specs in a document."""
    return [part for part in every(document) if "headGroupSpec" in part]


def _texts(text: str) -> list[str]:
    return [f"it holds what looks like a secret: {found[:12]}…" for found in SECRET_TEXT.findall(text)]


def _schema_faults(kind: str, document: dict[str, Any]) -> list[str]:
    if kind in KUBERAY:
        if document.get("apiVersion") != "ray.io/v1":
            return [f"apiVersion is {document.get('apiVersion')!r}, expected 'ray.io/v1'"]
        found = schema(KUBERAY[kind]).iter_errors(document)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]
    try:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message[:200]}"]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [error.message]
    return []


def _secret_faults(document: dict[str, Any], secrets: dict[str, set[str]]) -> list[str]:
    faults = []
    if document.get("kind") == "Secret":
        faults += ["its values are not placeholders"] if "data" in document else []
        faults += [
            f"{key} is no placeholder" for key, value in document.get("stringData", {}).items() if value != PLACEHOLDER
        ]
    for part in every(document):
        if SECRET_NAME.search(str(part.get("name", ""))) and "value" in part:
            faults.append(f"{part['name']} has a literal value: take it from a secret")
        if reference := part.get("secretKeyRef"):
            name, key = reference.get("name"), reference.get("key")
            if key not in secrets.get(name, ()):
                faults.append(f"secret.example.yaml has no {name}/{key}")
        if (reference := part.get("secretRef")) and reference.get("name") not in secrets:
            faults.append(f"secret.example.yaml has no {reference.get('name')}")
        if "env_vars" in str(part.get("runtimeEnvYAML", "")):
            faults.append("a runtime environment with variables: everyone who sees the dashboard reads them")
    return faults


def _service_faults(kind: str, document: dict[str, Any]) -> list[str]:
    stated = [part["serviceType"] for part in every(document) if "serviceType" in part]
    if kind == "Service":
        stated.append(document.get("spec", {}).get("type"))
    faults = [
        f"a service of type {type_}: it must be reached by a port-forward alone"
        for type_ in stated
        if type_ != "ClusterIP"
    ]
    if kind == "Ingress" or any(part.get("enableIngress") for part in every(document)):
        faults.append("an ingress: Ray's job port runs any code that it is sent")
    return faults


def _pod_faults(pod: dict[str, Any]) -> list[str]:
    security, faults = pod.get("securityContext") or {}, []
    if not (security.get("runAsNonRoot") and security.get("runAsUser") and security.get("runAsGroup")):
        faults.append("a pod may run as root: runAsNonRoot, runAsUser and runAsGroup are needed")
    if pod.get("enableServiceLinks") is not False:
        faults.append("enableServiceLinks is not false: variables of services named raydist-... look like settings")
    faults += [f"a pod with {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    faults += [f"volume {volume['name']} is the machine's" for volume in pod.get("volumes", []) if "hostPath" in volume]
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    everyone = [*pod["containers"], *pod.get("initContainers", [])]
    images = {container.get("image") for container in everyone}
    faults += (
        [f"a node would fetch {len(images)} images: {', '.join(sorted(map(str, images)))}"] if len(images) > 1 else []
    )
    for container in everyone:
        faults += [f"container {container['name']}: {fault}" for fault in _container_faults(container, volumes)]
    return faults


def _container_faults(container: dict[str, Any], volumes: dict[str, Any]) -> list[str]:
    faults = image_faults(container.get("image", ""))
    security = container.get("securityContext") or {}
    if security.get("runAsUser") == 0 or security.get("runAsNonRoot") is False or security.get("privileged"):
        faults.append("runs as root")
    if security.get("allowPrivilegeEscalation") is not False or security.get("capabilities") != {"drop": ["ALL"]}:
        faults.append("may gain rights: allowPrivilegeEscalation: false and capabilities drop ALL are needed")
    resources = container.get("resources") or {}
    for part in ("requests", "limits"):
        faults += [f"no {part} of {name}" for name in ("cpu", "memory") if name not in resources.get(part, {})]
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes:
            faults.append(f"mounts {mount['name']}, which the pod does not have")
        if mount["mountPath"] == "/dev/shm":
            faults += _shared_memory_faults(volumes.get(mount["name"], {}), resources)
    return faults


def _shared_memory_faults(volume: dict[str, Any], resources: dict[str, Any]) -> list[str]:
    folder = volume.get("emptyDir") or {}
    if folder.get("medium") != "Memory" or "sizeLimit" not in folder:
        return ["/dev/shm is no emptyDir of medium Memory with a sizeLimit"]
    share = _gib(folder["sizeLimit"]) / _gib(resources["limits"]["memory"])
    # Ray takes 30 % of a node's memory for its object store, and goes to /tmp where /dev/shm is smaller.
    return [] if 0.1 <= share <= 0.5 else [f"/dev/shm is {share:.0%} of the container's memory, expected 10 to 50 %"]


def _gib(quantity: str) -> float:
    if not (found := re.fullmatch(r"(\d+)Gi", quantity)):
        raise ValueError(f"{quantity!r} is not in Gi")
    return float(found[1])


def image_faults(image: str) -> list[str]:
    """Faults of an image's name: it is pinned, and raydist's is of this version."""
    name, _, tag = image.rpartition(":")
    if "@sha256:" in image:
        return []
    if not name or "/" in tag or tag in ("latest", "nightly", "main"):
        return [f"image {image!r} is not pinned"]
    if name.endswith("/raydist") and tag.removesuffix("-cuda") != __version__:
        return [f"image {image!r} is not of raydist {__version__}"]
    return []


def _ray_faults(spec: dict[str, Any], secrets: dict[str, set[str]]) -> list[str]:
    faults = []
    if spec.get("rayVersion") != ray_version():
        faults.append(f"rayVersion is {spec.get('rayVersion')!r}, constraints.txt has {ray_version()}")
    auth = spec.get("authOptions") or {}
    if auth.get("mode") != "token" or "auth_token" not in secrets.get(auth.get("secretName"), ()):
        faults.append("no token with `auth_token` of a secret in the example: anyone in the network could submit jobs")
    if spec.get("enableInTreeAutoscaling") is not True:
        faults.append("no autoscaling")
    cpus = gpus = 0
    for group in spec.get("workerGroupSpecs", []):
        if not 0 <= group.get("minReplicas", -1) < group.get("maxReplicas", 0):
            faults.append(f"group {group.get('groupName')} does not grow: minReplicas must be less than maxReplicas")
        pod = group["template"]["spec"]
        if not pod.get("tolerations") or "nodeAffinity" not in str(pod.get("affinity")):
            faults.append(f"group {group.get('groupName')} says nothing of spot machines")
        limits = pod["containers"][0].get("resources", {}).get("limits", {})
        cpus += group.get("maxReplicas", 0) * int(limits.get("cpu", 0))
        gpus += group.get("maxReplicas", 0) * int(limits.get("nvidia.com/gpu", 0))
        if ("nvidia.com/gpu" in limits) != pod["containers"][0].get("image", "").endswith("-cuda"):
            faults.append(f"group {group.get('groupName')}: GPUs and the image with CUDA belong together")
    head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    told = {variable["name"]: variable.get("value") for variable in head.get("env", [])}
    wanted = {"RAYDIST_RAY_MAX_CPUS": str(cpus), "RAYDIST_RAY_MAX_GPUS": str(gpus)}
    faults += [f"the head has no {name}={value}" for name, value in wanted.items() if told.get(name) != value]
    return faults if gpus else [*faults, "no group has GPUs"]


def launcher(text: str) -> list[str]:
    """Faults of a file of Ray's cluster launcher."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    faults, config = _texts(text), yaml.safe_load(text)
    try:
        prepared = prepare_config(config)
        validate_config(prepared)
    except (jsonschema.ValidationError, ValueError, KeyError, AssertionError, SystemExit) as error:
        return [*faults, f"Ray refuses it: {str(getattr(error, 'message', error))[:200]}"]
    for part in every(prepared):
        faults += [fault for key in part if key.endswith("image") for fault in image_faults(part[key])]
    options = prepared["docker"]["run_options"]
    if "--env RAY_AUTH_MODE=token" not in options or "/home/ray/.ray/auth_token" not in prepared["file_mounts"]:
        faults.append("no token: anyone who reaches the head could submit jobs")
    if not any(re.fullmatch(r"--env RAY_local_fs_capacity_threshold=0\.[0-8]\d*", option) for option in options):
        faults.append("Ray may fill the machine's disk: RAY_local_fs_capacity_threshold is not set to less than 0.9")
    faults += [f"docker: {option}" for option in options if re.search(r"--privileged|--user[ =]0|root", option)]
    faults += [f"a literal secret: {option.partition('=')[0]}" for option in options if _literal_secret(option)]
    head = " ".join(prepared["head_start_ray_commands"])
    if "--dashboard-host=127.0.0.1" not in head:
        faults.append("the dashboard is not bound to 127.0.0.1")
    faults += _start_faults([*prepared["head_start_ray_commands"], *prepared["worker_start_ray_commands"]])
    return [*faults, *_node_faults(prepared)]


def read_by_ray(words: list[str]) -> click.Context:
    """Let Ray's command line read the words behind `ray`, without running what they say.

    Raises:
        click.UsageError: no such command or option, or a value of another type.
    """
    from ray.scripts.scripts import cli

    command: click.Command = cli
    parent: click.Context | None = None
    name = "ray"
    while isinstance(command, click.Group):
        parent = click.Context(command, info_name=name, parent=parent)
        name, *words = words
        found = command.get_command(parent, name)
        if found is None:
            raise click.UsageError(f"Ray has no command {name!r}")
        command = found
    return command.make_context(name, list(words), parent=parent)


def _start_faults(commands: list[str]) -> list[str]:
    faults = []
    for words in (shlex.split(part) for command in commands for part in command.split(";")):
        if words and words[0] == "ray":
            try:
                read_by_ray(words[1:])
            except click.UsageError as error:
                faults.append(f"`{' '.join(words)}`: {error.message}")
    return faults


def _literal_secret(option: str) -> bool:
    name, _, value = option.removeprefix("--env ").partition("=")
    return option.startswith("--env ") and bool(value) and SECRET_NAME.search(name) is not None


def _machine_faults(provider: str, config: dict[str, Any]) -> list[str]:
    """Faults of what Ray hands on to the cloud, by the cloud's own description of its API."""
    if provider == "gcp":
        found = schema("gce-instance").iter_errors(config)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]
    service = _amazon()
    asked = service.operation_model("RunInstances").input_shape
    report = ParamValidator().validate(config | {"MinCount": 1, "MaxCount": 1}, asked)
    kinds = getattr(service.shape_for("InstanceType"), "enum", [])
    known = config["InstanceType"] in kinds
    return [
        *report.generate_report().splitlines(),
        *([] if known else [f"no instance type {config['InstanceType']!r}"]),
    ]


@cache
def _amazon() -> Any:
    return botocore.session.Session().get_service_model("ec2")


def _node_faults(prepared: dict[str, Any]) -> list[str]:
    faults, gpus = [], 0
    types, provider = prepared["available_node_types"], prepared["provider"]["type"]
    if provider == "local":
        node = types["local.cluster.node"]
        count = len(prepared["provider"]["worker_ips"])
        is_whole = node["min_workers"] == node["max_workers"] == count
        return [] if is_whole else [f"machines stay out: min_workers and max_workers must be {count}, as worker_ips"]
    for name, node in types.items():
        if found := _machine_faults(provider, node["node_config"]):
            faults += [f"{name}: {fault}" for fault in found]
            continue
        spot = "'MarketType': 'spot'" in str(node["node_config"]) or "'SPOT'" in str(node["node_config"])
        gpus += node["resources"].get("GPU", 0)
        if name == prepared["head_node_type"]:
            faults += ["the head may vanish: it is a spot machine"] if spot else []
            faults += ["decoders may run on the head: CPU is not 0"] if node["resources"].get("CPU") != 0 else []
            continue
        faults += [] if spot else [f"{name} is no spot machine"]
        if not 0 <= node.get("min_workers", 0) < node["max_workers"]:
            faults.append(f"{name} does not grow: min_workers must be less than max_workers")
    return faults if gpus else [*faults, "no machine has a GPU"]
