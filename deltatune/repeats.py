"""Of a block that ran, what holds for the blocks that it ran for: paths of the same thing in all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping


class Copies:
    """For a path of a block that ran, the paths of the same thing in all blocks that it ran for."""

    def __init__(self, repeats: Mapping[str, str], paths: list[str]):
        self.order = {p: i for i, p in enumerate(paths)}
        self.likes: dict[str, list[str]] = {}  # names beside that of a block that ran
        for block, ran in repeats.items():
            self.likes.setdefault(ran, []).append(block.rpartition(".")[2])

    def images(self, path: str) -> list[str]:
        """The path itself and its likes."""
        heads, known = [""], ""
        for name in path.split("."):
            known = f"{known}.{name}" if known else name
            heads = [f"{h}.{n}" if h else n for n in (name, *self.likes.get(known, ())) for h in heads]
        return heads

    def of(self, paths: Iterable[str]) -> list[str]:
        """All likes of some paths, each once, in the model's order."""
        every = {image for p in paths for image in self.images(p) if image in self.order}
        return sorted(every, key=self.order.__getitem__)

    def rows(self, paths: list[str]) -> list[list[str]]:
        """The likes of several paths side by side, block by block."""
        columns = [self.images(p) for p in paths]
        shared = min(map(len, columns), default=0)
        return [[c[i] for c in columns] for i in range(shared)]

    def pairs(self, inner: str, outer: str) -> Iterator[tuple[str, str]]:
        """The likes of two paths of which the second holds the first (or is the model, "")."""
        depth = len(outer.split(".")) if outer else 0
        for image in self.images(inner):
            if image in self.order:
                yield image, ".".join(image.split(".")[:depth])
