import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mlbox.lock.grouping import BIG, MOST_LAYERS, group_layers
from mlbox.lock.model import LayerGroup, Package


def package(name: str, size: int, version: str = "1") -> Package:
    return Package(name=name, version=version, filename=f"{name}-{version}.whl", sha256="a" * 64, size=size)


names = st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,3})?", fullmatch=True) | st.sampled_from(
    ["small-1-of-3", "small-1-of-1", "torch", "package-small-1-of-1"]
)
sizes = st.integers(0, 4 * BIG) | st.sampled_from([0, BIG - 1, BIG, 900 << 20])
sets = st.dictionaries(names, sizes, max_size=120).map(lambda found: [package(*item) for item in found.items()])
groupings = st.lists(
    st.builds(LayerGroup, name=names, packages=st.lists(names, max_size=5).map(tuple)), max_size=60
).map(tuple)


def homes(groups: tuple[LayerGroup, ...]) -> dict[str, str]:
    return {name: group.name for group in groups for name in group.packages}


@given(sets, groupings)
def test_every_package_once_within_the_limit_whatever_was_before(
    packages: list[Package], previous: tuple[LayerGroup, ...]
) -> None:
    groups = group_layers(packages, previous)
    grouped = [name for group in groups for name in group.packages]
    assert sorted(grouped) == sorted(package.name for package in packages)
    assert len(groups) <= MOST_LAYERS
    assert len({group.name for group in groups}) == len(groups)
    assert all(group.packages for group in groups)


@given(sets, st.randoms())
def test_the_order_of_packages_does_not_matter(packages: list[Package], random: object) -> None:
    shuffled = list(packages)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert group_layers(packages) == group_layers(shuffled)


@given(sets)
def test_nothing_changed_moves_nothing(packages: list[Package]) -> None:
    groups = group_layers(packages)
    assert group_layers(packages, groups) == groups


@given(sets.filter(bool), st.data())
def test_a_changed_package_moves_nothing(packages: list[Package], data: st.DataObject) -> None:
    groups = group_layers(packages)
    number = data.draw(st.integers(0, len(packages) - 1))
    changed = list(packages)
    changed[number] = package(packages[number].name, data.draw(sizes), "2")
    assert group_layers(changed, groups) == groups


@given(sets.filter(bool), st.data())
def test_removing_and_adding_again_touches_one_group(packages: list[Package], data: st.DataObject) -> None:
    groups = group_layers(packages)
    gone = packages[data.draw(st.integers(0, len(packages) - 1))]
    rest = [found for found in packages if found is not gone]
    without = group_layers(rest, groups)
    assert homes(without) == {name: home for name, home in homes(groups).items() if name != gone.name}
    again = homes(group_layers(packages, without))
    assert {name: home for name, home in again.items() if name != gone.name} == homes(without)


@given(sets, names, sizes)
def test_a_new_package_moves_no_other(packages: list[Package], name: str, size: int) -> None:
    groups = group_layers(packages)
    if name in homes(groups):
        return
    more = homes(group_layers([*packages, package(name, size)], groups))
    assert {key: home for key, home in more.items() if key != name} == homes(groups)


def test_big_packages_are_alone_and_small_ones_share() -> None:
    packages = [package("torch", 900 << 20), package("numpy", BIG), *(package(f"p{n}", 1000) for n in range(30))]
    groups = {group.name: group.packages for group in group_layers(packages)}
    assert groups["torch"] == ("torch",)
    assert groups["numpy"] == ("numpy",)
    assert len(groups) == 3


def test_many_big_packages_still_fit() -> None:
    groups = group_layers([package(f"big{n}", BIG + n) for n in range(200)])
    assert len(groups) <= MOST_LAYERS
    lone = {group.packages[0] for group in groups if len(group.packages) == 1}
    assert {f"big{n}" for n in range(172, 200)} <= lone  # the largest are the ones alone


def test_small_packages_are_spread_when_they_are_many() -> None:
    groups = group_layers([package(f"p{n}", 4 << 20) for n in range(100)])
    assert len(groups) == 12


def test_layers_are_values_of_the_lock() -> None:
    groups = group_layers([package("six", 1)])
    assert msgspec.json.decode(msgspec.json.encode(groups), type=tuple[LayerGroup, ...]) == groups
