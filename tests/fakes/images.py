"""Images whose files look like packages: dpkg's lists and dist-info folders included, nothing unpacked."""

from collections.abc import Mapping, Sequence

from fakes.trees import key, make_piece

from mlbox.codec import canonical_json
from mlbox.lock.file import encode_lock
from mlbox.lock.model import Base, Deb, Lock, Package, Target
from mlbox.oci.artifact import LOCK_TYPE, artifact_of, subject_of
from mlbox.oci.image import ContainerConfig, History, Image, ImageConfig, RootFS, image_of
from mlbox.store.store import Store

SITE = "opt/mlbox/env/lib/python3.11/site-packages"
TARGET = Target(arch="amd64", python="3.11", python_full="3.11.2", glibc="2.36")


def wheel(name: str, version: str = "1.0", requires: Sequence[str] = (), **files: bytes) -> dict[str, bytes]:
    """Return an installed Python package; `files` by module name, or path with '__' for '/'."""
    info = f"{SITE}/{name}-{version}.dist-info"
    own = {f"{SITE}/{path.replace('__', '/')}": data for path, data in files.items()}
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}\nRequires-Dist: nothing\n".encode()
    paths = [path.removeprefix(f"{SITE}/") for path in own]
    record = "".join(f"{path},,\n" for path in (*paths, f"{name}-{version}.dist-info/METADATA")).encode()
    return {**own, f"{info}/METADATA": metadata, f"{info}/RECORD": record}


def debs(*packages: tuple[str, str, str, Mapping[str, bytes]]) -> dict[str, bytes]:
    """Return installed Debian packages: name, version, further lines of the stanza, files."""
    files: dict[str, bytes] = {}
    status = ""
    for name, version, more, own in packages:
        status += f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n{more}\n"
        listing = "/.\n/usr\n" + "".join(f"/{path}\n" for path in own)
        files |= {**own, f"var/lib/dpkg/info/{name}.list": listing.encode()}
    return {**files, "var/lib/dpkg/status": status.encode()}


def make_image(
    store: Store,
    layers: Mapping[str, Mapping[str, bytes | str | int]],
    *,
    config: ContainerConfig | None = None,
    lock: Lock | None = None,
    name: str = "",
) -> Image:
    """Return an image of `layers` (name: files), with its lock attached and `name` when they are given."""
    built = [
        store.layers.assemble(key(repr(files)), layer, [make_piece(store, repr(sorted(files.items())), files)])
        for layer, files in layers.items()
    ]
    image = image_of(
        ImageConfig(
            architecture="amd64",
            os="linux",
            config=config or ContainerConfig(working_dir="/workspace", env=("A=1",)),
            rootfs=RootFS(diff_ids=tuple(layer.diff_id for layer in built)),
            history=tuple(History(created_by=f"mlbox: {layer.name}") for layer in built),
        ),
        tuple(layer.descriptor for layer in built),
    )
    store.images.add(image)
    if lock is not None:
        subject = subject_of(image.digest, image.manifest_bytes)
        store.referrers.add(artifact_of(LOCK_TYPE, encode_lock(lock)), subject)
    if name:
        from mlbox.oci.reference import parse_reference

        store.images.tag(image.digest, parse_reference(name))
    return image


def package(name: str, version: str = "1.0", *, requires: Sequence[str] = (), wanted_by: Sequence[str] = ()) -> Package:
    """Return a locked wheel."""
    return Package(
        name=name,
        version=version,
        filename=f"{name.replace('-', '_')}-{version}-py3-none-any.whl",
        sha256=key(f"{name} {version}"),
        size=1000,
        requires=tuple(requires),
        wanted_by=tuple(wanted_by),
    )


def lock_of(*packages: Package, debs: Sequence[tuple[str, str]] = (), system: Sequence[str] = ()) -> Lock:
    """Return a lock of these packages; `debs` are name and role."""
    return Lock(
        inputs="sha256:" + key(canonical_json(packages).decode()),
        target=TARGET,
        base=Base(suite="bookworm"),
        system_packages=tuple(system),
        packages=packages,
        debs=tuple(
            Deb(
                name=name,
                version="1",
                arch="amd64",
                path=f"pool/{name}_1_amd64.deb",
                sha256=key(name),
                size=100,
                suite="bookworm",
                role="base" if role == "base" else "system",
            )
            for name, role in debs
        ),
    )
