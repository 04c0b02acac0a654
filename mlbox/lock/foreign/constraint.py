"""Version constraints as Poetry writes them, of which PEP 440's are a part."""

import re


def admits(constraint: str, version: str) -> bool:
    """Whether `constraint` ('^3.9', '>=3.8,<4 || 3.7.*', '~=1.4') admits `version`; what is none admits everything."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    for part in re.split(r"\|\|?", constraint):
        words = [re.sub(r"\s+", "", word) for word in re.split(r",|\s+(?=[<>=!~^])", part) if word.strip()]
        try:
            specifiers = SpecifierSet(",".join(filter(None, map(_pep440, words))))
        except InvalidSpecifier:
            return True
        if specifiers.contains(version, prereleases=True):
            return True
    return False


def _pep440(word: str) -> str:
    if word == "*":
        return ""
    if found := re.fullmatch(r"([\^~])([0-9]+(?:\.[0-9]+)*)\S*", word):
        numbers = [int(part) for part in found[2].split(".")]
        keep = min(1, len(numbers) - 1)
        if found[1] == "^":  # everything before and at the first number that is not 0 stays
            keep = next((place for place, number in enumerate(numbers) if number), len(numbers) - 1)
        upper = [*numbers[:keep], numbers[keep] + 1]
        return f">={word[1:]},<{'.'.join(map(str, upper))}"
    return f"=={word}" if word[0].isdigit() else re.sub(r"^=(?!=)", "==", word)
