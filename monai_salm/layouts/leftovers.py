"""What programs leave in folders, told by name: no part of a data set, never read and never published."""

from __future__ import annotations

import re

# Folders by name, in small letters -> what they are.
_CONTROL = "a folder of version or data control, which may keep the originals"
_THUMBNAILS = "a folder of thumbnails"
_SYSTEM = "a folder of the system"
_FOLDERS = {
    **dict.fromkeys((".git", ".hg", ".svn", ".bzr", ".jj", ".dvc", ".datalad", "_darcs"), _CONTROL),
    **dict.fromkeys(
        ("@eadir", ".@__thumb", "@__thumb", ".thumbnails", "thumbnails", "thumbs", ".picasaoriginals"), _THUMBNAILS
    ),
    **dict.fromkeys(("$recycle.bin", "#recycle", "@recycle", "lost+found", "system volume information"), _SYSTEM),
    **dict.fromkeys(("__macosx", "#snapshot", "@recently-snapshot", "~snapshot", "@tmp"), _SYSTEM),
    ".ipynb_checkpoints": "copies that a notebook left",
    "__pycache__": "a folder of a program",
}
_THUMBNAIL_FILES = ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db")
_SYSTEM_FILES = ("desktop.ini", "icon\r", "autorun.inf")
# Hidden files that tell something about the data set.
_KNOWN = (".bidsignore", ".gitattributes", ".gitignore", ".gitmodules", ".zenodo.json")
_BACKUP = re.compile(
    r"(?i).*(~|\.(bak|backup|old|orig|rej|save|sw[a-p]|te?mp|part|partial|crdownload|filepart)\d*)|~\$.*|#.*#"
)


def why_folder(name: str) -> str | None:
    """What a folder is that a program left, by its own name; None for one of a data set."""
    found = _FOLDERS.get(name.lower())
    return found or ("a hidden folder" if name.startswith(".") and name != "." else None)


def why_file(name: str) -> str | None:
    """What a file is that a program left, by its own name; None for one of a data set."""
    small = name.lower()
    if small in _THUMBNAIL_FILES:
        return "thumbnails of the images"
    if small in _SYSTEM_FILES:
        return "a file of the system"
    if small == "dicomdir":
        return "an index of DICOM instances, whose UIDs and icons a protected copy does not have; make a new one after publishing"
    if _BACKUP.fullmatch(name):
        return "a backup or a file that was not written to its end"
    return "a hidden file" if name.startswith(".") and small not in _KNOWN else None
