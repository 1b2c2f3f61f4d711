"""A second opinion on a checkpoint's pickles, by fickling.

What `holdfast.formats` itself reads is safe, because it runs nothing. The question here is another one: what the file
would do to someone who unpickles it. fickling decompiles a pickle to Python, which a hostile one can make very long: it
runs in a process of its own, with little memory and little time, and where it does not answer the verdict is *unknown*,
never *clean*.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

from holdfast.formats.archive import member_bytes
from holdfast.formats.checkpoint import Checkpoint

MAX_PICKLE_BYTES = 2_000_000
MAX_MEMORY_BYTES = 150_000_000  # beyond what the interpreter and fickling take themselves
MAX_SECONDS = 20
MAX_FINDINGS = 20
UNKNOWN = "unknown"
SUSPICIOUS = 2  # the rank from which a verdict stands, though another pickle got none

CHILD = """
import json, resource, sys
import fickling.analysis, fickling.fickle
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
limit = size + int(sys.argv[1])
if size:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), int(sys.argv[2])))
data = sys.stdin.buffer.read()
try:
    stack = list(fickling.fickle.StackedPickle.load(data))  # one behind the other, as in torch's old files
except Exception:
    stack = [fickling.fickle.Pickled.load(data)]  # what follows the first is none
result = max((fickling.analysis.check_safety(pickled) for pickled in stack), key=lambda one: one.severity)
severity = result.severity
rank = sorted(type(severity), key=lambda item: item.value[0] if isinstance(item.value, tuple) else item.value)
lines = [str(item.message or item.severity.name) for item in result.results if str(item.message or "")]
json.dump([rank.index(severity), severity.name.lower().replace("_", " "), lines[:50]], sys.stdout)
"""


@dataclass(frozen=True)
class Safety:
    """What is known of a checkpoint's pickles.

    Attributes:
        pickles: how many there are.
        foreign: what they call or import besides what rebuilds tensors and plain values.
        verdict: the worst that fickling says of one (its ``Severity``, in lower case and words), or ``unknown``.
        findings: its reasons.
    """

    pickles: int
    foreign: tuple[str, ...]
    verdict: str
    findings: tuple[str, ...]


def pickle_safety(checkpoint: Checkpoint) -> Safety:
    """Judge the pickles of a checkpoint, running nothing of them.

    Raises:
        IntegrityError: a pickle cannot be read.
        OSError: the file cannot be read.
    """
    foreign = tuple(dict.fromkeys(name for pickle in checkpoint.pickles for name in pickle.foreign))
    verdicts = []
    for pickle in checkpoint.pickles:
        if pickle.storage.plain_nbytes > MAX_PICKLE_BYTES:
            verdicts.append((0, UNKNOWN, [f"a pickle of {pickle.storage.plain_nbytes:,} bytes is too long to judge"]))
        else:
            verdicts.append(_ask(member_bytes(checkpoint.source, pickle.storage, MAX_PICKLE_BYTES)))
    worst = max(verdicts, default=(0, UNKNOWN, []), key=lambda item: item[0])
    unanswered = [item for item in verdicts if item[1] == UNKNOWN]
    _, verdict, findings = unanswered[0] if unanswered and worst[0] < SUSPICIOUS else worst
    return Safety(len(checkpoint.pickles), foreign, verdict, tuple(findings[:MAX_FINDINGS]))


def _ask(data: bytes) -> tuple[int, str, list[str]]:
    try:
        answer = subprocess.run(
            [sys.executable, "-I", "-c", CHILD, str(MAX_MEMORY_BYTES), str(MAX_SECONDS)],
            input=data,
            capture_output=True,
            timeout=2 * MAX_SECONDS,
            check=True,
        )
        rank, verdict, findings = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return 0, UNKNOWN, ["fickling gave no answer"]
    return int(rank), str(verdict), [" ".join(str(line).split()) for line in findings]
