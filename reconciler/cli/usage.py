"""The command line's grammar: the parser itself, how wide its help is, and what it says of words that nobody knows."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable

TYPE_CHECKING = False  # as in typing, whose import would take a tenth of what --help may take
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Usage errors are problems that we name: exit code 1 (2 means "plan found changes").

    Options are written in full: what is short for one today could be short for another tomorrow.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, formatter_class=Help, allow_abbrev=False)

    def format_help(self) -> str:
        """With examples of the verb: read only when somebody asks for help."""
        options = super().format_help()
        if not (verb := self.prog.partition(" ")[2]):
            return options
        from reconciler.cli.examples import lines

        return options + lines(verb)

    def error(self, message: str) -> NoReturn:
        self.refuse(message)

    def refuse(self, message: str, word: str = "", words: Iterable[str] = ()) -> NoReturn:
        """word: what is wrong; words: what it could have been."""
        near = _near(word, words) if word else None
        hint = f"did you mean {near}?" if near else f"{self.prog} --help"
        sys.stderr.write(f"{self.prog}: {message}\n  hint: {hint}\n")
        sys.exit(1)

    def refuse_rest(self, rest: list[str]) -> NoReturn:
        """What is left over when everything that this verb takes has been taken."""
        option = next((word.partition("=")[0] for word in rest if word.startswith("-")), None)
        if option is None:
            behind = "-- COMMAND" in self.format_usage()
            more = "; a command stands behind --" if behind else ""
            self.refuse(f"takes no more words, got {' '.join(map(repr, rest))}{more}")
        lines = (line.split() for line in self.format_help().splitlines() if line.lstrip().startswith("-"))
        known = {word.strip(",") for words in lines for word in words if word.startswith("--")}
        self.refuse(f"there is no option {option}", option, known)


class Help(argparse.HelpFormatter):
    """As wide as the terminal. Left to itself, argparse asks shutil, which brings every archive format along."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or 80
    except (OSError, ValueError):  # no terminal, or no file at all
        return 80


def _near(word: str, words: Iterable[str]) -> str | None:
    import difflib

    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.7)
    return found[0] if found else None
