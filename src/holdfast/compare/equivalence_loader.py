"""The user's own function that makes a model of a checkpoint: found, called with what it asks for, its failures told.

A loader is named ``package.module:function`` or ``path/to/file.py:function``, and so may be a class or a class method.
It asks by the names of its parameters, in any order; all others need defaults:

    ``state`` or ``state_dict``  the weights, ``dict[str, torch.Tensor]`` on the CPU, names relative to their container
    ``metadata``                 the values beside them by their names in the file, as ``holdfast show`` lists them
    ``checkpoint``               all of a torch file, as ``torch.load(…, weights_only=True)`` gives it
    ``path``                     the file, a `pathlib.Path`

It returns a ``torch.nn.Module`` or another callable, with its weights in it. One that asks for nothing of these, such
as the class of a model, gives a fresh ``torch.nn.Module``, and Holdfast puts the weights into it.
"""

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType, TracebackType
from typing import Any

from holdfast.errors import HoldfastError, UsageError

STATE_NAMES = ("state", "state_dict")
ASKED = (*STATE_NAMES, "metadata", "checkpoint", "path")
MAX_MESSAGE_CHARACTERS = 300
NAMES_SHOWN = 8
EXAMPLE = "Name it as package.module:function or path/to/file.py:function"
LIBRARIES = ("site-packages", "dist-packages")


class LoaderError(HoldfastError):
    """The user's loader cannot be imported or fails, or what it gives is no model."""


class Loader:
    """A function of the user's that makes a model.

    Attributes:
        text: as the user named it.
        asks: the names of `ASKED` that it takes; where it takes none, it makes a fresh model.
    """

    def __init__(self, text: str, function: Callable[..., Any], folder: Path) -> None:
        self.text = text
        self._function = function
        self._folder = folder
        self._positional, self._named = _parameters(text, function)
        self.asks = frozenset((*self._positional, *self._named))

    def call(self, given: Mapping[str, Any], name: str) -> Any:
        """Call it for the checkpoint ``name``.

        Args:
            given: a value for each of `asks`.
            name: the checkpoint, for the error.

        Raises:
            LoaderError: it raises; the message has the user's own line.
        """
        arguments = [given[asked] for asked in self._positional]
        try:
            return self._function(*arguments, **{asked: given[asked] for asked in self._named})
        except HoldfastError:
            raise
        except (Exception, SystemExit) as error:
            raise LoaderError(
                f"{self.text} failed on {name}: {told(error, self._folder)}",
                hint="`holdfast -v equivalence …` shows the traceback",
            ) from error


class Loaders:
    """Finds loaders, while ``with`` lasts: the user's folders can be imported from, and get no ``__pycache__``.

    Args:
        folder: where module names and relative files start from.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._files: dict[Path, ModuleType] = {}

    def __enter__(self) -> "Loaders":
        self._path, self._bytecode = list(sys.path), sys.dont_write_bytecode
        # new files in a folder that a DVC stage depends on would make the stage stale
        sys.dont_write_bytecode = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.path[:], sys.dont_write_bytecode = self._path, self._bytecode
        for module in self._files.values():
            sys.modules.pop(module.__name__, None)

    def find(self, text: str) -> Loader:
        """Import the module of a loader, which runs it.

        Raises:
            UsageError: ``text`` is no loader's name, or there is no such module, file or function.
            LoaderError: the module fails to be imported, or the function wants what no loader is given.
        """
        place, colon, attribute = text.rpartition(":")
        if not (place and colon and attribute):
            raise UsageError(f"{text!r} names no loader", hint=EXAMPLE)
        try:
            module = self._file(text, place) if place.endswith(".py") else self._module(text, place)
        except HoldfastError:
            raise
        except (Exception, SystemExit) as error:
            raise LoaderError(
                f"{place} cannot be imported: {told(error, self._folder)}",
                hint="`holdfast -v equivalence …` shows the traceback",
            ) from error
        found: Any = module
        for name in attribute.split("."):
            if not hasattr(found, name):
                own = [
                    key
                    for key, value in vars(module).items()
                    if isinstance(value, (type, FunctionType)) and key[0] != "_"
                ]
                raise UsageError(
                    f"{place} has no {attribute}", hint=f"It has {', '.join(own[:NAMES_SHOWN]) or 'no function'}"
                )
            found = getattr(found, name)
        if not callable(found):
            raise UsageError(f"{text} is a {type(found).__name__}, not a function")
        if hasattr(found, "load_state_dict") and not isinstance(found, type):
            raise UsageError(f"{text} is a model already, not a function that makes one", hint=EXAMPLE)
        return Loader(text, found, self._folder)

    def _module(self, text: str, name: str) -> ModuleType:
        self._reach(self._folder)
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise UsageError(
                    f"there is no module {name} for the loader {text}",
                    hint=f"Modules are looked up from {self._folder}; {EXAMPLE}",
                ) from error
            raise

    def _file(self, text: str, name: str) -> ModuleType:
        path = (self._folder / name).resolve()
        if path in self._files:
            return self._files[path]
        if not path.is_file():
            raise UsageError(f"there is no file {name} for the loader {text}", hint=EXAMPLE)
        self._reach(self._folder)
        self._reach(path.parent)  # as for a script, what lies beside it comes first
        spec = importlib.util.spec_from_file_location(f"holdfast_loader_{len(self._files)}_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        self._files[path] = sys.modules[spec.name] = module  # dataclasses look up their module there
        spec.loader.exec_module(module)
        return module

    def _reach(self, folder: Path) -> None:
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
        importlib.invalidate_caches()


def told(error: BaseException, folder: Path) -> str:
    """An exception of the user's code in one line, with the user's own file and line that it came from."""
    message = shortened(error)
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({_relative(error.filename, folder)}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{text} ({_relative(frames[-1].filename, folder)}:{frames[-1].lineno})" if frames else text


def shortened(error: BaseException) -> str:
    """What an exception says, in one line of bearable length."""
    message = " ".join(str(error).split())
    return message if len(message) <= MAX_MESSAGE_CHARACTERS else f"{message[:MAX_MESSAGE_CHARACTERS]}…"


def _is_users(filename: str) -> bool:
    path = Path(filename)
    if filename.startswith("<") or any(name in path.parts for name in LIBRARIES):
        return False
    ours = Path(__file__).parent.parent
    standard = Path(traceback.__file__).parent
    return not (path.is_relative_to(ours) or path.is_relative_to(standard))


def _relative(filename: str, folder: Path) -> str:
    path = Path(filename)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else filename


def _parameters(text: str, function: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of `ASKED` that it takes: by position alone, and by name."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError) as error:
        raise LoaderError(f"{text} does not say what it takes", hint="Wrap it: def load(path): …") from error
    positional: list[str] = []
    named: list[str] = []
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name in ASKED:
            (positional if parameter.kind is parameter.POSITIONAL_ONLY else named).append(parameter.name)
        elif parameter.default is parameter.empty:
            name = text.rpartition(":")[2]
            model = f"model = {name}(…); model.load_state_dict(state); return model"
            wrapped = (
                f"def load(state): {model}" if isinstance(function, type) else f"def load(path): return {name}(path)"
            )
            raise LoaderError(
                f"{text} wants {parameter.name!r}, which no loader is given",
                hint=f"A loader takes {', '.join(ASKED)}, or nothing; wrap it: {wrapped}",
            )
    return tuple(positional), tuple(named)
