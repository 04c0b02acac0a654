"""Images of registries that others stand on: found and looked into while locking, had in the store while building."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from mlbox.build.union import Union
from mlbox.codec import decode_json
from mlbox.engine.trust.admission import admit_kept, admit_locked, admit_pull, admit_run
from mlbox.errors import LockError, NotFoundError, RegistryError
from mlbox.events import Listener
from mlbox.http import is_offline
from mlbox.lock.base import STATUS, Interpreter, System, glibc_of, interpreters, system_of
from mlbox.lock.debian.installed import read_status
from mlbox.lock.model import Arch, Base, BaseLayer
from mlbox.oci.artifact import ArtifactManifest
from mlbox.oci.digest import DiffID, Digest, hex_of
from mlbox.oci.image import Descriptor, ImageConfig, parse_config
from mlbox.oci.reference import Reference, parse_reference
from mlbox.plan.model import PREFIX
from mlbox.store.store import Store
from mlbox.store.tree import Tree

if TYPE_CHECKING:
    from mlbox.registry.client import Registry
    from mlbox.registry.transfer import RemoteImage

_GONE = "ask whoever has it to push it again, or take what the name means now: 'mlbox lock --upgrade'"


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """An image of the store, looked into."""

    root: Union
    system: System
    glibc: str
    env: Mapping[str, str]
    status: bytes
    """dpkg's status file; empty when there is none."""
    installed: Mapping[str, str]
    """Versions of its Debian packages, by name."""
    merged: bool
    """Whether /lib is a link to /usr/lib, so that a newer library takes the place of an older one."""
    interpreters: Sequence[Interpreter]
    entrypoint: tuple[str, ...]
    """What its makers start before every command."""


def find_base(
    store: Store, reference: Reference, arch: Arch, listener: Listener, *, locked: Base | None, locked_arch: str
) -> Base:
    """Return what `reference` means for `arch`, with all layers in the store; its Python is not looked for yet.

    What was `locked`, for `locked_arch`, stays as it is: the tag is not asked again. Raises LockError when the image
    cannot be a base, RegistryError when it cannot be had.
    """
    if locked is not None and locked_arch == arch:
        have_base(store, locked, listener)
        return locked
    asked = reference if locked is None else msgspec.structs.replace(reference, digest=locked.digest)
    with store.using():
        if is_offline() and (known := _of_store(store, asked, str(reference), arch)):
            return known
        listener.step(f"resolve the base {asked.familiar} for {arch}")
        return _of_registry(store, asked, str(reference), arch, listener)


def have_base(store: Store, base: Base, listener: Listener) -> ImageConfig:
    """Have all layers of a locked base in the store, and return its configuration.

    Nothing is asked of the registry when they are there. Raises RegistryError when it no longer has the image,
    LockError when the lock contradicts the image.
    """
    with store.using():
        there = all(store.layers.has(layer.diff_id) for layer in base.layers)
        if not (there and store.content.has(base.config)):
            _fetch(store, base, listener)
        else:
            admit_kept(store, base.reference, (base.manifest, base.digest))
        config = parse_config(store.content.read(base.config), LockError)
    if config.rootfs.diff_ids != tuple(layer.diff_id for layer in base.layers):
        raise LockError(
            f"mlbox.lock contradicts its base {base.reference}: the image's configuration names other layers",
            hint="undo the edit (git restore mlbox.lock), or run 'mlbox lock --upgrade'",
        )
    return config


def look_into(store: Store, base: Base, arch: Arch) -> Ground:
    """Return what the image `base`, whose layers are in the store, holds; LockError when nothing can stand on it."""
    layers = [(store.layers.root(one.diff_id), Tree(entries=store.layers.entries(one.diff_id))) for one in base.layers]
    root = Union.of_layers(layers)
    if root.entry(PREFIX) is not None:
        raise LockError(
            f"base {base.reference} has an environment at /{PREFIX} already: mlbox made it, and packages would mix",
            hint="take the image it stands on as the base, and its requirements into this project",
        )
    status = root.read(STATUS, limit=64 << 20) or b""
    installed = {name: one.version for name, one in read_status(status, arch).items()}
    env = dict(item.partition("=")[::2] for item in base.env)
    return Ground(
        root=root,
        system=system_of(root),
        glibc=glibc_of(root, arch, installed, name=base.reference),
        env=env,
        status=status,
        installed=installed,
        merged=root.resolve("lib") == "usr/lib",
        interpreters=interpreters(root, env),
        entrypoint=parse_config(store.content.read(base.config), LockError).config.entrypoint or (),
    )


def _of_registry(store: Store, asked: Reference, name: str, arch: Arch, listener: Listener) -> Base:
    from mlbox.registry.client import open_registry
    from mlbox.registry.pull import fetch_layers, keep
    from mlbox.registry.transfer import resolve

    registry = open_registry(asked.registry, listener=listener)
    remote = resolve(registry, asked, arch)
    admit_pull(store, registry, asked, remote.subjects)
    if remote.is_thin:
        raise LockError(f"base {name} is a thin image, which has no layers of its own", hint="push it without --thin")
    digests = (remote.index[0] if remote.index else remote.digest, remote.digest, remote.manifest.config.digest)
    base = _base(name, digests, remote.config, [remote.blobs[one] for one in remote.config.rootfs.diff_ids], arch)
    fetch_layers(store, registry, remote, listener)
    keep(store, remote, (_local_name(base),))
    return base


def _of_store(store: Store, asked: Reference, name: str, arch: Arch) -> Base | None:
    """Return what the store knows under that name, without a network; it must have come from that repository."""
    known = store.remotes.image_of(asked.digest, asked.name) if asked.digest else _named(store, asked)
    if known is None:
        return None
    image = store.images.load(known)
    index = manifest = layers = None
    for remote in store.remotes.of(known):
        if remote.repository == asked.name and store.content.has(remote.digest):
            data = store.content.read(remote.digest)
            try:
                document = decode_json(data, ArtifactManifest, what=remote.digest, error=RegistryError)
            except RegistryError:
                index = remote.digest
            else:
                manifest, layers = remote.digest, document.layers
    if manifest is None or layers is None or not all(store.layers.has(one) for one in image.config.rootfs.diff_ids):
        return None
    admit_run(store, name, image)
    return _base(name, (index or manifest, manifest, image.manifest.config.digest), image.config, layers, arch)


def _named(store: Store, reference: Reference) -> Digest | None:
    try:
        return store.images.resolve(str(reference))
    except NotFoundError:
        return None


def _base(
    name: str, digests: tuple[Digest, Digest, Digest], config: ImageConfig, blobs: Sequence[Descriptor], arch: Arch
) -> Base:
    """Return the image as a lock names it; `digests` are those of what the name means, the manifest and the config."""
    if config.architecture != arch:
        raise LockError(
            f"base {name} is for {config.architecture}, not for {arch}",
            hint=f"take one that is for {arch}, or 'mlbox lock --arch {config.architecture}'",
        )
    if len(blobs) != len(config.rootfs.diff_ids) or not blobs:
        raise LockError(f"base {name} has {len(blobs)} layers and {len(config.rootfs.diff_ids)} diffIDs")
    digest, manifest, config_digest = digests
    return Base(
        kind="image",
        reference=name,
        digest=digest,
        manifest=manifest,
        config=config_digest,
        user=config.config.user,
        env=tuple(item for item in config.config.env if "=" in item),
        labels=tuple(f"{key}={value}" for key, value in sorted(config.config.labels.items())),
        layers=tuple(
            BaseLayer(digest=blob.digest, diff_id=diff_id, size=blob.size, media_type=blob.media_type)
            for diff_id, blob in zip(config.rootfs.diff_ids, blobs, strict=True)
        ),
    )


def _local_name(base: Base) -> Reference:
    """Return the name the base has in the store; a prune leaves what has a name."""
    reference = parse_reference(base.reference)
    if reference.digest is None:
        return reference
    return msgspec.structs.replace(reference, digest=None, tag=f"locked-{hex_of(base.digest)[:12]}")


def _fetch(store: Store, base: Base, listener: Listener) -> None:
    """Fetch a locked base from its registry, by digest."""
    from mlbox.registry.client import open_registry
    from mlbox.registry.pull import fetch_layers, keep
    from mlbox.registry.transfer import resolve

    reference = parse_reference(base.reference)
    listener.step(f"fetch the base {reference.familiar}")
    registry = open_registry(reference.registry, listener=listener)
    pinned = Reference(registry=reference.registry, repository=reference.repository, digest=base.manifest)
    try:
        remote = resolve(registry, pinned, "")
    except RegistryError as problem:
        raise _gone(registry, reference, base, problem) from problem
    _check(remote, base)
    admit_locked(store, registry, pinned, remote.descriptor, base.digest)
    fetch_layers(store, registry, remote, listener)
    name = _local_name(base)
    keep(store, remote, () if _named(store, name) else (name,))


def _check(remote: "RemoteImage", base: Base) -> None:
    blobs: Mapping[DiffID, Descriptor] = remote.blobs
    if remote.manifest.config.digest != base.config or any(
        one.diff_id not in blobs or blobs[one.diff_id].digest != one.digest for one in base.layers
    ):
        raise LockError(
            f"mlbox.lock contradicts its base {base.reference}: the manifest {base.manifest} names other layers",
            hint="undo the edit (git restore mlbox.lock), or run 'mlbox lock --upgrade'",
        )


def _gone(registry: "Registry", reference: Reference, base: Base, problem: RegistryError) -> RegistryError:
    if problem.status != 404:
        return problem
    now = None
    with suppress(RegistryError):
        now = registry.find(reference.repository, reference.digest or reference.tag)
    means = f"the name now means {now.digest}" if now else "the name is gone too"
    return RegistryError(
        f"base {reference.familiar}: the registry no longer has {base.digest}, which mlbox.lock names; {means}",
        status=404,
        hint=_GONE,
    )
