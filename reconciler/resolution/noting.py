"""RESOLVE, again: mappings that note what was asked of them, so that whoever asked is asked anew when that changes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Noting(dict[K, V]):
    """Every key that somebody looked for goes into ``asked``, also one that is not there. Going through all of it is
    not noted: only who knows what it does with that may."""

    asked: set[Any]

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.asked = set()

    def __getitem__(self, key: K) -> V:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(key)
        return super().__contains__(key)

    def get(self, key: K, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def setdefault(self, key: K, default: Any = None) -> Any:
        self.asked.add(key)
        return super().setdefault(key, default)

    def keys(self) -> Any:
        raise TypeError("what is looked for among all of them could not be noted")
