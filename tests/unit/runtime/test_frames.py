"""The words between a monitor and its clients."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlbox.runtime.frames import Decoder, frame

FRAMES = st.lists(st.tuples(st.binary(min_size=1, max_size=1), st.binary(max_size=300)), max_size=8)


@given(FRAMES, st.lists(st.integers(1, 40), max_size=60))
def test_frames_survive_any_cutting(sent: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    """However the stream is cut, the same frames come out."""
    stream = b"".join(frame(kind, payload) for kind, payload in sent)
    decoder, found = Decoder(), []
    for size in (*cuts, len(stream)):
        found += decoder.feed(stream[:size])
        stream = stream[size:]
    assert found == sent


def test_a_frame_that_is_too_long_is_refused() -> None:
    """Its length is not believed, so nothing is kept for it."""
    with pytest.raises(ValueError, match="4294967295"):
        list(Decoder().feed(b"i\xff\xff\xff\xff"))
