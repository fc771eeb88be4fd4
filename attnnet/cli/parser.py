"""argparse with one-line errors that name the nearest right word."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


def one_line(text: str) -> str:
    """An error's text without its line breaks."""
    return " ".join(text.split())


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, with the nearest option or command."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        options.setdefault("allow_abbrev", False)  # a later option must not change a meaning
        super().__init__(**options)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse's; options that it does not know are reported with the nearest ones."""
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            chosen = self._chosen(getattr(parsed, "command", None))
            chosen.error(f"unknown option {rest[0]!r}.{_hint(rest[0], chosen.option_names())}")
        return parsed

    def _chosen(self, command: str | None) -> Parser:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction) and command in action.choices:
                return action.choices[command]
        return self

    def option_names(self) -> list[str]:
        """All options of this parser, for example ``--epochs``."""
        return [name for action in self._actions for name in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line and exit code 2."""
        invalid = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if invalid:
            choices = [choice.strip(" '\"") for choice in invalid[2].split(",")]
            message = (
                f"unknown {'command' if self.prog == 'attnnet' else 'choice'} {invalid[1]!r}."
                f"{_hint(invalid[1], choices)} Known: {', '.join(choices)}."
            )
        print(f"{self.prog}: error: {one_line(message)}", file=sys.stderr)
        raise SystemExit(2)


def _hint(got: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(got.split("=")[0], choices, n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else ""
