"""The receiving buffers: any cut of the stream gives the same frames, views live as promised, memory is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.protocol.errors import WireError
from pybroker.protocol.inbox import BLOCK_SIZE, POOLED_COUNT_MAX, POOLED_SIZE_MAX, Inbox, Pool

# A frame of these tests: size u32, of the whole frame, then anything.
SIZES = [4, 5, 300, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE + 7]


def measure(block: memoryview, start: int, end: int, _size_max: int) -> int:
    if end - start < 4:
        return 0
    size = int.from_bytes(block[start : start + 4], "little")
    if size < 4:
        raise WireError(0, "a size of 4", str(size))
    return size


def make_frame(size: int, seed: int = 0) -> bytes:
    pattern = bytes((seed + position) % 251 for position in range(251))
    return size.to_bytes(4, "little") + (pattern * (size // 251 + 1))[: size - 4]


def feed(inbox: Inbox, data: bytes, chunk_max: int = 1 << 30) -> int:
    """Let one receive of a socket happen: as much as fits the space. Return how much that was."""
    space = inbox.space()
    assert len(space) > 0
    count = min(len(space), len(data), chunk_max)
    space[:count] = data[:count]
    inbox.filled(count)
    return count


def receive(inbox: Inbox, data: bytes, chunk_sizes: list[int], count_max: int = 100) -> list[bytes]:
    """Feed all of `data` in chunks, over and over of these sizes; return the frames."""
    frames: list[bytes] = []
    position = turn = 0
    while position < len(data):
        position += feed(inbox, data[position : position + chunk_sizes[turn % len(chunk_sizes)]])
        turn += 1
        while batch := [bytes(frame) for frame in inbox.frames(count_max)]:
            frames += batch
    return frames


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(Pool(), measure)


@pytest.mark.parametrize("cut", range(1, 40))
def test_frames_come_whole_whatever_the_split(inbox: Inbox, cut: int) -> None:
    frames = [make_frame(size, size) for size in (4, 9, 4, 17, 6)]
    data = b"".join(frames)
    assert receive(inbox, data, [cut, len(data)]) == frames
    assert inbox.unread == 0


def test_frames_come_whole_byte_by_byte(inbox: Inbox) -> None:
    frames = [make_frame(size, size) for size in (4, 300, 5, 1000)]
    assert receive(inbox, b"".join(frames), [1]) == frames


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("chunk", [1000, BLOCK_SIZE, 1 << 30])
def test_frames_of_every_size_follow_each_other(inbox: Inbox, size: int, chunk: int) -> None:
    frames = [make_frame(size, seed) for seed in range(5)]
    assert receive(inbox, b"".join(frames), [chunk]) == frames


@given(
    sizes=st.lists(st.one_of(st.sampled_from(SIZES), st.integers(4, 2000)), max_size=12),
    chunks=st.lists(st.one_of(st.integers(1, 300), st.sampled_from([BLOCK_SIZE, 1 << 20])), min_size=1, max_size=5),
    count_max=st.integers(1, 4),
)
def test_any_frames_in_any_chunks_come_out_in_order(sizes: list[int], chunks: list[int], count_max: int) -> None:
    frames = [make_frame(size, seed) for seed, size in enumerate(sizes)]
    if sum(sizes) > 20_000:  # single bytes would take too long
        chunks = [max(chunk, 977) for chunk in chunks]
    assert receive(Inbox(Pool(), measure), b"".join(frames), chunks, count_max) == frames


def test_at_most_the_asked_number_of_frames_is_given(inbox: Inbox) -> None:
    feed(inbox, b"".join(make_frame(4) for _ in range(5)))
    assert [len(list(inbox.frames(2))) for _ in range(4)] == [2, 2, 1, 0]


def test_unread_counts_what_is_in_no_frame_yet(inbox: Inbox) -> None:
    feed(inbox, make_frame(10) + make_frame(20)[:7])
    assert inbox.unread == 17
    list(inbox.frames(10))
    assert inbox.unread == 7


@given(sizes=st.lists(st.sampled_from([4, 300, 40_000, 70_000, 200_000]), min_size=2, max_size=6))
def test_views_stay_intact_until_the_next_call_whatever_arrives(sizes: list[int]) -> None:
    """Also while bytes keep coming that need fresh blocks: those in use are given back only by the next call."""
    inbox, pool_frames = Inbox(Pool(), measure), [make_frame(size, seed) for seed, size in enumerate(sizes)]
    data = memoryview(b"".join(pool_frames))
    position = 0
    whole: list[bytes] = []
    while position < len(data):
        kept: list[memoryview] = []
        for view in inbox.frames(100):
            kept.append(view)
            if position < len(data):
                position += feed(inbox, bytes(data[position : position + 30_000]))
        for _ in range(3):
            if position < len(data):
                position += feed(inbox, bytes(data[position : position + 50_000]))
        whole += [bytes(view) for view in kept]
    whole += [bytes(view) for view in inbox.frames(100)]
    assert whole == pool_frames


def test_block_of_a_frame_is_reused_only_by_the_next_call() -> None:
    pool = Pool()
    inbox = Inbox(pool, measure)
    feed(inbox, make_frame(100, 1))
    (view,) = inbox.frames(10)
    before = bytes(view)
    stranger = Inbox(pool, measure)
    feed(stranger, b"\xff" * BLOCK_SIZE)
    assert view == before
    assert list(inbox.frames(10)) == []
    feed(Inbox(pool, measure), b"\xee" * BLOCK_SIZE)
    assert view != before


def test_large_frame_is_received_where_it_is_read(inbox: Inbox) -> None:
    """Once its size is known, its body needs no copy: the space ends where the frame does."""
    frame = make_frame(10 * BLOCK_SIZE)
    feed(inbox, frame[:4])
    assert list(inbox.frames(10)) == []
    assert len(inbox.space()) == len(frame) - 4
    feed(inbox, frame[4:])
    (view,) = inbox.frames(10)
    assert view == frame


def test_complete_large_frame_stays_where_it_is_when_more_arrives(inbox: Inbox) -> None:
    first, second = make_frame(3 * BLOCK_SIZE, seed=1), make_frame(3 * BLOCK_SIZE, seed=2)
    home: memoryview | None = None
    for frame in (first, second):
        position = 0
        while position < len(frame):
            position += feed(inbox, frame[position:])
        home = home or inbox._block
    assert inbox.unread == len(first) + len(second)
    views = list(inbox.frames(2))
    assert views == [first, second]
    assert home is not None
    assert views[0].obj is home.obj


class CountingPool(Pool):
    """taken: how often a block was. held: how many are with inboxes now."""

    taken = held = 0

    def take(self, size: int = BLOCK_SIZE) -> memoryview:
        self.taken += 1
        self.held += 1
        return super().take(size)

    def give(self, block: memoryview) -> None:
        self.held -= 1
        super().give(block)


def test_next_frames_of_a_producer_need_no_second_block() -> None:
    pool = CountingPool()
    inbox = Inbox(pool, measure)
    frame = make_frame(5 * BLOCK_SIZE)
    receive(inbox, frame, [1 << 30])
    pool.taken = 0
    assert receive(inbox, frame * 3, [1 << 30]) == [frame] * 3
    assert pool.taken == 3


@pytest.mark.parametrize("size", [10, BLOCK_SIZE + 1, 5 * BLOCK_SIZE])
def test_blocks_are_free_once_their_frames_are_dealt_with(size: int) -> None:
    pool = CountingPool()
    inbox = Inbox(pool, measure)
    data, position = make_frame(size), 0
    while position < size:
        position += feed(inbox, data[position:])
    for frame in inbox.frames(1):
        assert (len(frame), pool.held > 0) == (size, True)
    inbox.reuse()
    assert pool.held == 0


def test_idle_inbox_holds_no_block() -> None:
    pool = Pool()
    inbox = Inbox(pool, measure)
    block = pool.take(1)
    pool.give(block)
    receive(inbox, make_frame(10), [1 << 30])
    assert pool.take(1) is block


def test_unasked_bytes_grow_the_block_by_doubling(inbox: Inbox) -> None:
    """Nobody takes the frames while a connection is busy; nothing that arrived may get lost."""
    frames = [make_frame(1000, seed) for seed in range(1000)]
    data = b"".join(frames)
    position = 0
    while position < len(data):
        position += feed(inbox, data[position:], 50_000)
    assert inbox.unread == len(data)
    assert [bytes(view) for view in inbox.frames(2000)] == frames


def test_wire_error_of_a_frame_comes_after_the_frames_before_it(inbox: Inbox) -> None:
    feed(inbox, make_frame(10) + bytes(4))
    frames = inbox.frames(10)
    assert bytes(next(frames)) == make_frame(10)
    with pytest.raises(WireError):
        next(frames)


def test_closed_inbox_gives_its_blocks_back() -> None:
    pool = Pool()
    inbox = Inbox(pool, measure)
    feed(inbox, make_frame(10) + b"\x09")
    block = pool.take(1)
    inbox.close()
    assert inbox.unread == 0
    assert pool.take(1) is not block
    inbox.close()


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (1, BLOCK_SIZE),
        (BLOCK_SIZE, BLOCK_SIZE),
        (BLOCK_SIZE + 1, 2 * BLOCK_SIZE),
        (300_000, 524_288),
        (1 << 20, 1 << 20),
    ],
)
def test_pool_blocks_are_powers_of_two(asked: int, given: int) -> None:
    assert len(Pool().take(asked)) == given


def test_pool_keeps_no_more_than_its_limit() -> None:
    pool = Pool()
    block = memoryview(bytearray(POOLED_SIZE_MAX // 4))
    for _ in range(5):
        pool.give(block)
    blocks = [pool.take(len(block)) for _ in range(5)]
    assert [taken is block for taken in blocks] == [True] * 4 + [False]


def test_pool_makes_room_again_when_a_block_is_taken() -> None:
    pool = Pool()
    large, small = memoryview(bytearray(POOLED_SIZE_MAX)), memoryview(bytearray(2 * BLOCK_SIZE))
    pool.give(large)
    pool.give(small)
    assert pool.take(2 * BLOCK_SIZE) is not small
    assert pool.take(POOLED_SIZE_MAX) is large
    pool.give(small)
    assert pool.take(2 * BLOCK_SIZE) is small


def test_pool_keeps_no_more_small_blocks_than_its_limit() -> None:
    pool = Pool()
    blocks = [pool.take() for _ in range(POOLED_COUNT_MAX + 1)]
    for block in blocks:
        pool.give(block)
    taken = [pool.take() for _ in blocks]
    assert sum(any(block is kept for kept in blocks) for block in taken) == POOLED_COUNT_MAX
