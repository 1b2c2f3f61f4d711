"""Opens hostile files in a process of its own, and says what came of each; run by test_formats_attacks.py.

python -m attacks.child FOLDER      every file in FOLDER, by name; prints JSON
"""

import json
import resource
import sys
import time
from pathlib import Path

from holdfast.errors import IntegrityError
from holdfast.formats.content import NoDigestError, checkpoint_weights_digest, tensor_chunks
from holdfast.formats.opening import open_checkpoint


def outcome(path: Path) -> str:
    """``damaged``, ``opaque`` or ``read``, and why; all that can be read is read."""
    try:
        source, checkpoint = open_checkpoint(path)
        with source:
            try:
                checkpoint_weights_digest(checkpoint)
            except NoDigestError:
                for tensor in checkpoint.tensors:
                    if tensor.nbytes < 1_000_000:
                        for _ in tensor_chunks(checkpoint, tensor):
                            pass
            _ = checkpoint.literal, checkpoint.ties
            json.dumps(dict(checkpoint.metadata), allow_nan=False).encode()
            [item.reason.encode() for item in checkpoint.opaque]
    except IntegrityError as error:
        one_line = "\n" not in str(error) and path.name in str(error)
        return f"damaged: {error}" if one_line else f"crashed: a message of many lines or no name: {error}"
    except Exception as error:
        return f"crashed: {error!r}"
    if checkpoint.opaque:
        return f"opaque: {checkpoint.opaque[0].reason}"
    return f"read: {len(checkpoint.tensors)} tensors"


def main() -> None:
    """Print ``{"outcomes": {name: [outcome, seconds]}, "peak": kB}``."""
    outcomes = {}
    for path in sorted(Path(sys.argv[1]).iterdir()):
        start = time.monotonic()
        outcomes[path.name] = [outcome(path), time.monotonic() - start]
    print(json.dumps({"outcomes": outcomes, "peak": peak()}))


def peak() -> int:
    """The most memory this process has held, in kB."""
    try:
        # ru_maxrss counts what the parent held when it started us
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
