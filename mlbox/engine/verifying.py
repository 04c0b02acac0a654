"""Is an image what its lock says? Everything is made again from the locked files and compared.

Nothing of the store is believed: files of the lock count only after they were hashed, pieces and layers are made again
in a scratch store, and the layers that lie on the disk are hashed too.
"""

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec

from mlbox.build.activation import read_activation
from mlbox.build.image import assemble_image
from mlbox.build.rebuild import decode_plan
from mlbox.engine.building import ProjectOptions, Workshop
from mlbox.engine.proving import Basis, Remaker, have_tree, project_piece
from mlbox.engine.variants import meant
from mlbox.errors import MlboxError, NotFoundError, UsageError
from mlbox.events import Listener
from mlbox.lock.accelerators import for_accelerator
from mlbox.lock.file import FILENAME, decode_lock, read_lock
from mlbox.lock.model import Lock
from mlbox.oci.digest import DiffID, Digest
from mlbox.oci.image import Image, parse_config
from mlbox.paths import Home
from mlbox.plan.model import BuildPlan, BytecodePiece, CondaConfiguredPiece, ConfiguredPiece, ProjectPiece
from mlbox.plan.planner import ACCELERATOR_LABEL, make_plan
from mlbox.plan.run import run_piece
from mlbox.project.model import Settings
from mlbox.report.diff import config_fields
from mlbox.report.treediff import Difference, compare_hashes, compare_trees, piece_labels
from mlbox.store.fsck import tree_problem
from mlbox.store.layers import Layer
from mlbox.store.store import Store

MOST_DIFFERENCES = 1000

State = Literal["equal", "different", "changed on disk", "not checked", "not asked for"]


class LayerCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one layer."""

    number: int
    """1 is the lowest."""
    name: str
    state: State
    diff_id: DiffID | Literal[""]
    """As the image has it; empty when it lacks the layer."""
    rebuilt: DiffID | Literal[""] = ""
    """As it came out when it was made again; empty when it could not be."""
    reason: str = ""
    """Why it was not checked, or what is wrong beyond the files."""
    differences: tuple[Difference, ...] = ()
    """At most MOST_DIFFERENCES."""
    more: bool = False
    """Whether there are more than those."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of `verify`."""

    image: str
    digest: Digest
    basis: str
    """What it was made again from: 'the attached lock and plan', or a lock's path."""
    layers: tuple[LayerCheck, ...]
    config: State
    manifest: State
    """Of the image's digest, which covers the configuration and all layers."""
    problems: tuple[str, ...] = ()
    """What does not fit besides the layers' files: a plan that is not the lock's, fields of the configuration."""
    notes: tuple[str, ...] = ()
    """What the user should know, but makes no difference."""

    @property
    def ok(self) -> bool:
        """Whether all that was asked for was checked and is equal."""
        states = {layer.state for layer in self.layers} | {self.config, self.manifest}
        return states <= {"equal", "not asked for"} and not self.problems


def verify(
    home: Home,
    listener: Listener,
    *,
    name: str = "",
    project: Path | None = None,
    layer: str = "",
    key: Path | None = None,
) -> Verification:
    """Make an image again and compare it, bit by bit.

    With a `project` folder its mlbox.lock and its files are what the image must follow from (`name` is the
    project's own when it is left out), else the lock and the plan that are attached to the image. `layer` (its
    number or name) restricts the work to one; `key` is a public key that must have signed the image. Raises
    NotFoundError for an image that is not here or has no lock.
    """
    store = Store(home)
    with store.using():
        if project is not None:
            workshop = Workshop(home, ProjectOptions(root=project), listener)
            name = meant(store, name or workshop.default_name.familiar, listener)
            image = store.images.load(store.images.resolve(name))
            basis = _of_project(workshop, image)
        else:
            name = meant(store, name, listener)
            image = store.images.load(store.images.resolve(name))
            basis = _of_image(store, image, name)
        found = _Verifier(store, listener, image, basis, layer).run(name)
    return found if key is None else _with_signature(home, found, key, listener)


def _with_signature(home: Home, found: Verification, key: Path, listener: Listener) -> Verification:
    from mlbox.engine.trust.signing import verify
    from mlbox.trust.keys import load_public

    public = load_public(key)
    if verify(home, found.image, [public], listener=listener).keys:
        return msgspec.structs.replace(found, notes=(*found.notes, f"signed by {public.name}"))
    return msgspec.structs.replace(found, problems=(*found.problems, f"not signed by {public.name}"))


def _of_project(workshop: Workshop, image: Image) -> Basis:
    path = workshop.options.root / FILENAME
    lock = read_lock(path)
    mine = image.config.config.labels.get(ACCELERATOR_LABEL, "")
    lock = for_accelerator(lock, mine if mine in lock.accelerators else lock.target.accelerator)
    return Basis(what=str(path), plan=workshop.plan(lock), lock=lock, project=workshop.project)


def _of_image(store: Store, image: Image, name: str) -> Basis:
    plan_bytes, lock_bytes = store.referrers.plan_of(image.digest), store.referrers.lock_of(image.digest)
    if plan_bytes is None:
        raise NotFoundError(
            f"{name} has no lock and plan attached to make it again from",
            hint=f"'mlbox verify {FILENAME} {name}' in the project's folder uses the lock there",
        )
    plan = decode_plan(plan_bytes)
    lock = decode_lock(lock_bytes, what="the attached lock") if lock_bytes is not None else None
    notes = ("the project's files are those of the image, checked against the plan; -C FOLDER compares the originals",)
    if lock is None:
        return Basis(what="the attached plan", plan=plan, lock=None, project=None, notes=notes)
    problems = tuple(_plan_problems(plan, lock))
    return Basis(what="the attached lock and plan", plan=plan, lock=lock, project=None, problems=problems, notes=notes)


def _plan_problems(plan: BuildPlan, lock: Lock) -> Iterator[str]:
    """Yield in which layers the attached plan is not what the attached lock makes."""
    pieces = [piece for layer in plan.layers for piece in layer.pieces]
    project = next((piece for piece in pieces if isinstance(piece, ProjectPiece)), None)
    scripted = [piece for piece in pieces if isinstance(piece, ConfiguredPiece | CondaConfiguredPiece)]
    settings = Settings(
        bytecode=any(isinstance(piece, BytecodePiece) for piece in pieces),
        configure=tuple(name for piece in scripted for name in piece.packages),
        workdir=project.workdir if project else Settings().workdir,
    )
    try:
        files, package = (project.files, project.package) if project else ((), None)
        own = make_plan(lock, settings, files, package, folders=(project.folders or ()) if project else ())
    except MlboxError as problem:
        yield f"the attached lock makes no plan: {problem.message}"
        return
    # Commands are the project's settings; each names the layers it ran on.
    theirs_of_lock = [layer for layer in plan.layers if run_piece(layer) is None]
    for ours, theirs in itertools.zip_longest(own.layers, theirs_of_lock):
        if ours is None or theirs is None:
            yield f"layer {(ours or theirs).name} is not in {'the lock' if ours is None else 'the plan'}"
        elif ours.key != theirs.key:
            yield f"layer {theirs.name}: the plan has other packages or files than the lock"


class _Verifier:
    def __init__(self, store: Store, listener: Listener, image: Image, basis: Basis, layer: str) -> None:
        self.store = store
        self.listener = listener
        self.image = image
        self.basis = basis
        self.diff_ids = image.config.rootfs.diff_ids
        # A plan covers the upper end of an image; what is below was pulled.
        self.below = max(0, len(self.diff_ids) - len(basis.plan.layers))
        self.planned = dict(enumerate(basis.plan.layers, self.below))
        self.chosen = self._chosen(layer)
        self.notes = list(basis.notes)

    def run(self, name: str) -> Verification:
        """Make the layers again in a scratch store and compare them."""
        with self.store.scratch("verify") as folder:
            scratch = Store(Home(folder))
            try:
                return self._run(name, scratch)
            finally:
                scratch.close()

    def _run(self, name: str, scratch: Store) -> Verification:
        self.listener.step(f"make {len(self.chosen)} layers again from {self.basis.what}")
        remaker = Remaker(self.store, scratch, self.basis, self.listener)
        chosen = {number: self.planned[number] for number in self.chosen if number in self.planned}
        self.notes += remaker.take_artifacts(chosen.values())
        made, reasons = remaker.layers(chosen, self.diff_ids)
        if ran := [
            f"{number + 1} {plan.name}" for number, plan in chosen.items() if number in made and run_piece(plan)
        ]:
            self.notes.append(f"made by commands, which were run again: {', '.join(ran)}; these follow from no inputs")
        self.listener.step("compare them with those of the image")
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            checks = tuple(
                pool.map(lambda number: self._check(scratch, number, made.get(number), reasons), self.chosen)
            )
        whole = len(self.chosen) == max(len(self.diff_ids), self.below + len(self.basis.plan.layers))
        config, problems = self._compare_config(made) if whole else ("not asked for", ())
        manifest: State = "different" if config == "equal" and problems else config
        return Verification(
            image=name,
            digest=self.image.digest,
            basis=self.basis.what,
            layers=checks,
            config=config,
            manifest=manifest,
            problems=(*self.basis.problems, *problems),
            notes=tuple(self.notes),
        )

    def _chosen(self, layer: str) -> list[int]:
        count = max(len(self.diff_ids), self.below + len(self.basis.plan.layers))
        if not layer:
            return list(range(count))
        names = [self._name(number) for number in range(count)]
        if layer in names:
            return [names.index(layer)]
        if layer.isdecimal() and 0 < int(layer) <= count:
            return [int(layer) - 1]
        known = ", ".join(f"{number} {name}" for number, name in enumerate(names, 1))
        raise UsageError(f"no layer {layer}", hint=f"the layers are: {known}")

    def _name(self, number: int) -> str:
        return self.planned[number].name if number in self.planned else f"base layer {number + 1}"

    def _check(self, scratch: Store, number: int, made: Layer | None, reasons: dict[int, str]) -> LayerCheck:
        name = self._name(number)
        if number >= len(self.diff_ids):
            return _layer(number, name, "different", None, made, reason="the image lacks this layer of the lock")
        diff_id = self.diff_ids[number]
        if not self.store.layers.has(diff_id):
            state: State = "not checked" if made is None or made.diff_id == diff_id else "different"
            return _layer(number, name, state, diff_id, made, reason="its files are not in the store")
        damage = tree_problem(self.store.layers.folder(diff_id), deep=True, diff_id=diff_id) or ""
        if made is not None or number not in self.planned:
            state = "different" if made and made.diff_id != diff_id else "changed on disk" if damage else "equal"
            differences = self._differences(scratch, number, diff_id, made) if made and state != "equal" else ()
            if state == "different" and not (differences or damage):
                damage = "its files are the same, and its tar says it otherwise: order, headers, names of owners"
            return _layer(number, name, state, diff_id, made, reason=damage, differences=differences)
        if (piece := project_piece(self.planned[number])) is not None:
            differences = list(compare_hashes(piece, self.store.layers.root(diff_id)))
            reason = reasons.get(number, "")
            return _layer(number, name, "different", diff_id, None, reason=reason, differences=differences)
        state = "changed on disk" if damage else "not checked"
        return _layer(number, name, state, diff_id, None, reason=damage or reasons.get(number, ""))

    def _differences(self, scratch: Store, number: int, diff_id: DiffID, made: Layer) -> Sequence[Difference]:
        have_tree(scratch, self.planned[number], made)
        expected = scratch.layers.entries(made.diff_id)
        labels = piece_labels(scratch, scratch.layers.record(made.diff_id).pieces)
        roots = scratch.layers.root(made.diff_id), self.store.layers.root(diff_id)
        return list(itertools.islice(compare_trees(expected, *roots, labels), MOST_DIFFERENCES + 1))

    def _compare_config(self, made: dict[int, Layer]) -> tuple[State, tuple[str, ...]]:
        """Compare the configuration and the digest with what the plan makes of the layers."""
        layers = [
            made.get(number)
            or Layer(key="", name="", diff_id=self.diff_ids[number], size=self.image.manifest.layers[number].size)
            for number in self.planned
            if number in made or number < len(self.diff_ids)
        ]
        base = self.basis.plan.base
        if base is not None and not self.store.content.has(base.config) and (problem := self._fetch_base()):
            what = f"the configuration of {base.reference}, which this image stands on, is not here"
            return "not checked", (f"{what}: {problem}",)
        below = parse_config(self.store.content.read(base.config)) if base is not None else None
        own = assemble_image(self.basis.plan, layers, below, read_activation(self.store, self.basis.plan, layers).env)
        if own.digest == self.image.digest:
            return "equal", ()
        ours, theirs = dict(config_fields(own)), dict(config_fields(self.image))
        fields = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        texts = (f"config {name}: {theirs.get(name)!r}, not {ours.get(name)!r}" for name in fields)
        same = own.manifest.config.digest == self.image.manifest.config.digest
        return "equal" if same else "different", (*texts, f"made again, the image is {own.digest}")

    def _fetch_base(self) -> str:
        """Have the image below, whose layers are here, also by its own configuration; return why it cannot be had."""
        locked = self.basis.lock.base if self.basis.lock else None
        if locked is None or self.basis.plan.base is None or locked.config != self.basis.plan.base.config:
            return "the lock does not name it"
        from mlbox.engine.bases import have_base

        try:
            have_base(self.store, locked, self.listener)
        except MlboxError as problem:
            return problem.message
        return ""


def _layer(
    number: int,
    name: str,
    state: State,
    diff_id: DiffID | None,
    made: Layer | None,
    *,
    reason: str = "",
    differences: Sequence[Difference] = (),
) -> LayerCheck:
    return LayerCheck(
        number=number + 1,
        name=name,
        state=state,
        diff_id=diff_id or "",
        rebuilt=made.diff_id if made else "",
        reason=reason,
        differences=tuple(differences[:MOST_DIFFERENCES]),
        more=len(differences) > MOST_DIFFERENCES,
    )
