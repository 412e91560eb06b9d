"""Patterns of paths that say which files are images and which are their label maps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from monai_salm.layouts.base import LayoutError
from monai_salm.layouts.roles import Key, Pairs

_TOKEN = re.compile(r"\*\*/|\*|\?|\[[^\]]+\]|\{[^{}]*\}|[^*?\[{]+|.", re.DOTALL)
_MOST_WILDCARDS = 10
#: Stands between the pattern of images and that of label maps.
ARROW = "->"


class PathPattern:
    """A pattern of paths relative to a data set's root.

    ``*`` and ``?`` stay in one folder, ``**/`` is any number of folders, ``[0-9]`` one of some characters, and ``{t1,t2}`` one
    of some words.
    """

    def __init__(self, text: str) -> None:
        self.text, self.words = text, tuple[str, ...]()
        tokens = _TOKEN.findall(text)
        if sum(token in ("*", "**/") for token in tokens) > _MOST_WILDCARDS:
            raise LayoutError(f"the pattern {text!r} has more than {_MOST_WILDCARDS} wildcards")
        try:
            self._regex = re.compile("".join(map(self._part, tokens)), re.DOTALL)
        except re.error as error:
            raise LayoutError(f"the pattern {text!r} is none ({error})") from error

    def _part(self, token: str) -> str:
        if token == "**/":
            return "((?:[^/]+/)*)"
        if token in ("*", "?"):
            return "([^/]*)" if token == "*" else "([^/])"
        if token.startswith("[") and token.endswith("]") and len(token) > 2:
            inner = token[1:-1].replace("\\", r"\\")
            return f"([{'^' + inner[1:] if inner.startswith('!') else inner}])"
        if token.startswith("{") and token.endswith("}"):
            if self.words:
                raise LayoutError(f"the pattern {self.text!r} has two lists in braces; only one is possible")
            self.words = tuple(token[1:-1].split(","))
            return f"(?P<word>{'|'.join(map(re.escape, self.words))})"
        return re.escape(token)

    def match(self, file: str) -> tuple[tuple[str, ...], str] | None:
        """The parts of a path that the wildcards stand for, and the word of the braces; None for another path."""
        found = self._regex.fullmatch(file)
        if found is None:
            return None
        word = found["word"] if self.words else ""
        place = self._regex.groupindex.get("word")
        return tuple(text for number, text in enumerate(found.groups(), 1) if number != place), word


def split_patterns(text: str) -> tuple[str, str] | None:
    """The patterns of images and of label maps in ``"IMAGES -> LABELS"``; None for text without an arrow."""
    images, arrow, labels = text.partition(ARROW)
    if not arrow:
        return None
    if not images.strip() or not labels.strip():
        raise LayoutError(f"{text!r} must be two patterns, IMAGES {ARROW} LABELS")
    return images.strip(), labels.strip()


def pair_by_patterns(files: Iterable[str], images: str, labels: str) -> Pairs:
    """Find images and their label maps by patterns; what the wildcards stand for must be the same.

    Words in braces are the channels of an image, in their order. A label pattern with one wildcard more than the image pattern,
    or with words in braces, gives a label map for each class. Where both stand in folders of their own, such as
    ``*/images/*.png`` and ``*/masks/*.png``, and one holds a single image, all label maps of the other are of that image.

    Raises:
        LayoutError: if a pattern fits nothing, or two files are the same channel of an image.
    """
    image_pattern, label_pattern = PathPattern(images), PathPattern(labels)
    found: dict[Key, dict[str, str]] = {}
    maps: dict[Key, list[tuple[str, str]]] = {}
    others = []
    for file in sorted(files):
        label = label_pattern.match(file)
        if label is not None:
            others.append((file, *label))
        elif (image := image_pattern.match(file)) is not None:
            same = found.setdefault((image[0],), {}).setdefault(image[1], file)
            if same != file:
                raise LayoutError(f"{same} and {file} are the same image by the pattern {images!r}; make it narrower")
    for kind, pattern, some in (("image", images, found), ("label map", labels, others)):
        if not some:
            raise LayoutError(f"no {kind} is named {pattern!r}; patterns are relative to the data set's folder")
    alone = []
    only = _only_images(found) if _in_folders_of_their_own(images, labels) else {}
    for file, texts, word in others:
        key, name = _image_key(texts, found)
        key = only.get(texts[:-1]) if key is None and len(texts) > 1 else key
        if key is None:
            alone.append(file)
        else:
            maps.setdefault(key, []).append((word or name, file))
    order = image_pattern.words or ("",)
    channels = {key: tuple(files[word] for word in order if word in files) for key, files in found.items()}
    return Pairs(channels, {key: tuple(some) for key, some in maps.items()}, tuple(alone))


def _in_folders_of_their_own(images: str, labels: str) -> bool:
    """Whether files are told by one wildcard in their names, and images and label maps lie in different folders of a case."""
    (folder, _, image), (other, _, label) = images.rpartition("/"), labels.rpartition("/")
    told = all(len([token for token in _TOKEN.findall(name) if token in ("*", "?")]) == 1 for name in (image, label))
    return told and folder != other and "*" in folder


def _only_images(images: Iterable[Key]) -> dict[tuple[str, ...], Key]:
    """Images that differ from all others in what the wildcards but the last stand for."""
    same: dict[tuple[str, ...], list[Key]] = {}
    for (texts,) in images:
        same.setdefault(texts[:-1], []).append((texts,))
    return {texts: keys[0] for texts, keys in same.items() if len(keys) == 1 and len(keys[0][0]) == len(texts) + 1}


def _image_key(texts: tuple[str, ...], images: Iterable[Key]) -> tuple[Key | None, str]:
    """The image that a label map is of, and what its last wildcard stands for if that is one more."""
    known = images if isinstance(images, dict) else set(images)
    if (texts,) in known:
        return (texts,), ""
    return ((texts[:-1],), texts[-1]) if (texts[:-1],) in known else (None, "")


def suggested(files: Sequence[str]) -> str:
    """A pattern that fits files of the same name in several folders."""
    split = [file.split("/") for file in files]
    if any(len(parts) != len(split[0]) for parts in split):
        return f"**/{_common([parts[-1] for parts in split])}"
    return "/".join(_common(parts) for parts in zip(*split, strict=True))


def _common(names: Sequence[str]) -> str:
    """One name for several: a wildcard, and the words that all end with."""
    if len(set(names)) == 1:
        return names[0]
    ends = (names[0][start:] for start, sign in enumerate(names[0]) if not sign.isalnum())
    return "*" + next((end for end in ends if all(name.endswith(end) for name in names)), "")
