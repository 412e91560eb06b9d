"""Patterns of paths, which tell images from label maps and pair them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

from monai_salm.layouts.files import LayoutError
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
        wildcards = {"**/": "((?:[^/]+/)*)", "*": "([^/]*)", "?": "([^/])"}
        if token in wildcards:
            return wildcards[token]
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
        found, place = self._regex.fullmatch(file), self._regex.groupindex.get("word")
        if found is None:
            return None
        texts = tuple(text for number, text in enumerate(found.groups(), 1) if number != place)
        return texts, found["word"] if place else ""


def split_patterns(text: str) -> tuple[str, str] | None:
    """The patterns of images and of label maps in ``"IMAGES -> LABELS"``; None for text without an arrow."""
    images, arrow, labels = (part.strip() for part in text.partition(ARROW))
    if not arrow:
        return None
    if not images or not labels:
        raise LayoutError(f"{text!r} must be two patterns, IMAGES {ARROW} LABELS")
    return images, labels


def pair_by_patterns(files: Iterable[str], images: str, labels: str) -> Pairs:
    """Find images and their label maps by patterns; what the wildcards stand for must be the same.

    Words in braces are the channels of an image, in their order. A label pattern with one wildcard more than the image pattern,
    or with words in braces, gives a label map for each class. Where both stand in folders of their own, such as
    ``*/images/*.png`` and ``*/masks/*.png``, and one holds a single image, all label maps of the other are of that image.
    """
    image_pattern, label_pattern = PathPattern(images), PathPattern(labels)
    found = defaultdict[Key, dict[str, str]](dict)
    others = []
    for file in sorted(files):
        if (label := label_pattern.match(file)) is not None:
            others.append((file, *label))
        elif (image := image_pattern.match(file)) is not None:
            same = found[image[0],].setdefault(image[1], file)
            if same != file:
                raise LayoutError(f"{same} and {file} are the same image by the pattern {images!r}; make it narrower")
    for kind, pattern, some in (("image", images, found), ("label map", labels, others)):
        if not some:
            raise LayoutError(f"no {kind} is named {pattern!r}; patterns are relative to the data set's folder")
    # Images that differ from all others in what the wildcards but the last stand for.
    alike = Counter(texts[:-1] for (texts,) in found)
    only = {texts[:-1]: (texts,) for (texts,) in found if alike[texts[:-1]] == 1 and len(texts) > 1}
    only = only if _in_folders_of_their_own(images, labels) else {}
    maps, alone = defaultdict[Key, list[tuple[str, str]]](list), []
    for file, texts, word in others:
        shorter = (texts,) not in found and (texts[:-1],) in found
        key = (texts,) if (texts,) in found else (texts[:-1],) if shorter else only.get(texts[:-1])
        if key is None:
            alone.append(file)
        else:
            maps[key].append((word or (texts[-1] if shorter else ""), file))
    order = image_pattern.words or ("",)
    channels = {key: tuple(own[word] for word in order if word in own) for key, own in found.items()}
    return Pairs(channels, {key: tuple(some) for key, some in maps.items()}, tuple(alone))


def _in_folders_of_their_own(images: str, labels: str) -> bool:
    """Whether files are told by one wildcard in their names, and images and label maps lie in different folders of a case."""
    (folder, _, image), (other, _, label) = images.rpartition("/"), labels.rpartition("/")
    told = all(len([token for token in _TOKEN.findall(name) if token in ("*", "?")]) == 1 for name in (image, label))
    return told and folder != other and "*" in folder
