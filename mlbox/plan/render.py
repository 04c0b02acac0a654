"""A build plan as text for people, as JSON for programs, and as the Dockerfile that says the same."""

from collections.abc import Mapping

import msgspec

from mlbox.codec import canonical_json
from mlbox.lock.model import Lock, Package
from mlbox.plan.base import pinned
from mlbox.plan.model import PREFIX, BuildPlan, ImageLayerPiece, LayerPlan
from mlbox.project.model import Source
from mlbox.units import mega


class LayerState(msgspec.Struct, frozen=True, kw_only=True):
    """What the store already has of one planned layer."""

    built: bool = False
    size: int = 0
    """Bytes of the layer's tar when it is built; else 0."""
    fetch: int = 0
    """Bytes of artifacts that are still to be downloaded."""
    unpacked: int = 0
    """How many of its pieces are already unpacked."""


def as_text(plan: BuildPlan, states: Mapping[str, LayerState], sources: tuple[Source, ...]) -> str:
    """Return the plan as lines; `states` by layer key."""
    lines = [_source_line(source) for source in sources]
    lines.append(f"{'layer':<28} {'pieces':>6}  {'size':>10}  state")
    lines += [_layer_line(layer, states.get(layer.key, LayerState())) for layer in plan.layers]
    fetch = sum(state.fetch for state in states.values())
    size = sum(state.size for state in states.values())
    lines.append(f"{len(plan.layers)} layers, {mega(size)} built, {mega(fetch)} to download")
    return "\n".join(lines)


def as_json(plan: BuildPlan, states: Mapping[str, LayerState], sources: tuple[Source, ...]) -> str:
    """Return the plan as one JSON document with every layer's key, pieces and state."""
    document = {
        "key": plan.key,
        "arch": plan.arch,
        "epoch": plan.epoch,
        "base": plan.base,
        "config": plan.config,
        "sources": sources,
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "key": layer.key,
                "reason": layer.reason,
                "pieces": layer.pieces,
                "state": states.get(layer.key, LayerState()),
            }
            for layer in plan.layers
        ],
    }
    return msgspec.json.format(canonical_json(document), indent=2).decode()


def as_dockerfile(plan: BuildPlan, lock: Lock) -> str:
    """Return a Dockerfile that needs no mlbox and installs the same versions.

    It runs apt and pip, so its image is equivalent in what it holds, not equal in bytes.
    """
    lines = [
        f"FROM {pinned(plan.base) if plan.base else f'debian:{lock.base.suite}-slim'}",
        *_system_packages(plan, lock),
        f"RUN {_interpreter(plan, lock)} -m venv /{PREFIX}",
        "COPY <<'EOF' /tmp/requirements.txt",
        *(_requirement(package) for package in lock.packages),
        "EOF",
        f"RUN /{PREFIX}/bin/pip install --no-cache-dir --no-deps{_require_hashes(lock)} -r /tmp/requirements.txt",
        *(f"ENV {name}={_quoted(value)}" for name, _, value in (item.partition("=") for item in plan.config.env)),
        *(f"LABEL {name}={_quoted(value)}" for name, value in sorted(plan.config.labels.items())),
        f"WORKDIR {plan.config.working_dir}",
        "COPY . .",
    ]
    if plan.layers[-1].pieces and getattr(plan.layers[-1].pieces[0], "package", None):
        lines.append(f"RUN /{PREFIX}/bin/pip install --no-cache-dir --no-deps -e .")
    if plan.config.user:
        lines.append(f"USER {plan.config.user}")
    lines += [f"EXPOSE {port}" for port in plan.config.exposed_ports]
    if plan.config.entrypoint:
        lines.append(f"ENTRYPOINT {_exec_form(plan.config.entrypoint)}")
    if plan.config.cmd:
        lines.append(f"CMD {_exec_form(plan.config.cmd)}")
    return "\n".join(lines) + "\n"


def _system_packages(plan: BuildPlan, lock: Lock) -> list[str]:
    system = [f"{deb.name}={deb.version}" for deb in lock.debs if deb.role == "system"]
    python = ["python3", "python3-venv", "ca-certificates", "libgomp1"]
    if plan.base:
        python = ["python3-venv"] if system and not plan.base.home else []
    if not (python or system):
        return []
    return [
        "RUN apt-get update && apt-get install -y --no-install-recommends \\",
        *(f"      {name} \\" for name in (*python, *system)),
        " && rm -rf /var/lib/apt/lists/*",
    ]


def _interpreter(plan: BuildPlan, lock: Lock) -> str:
    return f"{plan.base.home}/python{lock.target.python}" if plan.base and plan.base.home else "python3"


def _source_line(source: Source) -> str:
    return f"{'read' if source.used else 'left'}  {source.path}: {source.reason}"


def _layer_line(layer: LayerPlan, state: LayerState) -> str:
    size = mega(state.size) if state.built else "-"
    return f"{layer.name[:28]:<28} {len(layer.pieces):>6}  {size:>10}  {_state(layer, state)}; {layer.reason}"


def _state(layer: LayerPlan, state: LayerState) -> str:
    if state.built:
        return "cached"
    if isinstance(layer.pieces[0], ImageLayerPiece):
        return f"to fetch, {mega(state.fetch)}"
    if state.fetch:
        return f"to build, downloads {mega(state.fetch)}"
    missing = len(layer.pieces) - state.unpacked
    return f"to build, {missing} to unpack" if missing else "to assemble"


def _require_hashes(lock: Lock) -> str:
    # pip refuses a git checkout in this mode: its commit is the hash.
    return "" if any(package.commit for package in lock.packages) else " --require-hashes"


def _requirement(package: Package) -> str:
    if package.commit:
        fragment = f"#subdirectory={package.subdirectory}" if package.subdirectory else ""
        return f"{package.name} @ git+{package.url}@{package.commit}{fragment}"
    pin = f"{package.name} @ {package.url}" if package.url else f"{package.name}=={package.version}"
    return f"{pin} --hash=sha256:{package.sha256}"


def _quoted(value: str) -> str:
    # Inside double quotes a Dockerfile still expands '$'.
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def _exec_form(argv: tuple[str, ...]) -> str:
    return msgspec.json.encode(argv).decode()
