"""The bundle: one file that carries images to a place without a network, and how its bytes follow from its contents.

A bundle is a plain tar. Its members, in this order:

    bundle.json         the contents: canonical JSON of `Contents`. Its digest is the bundle's
    bundle.sha256       that digest, as `sha256sum -c` reads it: with it no byte of the file can change unseen
    oci-layout          what makes the tar an OCI image layout ('oci-archive:' of skopeo and podman)
    index.json          one entry per name of each image that was asked for; empty when layers are left out, as others
                        could not add them
    blobs/sha256/HEX    everything else, each once, named by its sha256: the small documents first (configurations,
                        manifests, what is about the images), then the layers, then wheels, .debs and sdists

The contents name every blob with its size, in order, so that every byte of the tar but those of blobs follows from
bundle.json. A reader does not parse the tar: it compares each header with the only one that can stand there, and each
blob with its name. There is no path to climb with, no second member of a name, no size to lie about, and a blob can be
checked while it is read or without reading what is before it. Equal contents give equal bytes.

An image travels as its configuration and its layers. Layers are compressed, in the form that a push would upload, under
a manifest for other tools; the image's own digest, that of uncompressed layers, follows from the configuration and the
sizes of the tars, and is compared before anything is named. Wheels and .debs are compressed files already and stay
as they are.

A *delta* is a bundle that lacks something which the store that it is for has. Each layer says how it comes to be there:
its 'blob' is in the bundle, it is 'there' already, or it is 'made' there from the files of its packages by the image's
build plan, which travels with the image. Whatever is said, the layer's diffID decides.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from mlbox.codec import canonical_json
from mlbox.oci.digest import DiffID, Digest, digest_of, hex_of
from mlbox.oci.image import MANIFEST, Descriptor, Document, ImageIndex, Platform
from mlbox.oci.layer import END, Entry, header, padding
from mlbox.oci.reference import parse_reference

FORMAT = 1
"""What these rules are called: whatever changes the tar that equal contents lead to raises it."""
CONTENTS = "bundle.json"
CONTENTS_LIMIT = 16 << 20
"""The largest bundle.json that is read, in bytes: room for some ten thousand files."""
REF_NAME = "org.opencontainers.image.ref.name"
MARKER = canonical_json({"imageLayoutVersion": "1.0.0"})

Way = Literal["blob", "there", "made"]


class Closed(Document, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what stands in bundle.json: a key that this mlbox does not know is of a newer one."""


class BundledLayer(Closed, frozen=True, kw_only=True):
    """One layer, and how the receiving store comes by it."""

    diff_id: DiffID
    size: int
    """Bytes of its tar."""
    name: str
    """What people call it."""
    way: Way
    blob: Descriptor | None = None
    """Its compressed form, when that is in the bundle."""


class BundledImage(Closed, frozen=True, kw_only=True):
    """One image; its layers are those of its configuration."""

    digest: Digest
    names: tuple[str, ...]
    config: Descriptor
    architecture: str
    os: str
    manifest: Descriptor | None = None
    """The manifest with compressed layers, for other tools; there is none when layers are left out."""
    below: bool = False
    """Whether it came along because another image stands on it: it takes no name that another image has."""


class BundledRemote(Closed, frozen=True, kw_only=True):
    """A manifest or index by which the image is known in a registry."""

    image: Digest
    repository: str
    manifest: Descriptor


class BundledReferrer(Closed, frozen=True, kw_only=True):
    """A document about an image: its manifest and the blobs of that."""

    subject: Digest
    manifest: Descriptor
    blobs: tuple[Descriptor, ...]


class BundledFile(Closed, frozen=True, kw_only=True):
    """A wheel, .deb or sdist that an image was built from."""

    digest: Digest
    size: int
    filename: str
    there: bool = False
    """Whether the receiving store has it, so that the bundle does not."""
    built: tuple[str, ...] = ()
    """Keys of the pieces that it is the wheel of, when it was built from source: no index has it."""


class Contents(Closed, frozen=True, kw_only=True):
    """All of bundle.json; every list is sorted by what identifies its items."""

    format: int
    images: tuple[BundledImage, ...]
    layers: tuple[BundledLayer, ...]
    remotes: tuple[BundledRemote, ...] = ()
    referrers: tuple[BundledReferrer, ...] = ()
    """In the order in which they are to be kept: what another one is about comes first."""
    files: tuple[BundledFile, ...] = ()
    pieces: tuple[str, ...] = ()
    """Keys of unpacked files which the receiving store must have, because layers are made from them."""
    since: tuple[Digest, ...] = ()
    """The bundles that the receiving store was said to have loaded."""

    @property
    def is_delta(self) -> bool:
        """Whether something is left out, so that only a store which has it can load the bundle."""
        return not self.has_all_layers or any(file.there for file in self.files)

    @property
    def has_all_layers(self) -> bool:
        """Whether other tools can read the images."""
        return all(layer.way == "blob" for layer in self.layers)


class Member(NamedTuple):
    """One file of the tar: where it begins, header included, and what it is called."""

    path: str
    size: int
    offset: int

    @property
    def header(self) -> bytes:
        """The only header that this member can have."""
        return header(Entry(self.path, "file", 0o644, size=self.size))

    @property
    def start(self) -> int:
        """Where the content begins."""
        return self.offset + len(self.header)

    @property
    def end(self) -> int:
        """Where the next member begins."""
        return self.start + self.size + len(padding(self.size))


class Frame(NamedTuple):
    """The whole tar of some contents, but for the blobs."""

    head: bytes
    """Everything before the first blob."""
    blobs: dict[Digest, Member]
    """In their order."""
    size: int
    """Bytes of the tar."""


def frame_of(contents: Contents) -> Frame:
    """Return the tar that `contents` lead to."""
    data = canonical_json(contents)
    documents = {
        CONTENTS: data,
        "bundle.sha256": f"{hex_of(digest_of(data))}  {CONTENTS}\n".encode(),
        "oci-layout": MARKER,
        "index.json": index_of(contents),
    }
    parts = [
        header(Entry(path, "file", 0o644, size=len(data))) + data + padding(len(data))
        for path, data in documents.items()
    ]
    head = b"".join((*parts, header(Entry("blobs", "dir", 0o755)), header(Entry("blobs/sha256", "dir", 0o755))))
    blobs: dict[Digest, Member] = {}
    offset = len(head)
    for descriptor in blobs_of(contents):
        if descriptor.digest not in blobs:
            member = Member(f"blobs/sha256/{hex_of(descriptor.digest)}", descriptor.size, offset)
            blobs[descriptor.digest] = member
            offset = member.end
    return Frame(head, blobs, offset + len(END))


def blobs_of(contents: Contents) -> Iterator[Descriptor]:
    """Yield every blob of the bundle in its order; one may come again."""
    yield from documents_of(contents)
    yield from (layer.blob for layer in contents.layers if layer.blob)
    yield from (_plain(file) for file in contents.files if not file.there)


def documents_of(contents: Contents) -> Iterator[Descriptor]:
    """Yield the small blobs in their order; one may come again."""
    for image in contents.images:
        yield image.config
        if image.manifest:
            yield image.manifest
    yield from (remote.manifest for remote in contents.remotes)
    for referrer in contents.referrers:
        yield referrer.manifest
        yield from referrer.blobs


def digest_of_bundle(contents: Contents) -> Digest:
    """Return the bundle's digest: everything in it follows from its contents."""
    return digest_of(canonical_json(contents))


def index_of(contents: Contents) -> bytes:
    """Return index.json, by which other tools find the images of a full bundle."""
    manifests = tuple(entry for image in contents.images if contents.has_all_layers for entry in _entries(image))
    return canonical_json(ImageIndex(manifests=manifests))


def _entries(image: BundledImage) -> Iterator[Descriptor]:
    if image.manifest is None or image.below:
        return
    platform = Platform(architecture=image.architecture, os=image.os)
    for name in image.names or ("",):
        annotations = {REF_NAME: parse_reference(name).familiar} if name else {}
        yield Descriptor(
            media_type=MANIFEST,
            digest=image.manifest.digest,
            size=image.manifest.size,
            annotations=annotations,
            platform=platform,
        )


def _plain(file: BundledFile) -> Descriptor:
    return Descriptor(media_type="application/octet-stream", digest=file.digest, size=file.size)
