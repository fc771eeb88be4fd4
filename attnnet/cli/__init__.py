"""The command line: one file a command, imported when it is asked for.

Errors are one line on stderr. Exit codes: 0 done, 1 failed, 2 wrong usage (unknown option or
name), 130 or 143 interrupted by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from .parser import Parser, one_line

# name: what it does. The file of the same name holds add_arguments(parser) and run(args).
COMMANDS = {
    "train": "train a network, or go on with a training",
    "evaluate": "accuracy of a checkpoint: top-1, top-5, each class",
    "study": "which block, where, and is the difference real? Many trainings, compared",
    "infer": "what a network says of images",
    "cam": "where a network looks: class activation maps, guided backpropagation",
    "compare": "the same images through several networks, as a page",
    "plot": "accuracy and loss curves of trainings",
    "bench": "how fast it is here, and beside other systems",
    "list": "the models, blocks, data sets, presets and ready studies there are",
}

# What makes or reads networks, which may be one's own; a study's plan says that itself.
_OF_MODELS = ("train", "evaluate", "infer", "cam", "compare", "list")

_EPILOG = """examples:
  attnnet train                              ResNet18 NEW_12 on shapes, made on the spot
  attnnet train --preset resnet18-cifar100 --block CBAM_12 --data FOLDER
  attnnet train --resume runs/resnet18-NEW_12-shapes
  attnnet evaluate runs/resnet18-NEW_12-shapes

'attnnet COMMAND --help' tells the options of a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: the arguments after the program's name; None: those of this process.

    Returns:
        The exit code.
    """
    words = [*(sys.argv[1:] if argv is None else argv)]  # `list` is a command of this package
    try:
        return _run(words)
    except SystemExit as done:  # argparse's own, after --help, --version or a wrong option
        return done.code if isinstance(done.code, int) else 2
    except KeyboardInterrupt:
        print("attnnet: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`attnnet list | head`); Python would complain again
        # when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("ATTNNET_DEBUG"):
            raise
        return _fail(error)


def _run(words: list[str]) -> int:
    from importlib import import_module

    from .. import __version__
    from ..own import import_modules
    from .choice import add_imports_argument

    parser = Parser(
        prog="attnnet",
        description="Train, evaluate and look into attention networks on a CPU.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"attnnet {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    # Only the command in question is imported, so that each starts fast.
    wanted = next((word for word in words if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        sub = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
        if name == wanted:
            module = import_module(f"{__name__}.{name}")
            module.add_arguments(sub)
            if name in _OF_MODELS:
                add_imports_argument(sub)
            sub.set_defaults(run=module.run, words=words)
    args = parser.parse_args(words)
    if args.command is None:
        parser.print_help()
        return 2
    if args.command in _OF_MODELS:
        import_modules(args.imports, "--imports")
    return args.run(args)


def _fail(error: Exception) -> int:
    """Reports an error in one line; the exit code that goes with it."""
    from ..errors import CheckpointError, DataError, RankError

    if isinstance(error, (CheckpointError, DataError, RankError)):
        text, code = str(error), 1
    elif isinstance(error, OSError) and error.filename is not None:
        text, code = f"{error.filename}: {error.strerror}", 1
    elif isinstance(error, MemoryError):
        text, code = f"out of memory: {error}".rstrip(": "), 1
    elif isinstance(error, (ArithmeticError, OSError, ModuleNotFoundError)):
        text, code = str(error), 1
    elif isinstance(error, ValueError):
        text, code = str(error), 2
    else:
        raise error
    print(f"attnnet: error: {one_line(text)}", file=sys.stderr)
    return code
