"""A file is never stored so that restoring it reads more than it has."""

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.formats.source import MemorySource
from holdfast.objectstore.opening import open_store
from holdfast.vault.bases import BaseChoice, RestoreBudget, most_stored
from holdfast.vault.codec import encode
from holdfast.vault.records import MAX_DEPTH, Entry
from holdfast.vault.repository import init_vault
from vaults import SMALL_BLOCK, SMALL_PACK, bf16_history, history, noise, oid_of, read_all


def chain_of(stored: list[int], name: str = "p") -> list[Entry]:
    """A chain whose first place is the deepest."""
    depth = len(stored) - 1
    return [
        Entry(bytes([number] * 32), name, number * 1000, size, 1000, b"x" if number < depth else b"", depth - number, 0)
        for number, size in enumerate(stored)
    ]


blobs = st.lists(
    st.tuples(
        st.integers(1, 1000),  # plain
        st.floats(0, 1),  # how much of it is left without a base
        st.floats(0, 1),  # and with one
        st.integers(0, 3),  # which chain of bases; 0 for none
    ),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=300)
@given(
    blobs,
    st.lists(st.lists(st.integers(1, 1000), min_size=1, max_size=4), min_size=3, max_size=3),
    st.lists(st.integers(1, 500), max_size=3),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_the_rule(
    pieces: list[tuple[int, float, float, int]], chains: list[list[int]], there: list[int], ratio: float
) -> None:
    size = sum(plain for plain, *_ in pieces) + 1000 * len(there)
    budget = RestoreBudget(size * ratio)
    known = [chain_of([stored], f"known{number}") for number, stored in enumerate(there)]
    read: dict[tuple[str, int], int] = {}
    for chain in known:
        budget.count(chain)
        read |= {(entry.pack, entry.offset): entry.stored for entry in chain}
    for plain, *_ in pieces:
        budget.expect(plain)
    choice = BaseChoice(budget)
    own, deltas = 0, 0
    for plain, alone, delta, number in pieces:
        chain = choice.candidate(plain, chain_of(chains[number - 1], f"chain{number}")) if number else ()
        nbytes = int(plain * delta)
        if chain:
            choice.tried(plain, nbytes)
        if chain and budget.allows(plain, nbytes, chain):
            deltas += 1
            own += nbytes
            read |= {(entry.pack, entry.offset): entry.stored for entry in chain}
            budget.encoded(plain, nbytes, chain)
        else:
            nbytes = min(int(plain * alone), most_stored(plain))
            own += nbytes
            budget.encoded(plain, nbytes)
    assert budget.reads == own + sum(read.values())
    if deltas:
        assert own + sum(read.values()) <= size * ratio


def test_no_base_is_deeper_than_what_may_be() -> None:
    budget = RestoreBudget(10**9)
    budget.expect(1000)
    chain = chain_of([10] * (MAX_DEPTH + 1))
    assert chain[0].depth == MAX_DEPTH
    # half-way down: so many again follow one another closely before the next leap
    assert BaseChoice(budget).candidate(1000, chain)[0].depth == MAX_DEPTH // 2
    assert BaseChoice(budget).candidate(1000, chain[1:])[0].depth == MAX_DEPTH - 1


def test_a_nearer_base_is_passed_over_where_it_reads_too_much() -> None:
    budget = RestoreBudget(1000)
    budget.expect(1000)
    # the delta below it tells how large this one will be
    assert list(BaseChoice(budget).candidate(1000, chain_of([400, 500]))) == chain_of([400, 500])[1:]
    assert list(BaseChoice(budget).candidate(1000, chain_of([100, 500]))) == chain_of([100, 500])


@given(st.integers(0, 3 << 20))
@settings(deadline=None, max_examples=10)
def test_the_most_that_a_blob_takes(size: int) -> None:
    assert len(encode(noise(size, size), "bytes")) <= most_stored(size)


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=7),
    st.sampled_from(["bf16", "fp32"]),
    st.sampled_from([0.75, 1.0, 1.5]),
)
def test_in_a_vault_no_restore_reads_more(order: list[int], form: str, ratio: float) -> None:
    versions = bf16_history(6, elements=50_000) if form == "bf16" else history(6, elements=20_000)
    files = [versions[number] for number in order]
    with init_vault(open_store("memory://"), None, block_bytes=SMALL_BLOCK, pack_bytes=SMALL_PACK, jobs=2) as vault:
        for number, data in enumerate(files):
            with vault.session(max_restore_ratio=ratio) as session:
                base = oid_of(files[number - 1]) if number else None
                session.put(oid_of(data), MemorySource(data), base_oid=base)
                session.commit()
        read_all(vault, files)
        for data in files:
            entries = vault.plan(vault.recipe(oid_of(data))).entries.values()
            if any(entry.depth for entry in entries):
                assert sum(entry.stored for entry in entries) <= len(data) * ratio
