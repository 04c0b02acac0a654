"""From a repository to an image: lock when needed, plan, build, tag."""

import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from mlbox.codec import canonical_json
from mlbox.engine.arch import host_arch, runs_here
from mlbox.engine.folders import installed_folders
from mlbox.engine.freshness import LockOptions, check_fresh, lock_path
from mlbox.errors import LackingError, LockError, ProjectError, UsageError
from mlbox.events import Listener
from mlbox.lock.accelerators import for_accelerator, views
from mlbox.lock.file import FILENAME, encode_lock, read_lock, write_lock
from mlbox.lock.model import Lock
from mlbox.oci.artifact import LOCK_TYPE, PLAN_TYPE, artifact_of, subject_of
from mlbox.oci.digest import hex_of
from mlbox.oci.image import Image
from mlbox.oci.reference import Reference, parse_reference
from mlbox.paths import Home
from mlbox.plan.model import (
    AdditionPiece,
    AnyPiece,
    BuildPlan,
    BuiltWheelPiece,
    CondaPiece,
    DebPiece,
    ImageLayerPiece,
    LayerPlan,
    RootfsPiece,
    WheelPiece,
)
from mlbox.plan.planner import make_plan
from mlbox.plan.render import LayerState
from mlbox.project.discover import load_project
from mlbox.project.model import Project, Settings, Task
from mlbox.store.store import Store

if TYPE_CHECKING:
    from mlbox.http import Http


class ProjectOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What every command on a project can be told."""

    root: Path
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    resolver: Literal["", "uv", "pip-tools"] = ""
    find_links: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    """In place of the settings' requirements."""
    accelerators: tuple[str, ...] = ()
    """To lock for, in place of the settings'."""
    accelerator: str = ""
    """Which of the lock's is meant; empty: the one that suits this host."""


class Workshop:
    """One project and the store it is built into. Everything is read when it is first needed."""

    def __init__(self, home: Home, options: ProjectOptions, listener: Listener) -> None:
        self.home = home
        self.options = options
        self.listener = listener
        self.store = Store(home)
        self._told: set[str] = set()

    @cached_property
    def http(self) -> "Http":
        """What indexes and mirrors are read with."""
        from mlbox.http import Http

        return Http()

    @cached_property
    def project(self) -> Project:
        """The project as its files stand."""
        project = self._load(self.options.accelerators)
        if project.settings.accelerators or project.settings.accelerator != Settings().accelerator:
            return project
        # What was asked for on the command line stays until something else is, as the lock's architecture does.
        with suppress(LockError):
            if self.previous_lock and self.previous_lock.accelerators:
                return self._load(self.previous_lock.accelerators)
        return project

    def _load(self, accelerators: tuple[str, ...]) -> Project:
        return load_project(
            self.options.root,
            extras=self.options.extras,
            groups=self.options.groups,
            resolver=self.options.resolver,
            requirements=self.options.requirements,
            accelerators=accelerators,
        )

    @cached_property
    def previous_lock(self) -> Lock | None:
        """The lock beside the project, None when there is none."""
        path = lock_path(self.options.root.absolute())
        return read_lock(path) if path.exists() else None

    @cached_property
    def usable_lock(self) -> Lock | None:
        """The previous lock as relocking takes it: a damaged one says which and counts as none."""
        try:
            return self.previous_lock
        except LockError as problem:
            if not lock_path(self.project.root).is_file():
                raise
            self.listener.note(f"{problem.message}; it is made from nothing, so versions may move")
            return None

    def new_lock(self, options: LockOptions) -> Lock:
        """Return the lock as it should be now: the previous one, untouched, when nothing asks for a change."""
        previous = self.usable_lock
        other_resolver = previous is not None and self.options.resolver not in ("", previous.resolver)
        if previous is not None and not other_resolver and not _asks_for_change(options, previous):
            try:
                check_fresh(previous, self.project)
            except LockError:
                pass
            else:
                return previous
        from mlbox.engine.locking import Locker  # the resolvers, which a build with a fresh lock does without

        locker = Locker(self.project, self.home, self.http, self.listener, self.options.find_links)
        return locker.lock(previous, options)

    def lock(self, options: LockOptions) -> Lock:
        """Bring mlbox.lock up to date and return it; the file is written only when its content changes."""
        lock = self.new_lock(options)
        if lock != self.usable_lock:
            write_lock(lock_path(self.project.root), lock)
            self.__dict__["previous_lock"] = self.__dict__["usable_lock"] = lock  # what is locked next starts from it
            whose = f" for {', '.join(lock.accelerators)}" if lock.accelerators else ""
            conda = f"{len(lock.conda)} conda, " if lock.conda else ""
            counts = f"{conda}{len(lock.packages)} Python, {len(lock.debs)} Debian packages"
            self.listener.note(f"wrote {FILENAME}{whose}: {counts}")
        else:
            self.listener.step(f"{FILENAME} is up to date")
        self.say_of_cuda(lock)
        return lock

    def say_of_cuda(self, lock: Lock) -> None:
        """Say what of CUDA the locked packages lack or have twice, once."""
        from mlbox.engine.cuda import remarks

        found = dict.fromkeys(note for view in views(lock) for note in remarks(view))
        notes = [note for note in found if note not in self._told]
        self._told.update(notes)
        for note in notes:
            self.listener.note(note)

    def ready_lock(self, *, relock: bool, locked: bool = False) -> Lock:
        """Return a lock that fits the project: made when there is none, refused when it is stale."""
        if relock:
            return self.lock(LockOptions(epoch=epoch_of_environment()))
        previous = self.previous_lock
        if previous is None and locked:
            raise LockError(f"there is no {FILENAME}", hint="'mlbox lock' makes it")
        if previous is None:
            return self.lock(LockOptions(epoch=epoch_of_environment()))
        check_fresh(previous, self.project)
        return previous

    def chosen(self, lock: Lock) -> Lock:
        """Return the part of `lock` for one accelerator: what was asked for, else what suits this host."""
        if self.options.accelerator:
            return for_accelerator(lock, self.options.accelerator)
        if len(lock.accelerators) < 2:
            return for_accelerator(lock, lock.target.accelerator)
        from mlbox.gpu.accelerator import choose

        choice = choose(lock.accelerators)
        self.listener.note(f"accelerator {choice.name}: {choice.reason}")
        return for_accelerator(lock, choice.name)

    def plan(self, lock: Lock) -> BuildPlan:
        """Return what would be built from `lock` and the project's files as they stand."""
        from mlbox.build.scan import scan_inputs, scan_project
        from mlbox.build.secrets import files_with_credentials

        settings = self.project.settings
        for note in self.project.notes:
            if note not in self._told:
                self.listener.note(note)
        self._told.update(self.project.notes)
        home, tell = self.home, self.listener.note
        files = scan_project(self.project.root, settings, cache=home.metadata, store=home.root, note=tell)
        if telling := list(files_with_credentials(self.project.root, files, settings.requirements)):
            raise ProjectError(
                f"{', '.join(telling)}: a password or token in an address would become part of the image",
                hint="write ${NAME} in its place and set the variable, use ~/.netrc, or name the file in .mlboxignore",
            )
        inputs = [scan_inputs(self.project.root, step.inputs) for step in settings.run]
        folders = installed_folders(self.project, lock, files)
        return make_plan(lock, settings, files, self.project.package, inputs, folders)

    def states(self, plan: BuildPlan, lock: Lock) -> dict[str, LayerState]:
        """Return what the store has of each layer, by layer key."""
        sizes = {package.sha256: package.size for package in (*lock.packages, *lock.build_packages)}
        sizes |= {deb.sha256: deb.size for deb in (*lock.debs, *lock.build_debs)}
        sizes |= {package.sha256: package.size for package in lock.conda}
        sizes |= {hex_of(one.diff_id): one.size for one in lock.base.layers}
        return {layer.key: self._state(layer, sizes) for layer in plan.layers}

    def build(self, lock: Lock, names: Sequence[str] = (), *, locked: bool = False) -> Image:
        """Build the image of the project and give it `names`; a `locked` build never changes the lock.

        `lock` is for one accelerator (`chosen`).
        """
        references = [parse_reference(name) for name in names] or [self.default_name]
        if any(reference.digest for reference in references):
            raise UsageError("a tag cannot hold a digest", hint="-t team/name:tag")
        plan = self.plan(lock)
        with self.store.using():
            image, plan, lock = self._proven(plan, lock, locked=locked)
            self._attach(image, plan, lock)
            for reference in references:
                self.store.images.tag(image.digest, reference)
        return image

    @property
    def default_name(self) -> Reference:
        """The image's name when none is given: the project's own."""
        return parse_reference(self.project.name)

    def task(self, name: str) -> Task:
        """Return the declared task `name`; raises UsageError naming those there are."""
        settings = self.project.settings
        tasks = {**settings.tasks, "train": settings.train, "serve": settings.serve}
        found = tasks.get(name)
        if found is None:
            known = ", ".join(sorted(known for known, task in tasks.items() if task)) or "none"
            raise UsageError(
                f"the project declares no task {name!r} (declared: {known})",
                hint=f"add [tool.mlbox.{name}] with a command to pyproject.toml, or 'mlbox init' to have one proposed",
            )
        return found

    def _build(self, plan: BuildPlan, lock: Lock) -> Image:
        if not runs_here(plan.arch):
            self.listener.note(f"this image is for {plan.arch}; it will not run on this machine ({host_arch()})")
        # Imported only when there is something to build.
        from mlbox.build.executor import Builder
        from mlbox.build.fetch import Places
        from mlbox.build.sources import Sources
        from mlbox.engine.running import step_runner
        from mlbox.lock.conda.channels import Channels
        from mlbox.lock.debian import mirrors
        from mlbox.lock.python.config import indexes_for

        spec = self.project.conda
        places = Places(
            lambda: indexes_for(
                self.project.for_accelerator(lock.target.accelerator), find_links=self.options.find_links
            ),
            self.http,
            home=self.home,
            root=self.project.root,
            target=lock.target,
        )
        where = partial(mirrors, snapshot=lock.snapshot, sources=self.project.settings.apt_sources)
        channels = Channels(spec.channels if spec else (), home=self.home, learn=self.http.learn)
        sources = Sources(plan, places, where, self.store.artifacts, self.http, self.listener, channels)
        from mlbox.engine.bases import have_base

        runner, bases = step_runner(self.home), partial(have_base, self.store, listener=self.listener)
        builder = Builder(
            self.store,
            sources,
            runner,
            self.listener,
            self.project.root,
            bases,
            env=os.environ,
            accepted=self.project.settings.allow_missing,
        )
        return builder.build(plan)

    def _proven(self, plan: BuildPlan, lock: Lock, *, locked: bool) -> tuple[Image, BuildPlan, Lock]:
        """Build `plan` and look whether its packages find their libraries; what they lack may be added to the lock.

        Raises BuildError when they do not.
        """
        from mlbox.engine.linking import judge, lacking_packages, prove

        settings = self.project.settings
        try:
            image = self._image(plan, lock)
        except LackingError as problem:
            if locked or not (settings.auto_system_packages and problem.packages):
                raise
            image, plan, lock = self._with_packages(problem.packages, lock.target.accelerator)
        findings, new = prove(self.store, image, plan, lock)
        if not locked and (lacking := lacking_packages(findings, settings, lock)):
            image, plan, lock = self._with_packages(lacking, lock.target.accelerator)
            findings, new = prove(self.store, image, plan, lock)
        judge(findings, settings, lock, self.listener, tell=new)
        return image, plan, lock

    def _with_packages(self, lacking: tuple[str, ...], accelerator: str) -> tuple[Image, BuildPlan, Lock]:
        """Add Debian packages whose libraries the environment lacks to the lock, and build that."""
        self.listener.note(f"the environment lacks libraries; added to {FILENAME}: {', '.join(lacking)}")
        lock = for_accelerator(self.lock(LockOptions(found_packages=lacking)), accelerator)
        plan = self.plan(lock)
        return self._image(plan, lock), plan, lock

    def _image(self, plan: BuildPlan, lock: Lock) -> Image:
        known = self.store.images.built(plan.key)
        return self.store.images.load(known) if known else self._build(plan, lock)

    def _attach(self, image: Image, plan: BuildPlan, lock: Lock) -> None:
        """Keep beside the image what it was made from: others can then make, verify and explain it."""
        subject = subject_of(image.digest, image.manifest_bytes)
        path = lock_path(self.project.root)
        # Of a lock of several the image has the part that it follows from.
        as_it_is = path.is_file() and not (self.previous_lock and self.previous_lock.accelerators)
        data = path.read_bytes() if as_it_is else encode_lock(lock)
        if self.store.referrers.lock_of(image.digest) != data:
            self.store.referrers.add(artifact_of(LOCK_TYPE, data), subject)
        if not self.store.referrers.of(image.digest, PLAN_TYPE):
            self.store.referrers.add(artifact_of(PLAN_TYPE, canonical_json(plan)), subject)

    def _state(self, layer: LayerPlan, sizes: dict[str, int]) -> LayerState:
        match layer.pieces:
            case (ImageLayerPiece(diff_id=diff_id),):
                if self.store.layers.has(diff_id):
                    return LayerState(built=True, size=self.store.layers.record(diff_id).size)
                return LayerState(fetch=sizes.get(hex_of(diff_id), 0))
        built = self.store.layers.find(layer.key)
        if built is not None:
            return LayerState(built=True, size=built.size)
        unpacked = sum(self.store.pieces.has(piece.key) for piece in layer.pieces)
        unknown = [piece for piece in layer.pieces if not self.store.pieces.has(piece.key)]
        missing = {sha for piece in unknown if not self.store.built.get(piece.key) for sha in artifacts(piece)}
        fetch = sum(sizes.get(sha, 0) for sha in missing if not self.store.artifacts.has(sha))
        return LayerState(fetch=fetch, unpacked=unpacked)


def artifacts(piece: AnyPiece) -> tuple[str, ...]:
    """Return the sha256 of the files that `piece` is made from."""
    match piece:
        case WheelPiece() | DebPiece() | CondaPiece():
            return (piece.sha256,)
        case BuiltWheelPiece():
            wheels = (needed.sha256 for needed in piece.build_packages)
            return (piece.source.sha256, *wheels, *(deb.sha256 for deb in piece.build_debs or ()))
        case RootfsPiece() | AdditionPiece():
            return tuple(deb.sha256 for deb in piece.debs)
        case _:
            return ()


def epoch_of_environment() -> int | None:
    """Return SOURCE_DATE_EPOCH (seconds), None when it is not set."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or int(text) >= 8**11:
        raise UsageError(f"SOURCE_DATE_EPOCH is no time: {text!r}", hint="it is a number of seconds since 1970")
    return int(text)


def _asks_for_change(options: LockOptions, previous: Lock) -> bool:
    return (
        options.upgrade
        or bool(options.upgrade_packages)
        or bool(options.found_packages)
        or options.arch not in (None, previous.target.arch)
        or options.epoch not in (None, previous.epoch)
    )
