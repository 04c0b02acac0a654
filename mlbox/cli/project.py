"""Commands on the repository one stands in: init, lock, plan, build, train, serve."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mlbox.cli.progress import listener
from mlbox.cli.words import App, Argument, Option
from mlbox.events import Listener

if TYPE_CHECKING:
    from mlbox.engine.building import Workshop
    from mlbox.lock.model import Lock

app = App()

Folder = Annotated[Path, Option("-C", "--project", help="Folder of the repository.")]
Extras = Annotated[list[str] | None, Option("--extra", help="Optional dependencies of [project] to include.")]
Groups = Annotated[list[str] | None, Option("--group", help="Dependency groups to include.")]
From = Annotated[
    str, Option("--from", metavar="FILE", help="Requirement file or lock of another tool that counts, not those found.")
]
FindLinks = Annotated[list[str] | None, Option(help="Folder or page with wheels that may be used.")]
Tags = Annotated[list[str] | None, Option("-t", "--tag", help="Name of the image: team/name:tag.")]
Gpus = Annotated[str, Option(help="all, a number, device=0,2, none; default: the task's.")]
Wait = Annotated[bool, Option("--wait", help="Until the GPUs are free, in a queue.")]
For = Annotated[str, Option("--for", help="Stop it after that time: 90s, 30m, 8h, 2d.")]
Env = Annotated[list[str] | None, Option("--env", "-e", help="NAME=VALUE, or NAME to pass ours.")]
Which = Annotated[str, Option("--accelerator", help="Which of the lock's; default: what suits this host.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress, only the digest.")]
Relock = Annotated[bool, Option("--relock", help="Bring mlbox.lock up to date first.")]


class Resolver(StrEnum):
    """The programs that can resolve Python packages."""

    UV = "uv"
    PIP_TOOLS = "pip-tools"


class Machine(StrEnum):
    """The architectures a lock can be for."""

    AMD64 = "amd64"
    ARM64 = "arm64"


class PlanFormat(StrEnum):
    """How a plan is printed."""

    TEXT = "text"
    JSON = "json"


def _workshop(
    folder: Path,
    talk: Listener,
    extras: list[str] | None = None,
    groups: list[str] | None = None,
    find_links: list[str] | None = None,
    resolver: Resolver | None = None,
    *,
    source: str = "",
    accelerator: str = "",
    accelerators: list[str] | None = None,
) -> "Workshop":
    from mlbox.engine.building import ProjectOptions, Workshop
    from mlbox.paths import Home

    options = ProjectOptions(
        root=folder.absolute(),
        extras=tuple(extras or ()),
        groups=tuple(groups or ()),
        find_links=tuple(find_links or ()),
        requirements=(source,) if source else (),
        resolver=resolver.value if resolver else "",
        accelerator=accelerator,
        accelerators=tuple(accelerators or ()),
    )
    return Workshop(Home.default(), options, talk)


def _tell_disagreements(workshop: "Workshop", talk: Listener) -> None:
    """Note specs that contradict those that count, where there are several."""
    if all(source.used for source in workshop.project.sources):
        return
    from mlbox.project.conflict import disagreements

    for sentence in disagreements(workshop.project):
        talk.note(sentence)


@app.command()
def init(
    folder: Folder = Path(),
    template: Annotated[str, Option(help="Start a new project: minimal, train or serve.")] = "",
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what was found.")] = False,
    write: Annotated[bool, Option("--write", help="Also make a requirements.txt of what is only guessed.")] = False,
) -> None:
    """Show what mlbox finds in the repository, and write its settings; or start a new project."""
    from mlbox.project.init import new_from_template

    root = folder.absolute()
    if template:
        for file in new_from_template(template, root):
            print(f"new  {file.relative_to(root)}")
        return
    _draw(root, write=write and not dry_run, dry_run=dry_run)


def _draw(root: Path, *, write: bool, dry_run: bool) -> None:
    """Show the project and what its other files suggest; write what was asked for."""
    from mlbox.engine.cuda import proposed_base
    from mlbox.project.conflict import disagreements
    from mlbox.project.discover import NoSpecError, load_project
    from mlbox.project.drawing import draw, told, usable, write_requirements
    from mlbox.project.init import declared_keys, describe, write_settings
    from mlbox.project.model import Project
    from mlbox.project.proposal import Proposal, Suggestion

    refused = None
    project: Project | None = None
    try:
        project = load_project(root)
    except NoSpecError as problem:
        refused = problem
    # Code also imports what other packages bring: where requirements are written down, it is no better source.
    drawn = draw(root, code=not (project and (project.requirements or project.conda or project.foreign)))
    if project:
        base, why = proposed_base(project)
        drawn += Proposal(suggestions=(Suggestion(key="base", value=base, origin=why),) if base else ())
    fitting = usable(drawn, project, declared_keys(root), root)
    if refused and not fitting.wishes:
        raise refused
    if project:
        for fact in describe(project):
            _tell(fact.label, fact.value, fact.why)
        for sentence in disagreements(project):
            _tell("note", sentence)
    for label, value, why in told(fitting):
        _tell(label, value, why)
    nothing_asked = project is None or not (project.requirements or project.conda or project.foreign)
    if fitting.wishes and nothing_asked:
        if not write:
            _tell("guesses", "not written", "'mlbox init --write' makes a requirements.txt of them")
            if project is None:
                return
        else:
            _tell("wrote", str(write_requirements(root, fitting).relative_to(root)))
            project = load_project(root)
            fitting = usable(drawn, project, declared_keys(root), root)
    if dry_run or project is None:
        return
    before = {file: file.read_bytes() for file in root.glob("*.toml")}
    file = write_settings(project, fitting.suggestions)
    _tell("unchanged" if before.get(file) == file.read_bytes() else "wrote", str(file.relative_to(root)))


def _tell(label: str, value: str, why: str = "") -> None:
    print(f"{label:<12} {value}{f'  ({why})' if why else ''}")


@app.command()
def lock(
    folder: Folder = Path(),
    extra: Extras = None,
    group: Groups = None,
    find_links: FindLinks = None,
    source: From = "",
    resolver: Annotated[Resolver | None, Option(help="Instead of the setting's.")] = None,
    arch: Annotated[Machine | None, Option(help="This machine's when nothing says.")] = None,
    accelerator: Annotated[list[str] | None, Option(help="For this one; again: for several in one lock.")] = None,
    upgrade: Annotated[bool, Option("--upgrade", "-U", help="Take the newest of everything.")] = False,
    upgrade_package: Annotated[
        list[str] | None, Option("--upgrade-package", "-P", help="Take the newest of this package.")
    ] = None,
    diff: Annotated[bool, Option("--diff", help="Say what would move and write nothing.")] = False,
    packages: Annotated[list[str] | None, Argument(metavar="[PKG]...", help="With --upgrade: only these.")] = None,
) -> None:
    """Pin everything the environment holds in mlbox.lock."""
    from mlbox.engine.building import epoch_of_environment
    from mlbox.engine.freshness import LockOptions
    from mlbox.errors import UsageError
    from mlbox.lock.diff import diff_locks, render_diff

    if packages and not upgrade:
        raise UsageError("packages are named only with --upgrade", hint=f"mlbox lock --upgrade {' '.join(packages)}")
    named = (*(packages or ()), *(upgrade_package or ()))
    options = LockOptions(
        arch=arch.value if arch else None,
        upgrade=upgrade and not named,
        upgrade_packages=named,
        epoch=epoch_of_environment(),
    )
    with listener() as talk:
        workshop = _workshop(folder, talk, extra, group, find_links, resolver, accelerators=accelerator, source=source)
        _tell_disagreements(workshop, talk)
        if diff:
            for line in render_diff(diff_locks(workshop.usable_lock, workshop.new_lock(options))):
                print(line)
        else:
            workshop.lock(options)


@app.command()
def plan(
    folder: Folder = Path(),
    extra: Extras = None,
    group: Groups = None,
    find_links: FindLinks = None,
    source: From = "",
    form: Annotated[PlanFormat, Option("--format")] = PlanFormat.TEXT,
    relock: Relock = False,
    accelerator: Which = "",
) -> None:
    """Show what would be built, what is there already, and why."""
    from mlbox.plan.render import as_json, as_text

    with listener() as talk:
        workshop = _workshop(folder, talk, extra, group, find_links, source=source, accelerator=accelerator)
        _tell_disagreements(workshop, talk)
        ready = workshop.chosen(workshop.ready_lock(relock=relock))
        planned = workshop.plan(ready)
        workshop.say_of_cuda(ready)
        render = as_json if form is PlanFormat.JSON else as_text
        print(render(planned, workshop.states(planned, ready), workshop.project.sources))


@app.command()
def build(
    folder: Folder = Path(),
    tag: Tags = None,
    extra: Extras = None,
    group: Groups = None,
    find_links: FindLinks = None,
    source: From = "",
    relock: Relock = False,
    accelerator: Annotated[
        str, Option(help="Which of the lock's; 'all': each, as NAME:TAG-cu126; default: what suits this host.")
    ] = "",
    locked: Annotated[bool, Option("--locked", help="Never write mlbox.lock; fail when there is none.")] = False,
    rebuild: Annotated[
        list[str] | None,
        Option("--rebuild", metavar="PKG", help="Build this package from source once more, and compare."),
    ] = None,
    output: Annotated[
        Path | None, Option("--output", "-o", help="Also write an OCI layout: a folder, or FILE.tar.")
    ] = None,
    quiet: Quiet = False,
) -> int:
    """Build the image; the last line on stdout is its manifest digest."""
    equal = True
    with listener(quiet=quiet) as talk:
        workshop = _workshop(folder, talk, extra, group, find_links, source=source, accelerator=accelerator)
        ready = workshop.ready_lock(relock=relock, locked=locked)
        if accelerator == "all":
            return _build_all(workshop, ready, tag or [], locked, alone={"--output": output, "--rebuild": rebuild})
        image = workshop.build(workshop.chosen(ready), tag or [], locked=locked)
        if rebuild:
            equal = _rebuild(workshop, rebuild)
        if output:
            from mlbox.oci.reference import parse_reference
            from mlbox.store.layout import export_layout

            names = [parse_reference(name) for name in tag or []] or [workshop.default_name]
            export_layout(workshop.store, image, output.absolute(), names)
    print(image.digest)
    return 0 if equal else 1


def _rebuild(workshop: "Workshop", names: list[str]) -> bool:
    """Build packages once more and print how that differs; returns whether nothing does."""
    from mlbox.cli.prove_text import print_rebuilt
    from mlbox.engine.wheels import rebuild

    lock = workshop.chosen(workshop.ready_lock(relock=False))  # the build may have changed it
    found = rebuild(workshop, lock, workshop.plan(lock), names)
    for one in found:
        print_rebuilt(one)
    return all(one.equal for one in found)


def _build_all(workshop: "Workshop", lock: "Lock", names: list[str], locked: bool, *, alone: dict[str, object]) -> int:
    from mlbox.engine.variants import build_all
    from mlbox.errors import UsageError

    for option in (option for option, value in alone.items() if value):
        raise UsageError(f"{option} is about one image, and there is one for each accelerator", hint="name one of them")
    for variant in build_all(workshop, lock, names, locked=locked):
        print(variant.image.digest, *(name.familiar for name in variant.names))
    return 0


@app.command(interspersed=False)
def train(
    args: Annotated[list[str] | None, Argument(metavar="[ARGUMENT]...", help="Added to the command.")] = None,
    folder: Folder = Path(),
    tag: Tags = None,
    extra: Extras = None,
    group: Groups = None,
    find_links: FindLinks = None,
    source: From = "",
    relock: Relock = False,
    accelerator: Which = "",
    env: Env = None,
    gpus: Gpus = "",
    wait: Wait = False,
    limit: For = "",
    name: Annotated[str, Option(help="Name of the container.")] = "",
    task: Annotated[str, Option(help="Another task: [tool.mlbox.tasks.NAME].")] = "train",
) -> int:
    """Build, then run the project's training; its outputs land in your folder."""
    from mlbox.cli.run import environment
    from mlbox.engine.running import run_image, task_options
    from mlbox.runtime.options import RunOptions, parse_duration

    seconds = parse_duration(limit) if limit else None
    with listener() as talk:
        workshop = _workshop(folder, talk, extra, group, find_links, source=source, accelerator=accelerator)
        declared = workshop.task(task)
        image = workshop.build(workshop.chosen(workshop.ready_lock(relock=relock)), tag or [])
    variables = environment(env or [])
    base = RunOptions(name=name, remove=True, env=variables, gpus=gpus, gpu_wait=wait, time_limit=seconds)
    options = task_options(workshop.project, declared, tuple(args or ()), base)
    return run_image(workshop.home, image.digest, options, detach=False, cidfile=None, say=print, talk=listener)


@app.command(interspersed=False)
def serve(
    args: Annotated[list[str] | None, Argument(metavar="[ARGUMENT]...", help="Added to the command.")] = None,
    folder: Folder = Path(),
    tag: Tags = None,
    extra: Extras = None,
    group: Groups = None,
    find_links: FindLinks = None,
    source: From = "",
    relock: Relock = False,
    accelerator: Which = "",
    env: Env = None,
    gpus: Gpus = "",
    wait: Wait = False,
    limit: For = "",
    name: Annotated[str, Option(help="Name of the container.")] = "",
    detach: Annotated[bool, Option("--detach", "-d", help="Return when it is ready.")] = False,
) -> int:
    """Build, then run the project's service on 127.0.0.1 and say when it is ready."""
    from mlbox.cli.run import environment
    from mlbox.engine.running import serve as run_service
    from mlbox.engine.running import task_options
    from mlbox.runtime.options import RunOptions, parse_duration

    seconds = parse_duration(limit) if limit else None
    with listener() as talk:
        workshop = _workshop(folder, talk, extra, group, find_links, source=source, accelerator=accelerator)
        declared = workshop.task("serve")
        image = workshop.build(workshop.chosen(workshop.ready_lock(relock=relock)), tag or [])
    # A service in the background stays after its end, so that 'mlbox logs' can say why it ended.
    variables = environment(env or [])
    base = RunOptions(name=name, remove=not detach, env=variables, gpus=gpus, gpu_wait=wait, time_limit=seconds)
    options = task_options(workshop.project, declared, tuple(args or ()), base)
    return run_service(workshop.store, image.digest, options, declared, detach=detach, say=_say)


def _say(text: str) -> None:
    print(text, flush=True)
