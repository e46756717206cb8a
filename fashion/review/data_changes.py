"""Changes to the data: the images of each class and split, and the files of folders that DVC tracks."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Folder:
    """A folder that DVC tracks and no stage makes, such as `images`.

    Attributes:
        md5: as in dvc.lock.
        count: number of files.
        files: MD5 by path; None if DVC's cache lacks the list.
    """

    md5: str
    count: int
    files: Mapping[str, str] | None


@dataclass(frozen=True)
class Data:
    """The data of a revision.

    Attributes:
        images: number of images of each class, by split; empty if unknown.
        folders: by path.
    """

    images: Mapping[str, Mapping[str, int]]
    folders: Mapping[str, Folder]


@dataclass(frozen=True)
class FolderChange:
    """A folder that differs between base and head.

    Attributes:
        counts: number of files in base and in head.
        files: paths by kind of change: added, removed, altered; None if unknown.
        moved: paths in base and in head of files with the same content.
    """

    counts: tuple[int, int]
    files: Mapping[str, tuple[str, ...]] | None
    moved: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DataChanges:
    """The differences between the data of base and head.

    Attributes:
        added, removed: classes.
        images: number of images in base and in head of each class where it differs, by split.
        totals: number of images in base and in head of each split in `images`.
        folders: by path.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    images: Mapping[str, Mapping[str, tuple[int, int]]]
    totals: Mapping[str, tuple[int, int]]
    folders: Mapping[str, FolderChange]


def compare(base: Data, head: Data) -> DataChanges:
    """Compare the data of two revisions; what is unknown in one of them counts as unchanged."""
    images: dict[str, dict[str, tuple[int, int]]] = {}
    for split in (split for split in head.images if split in base.images):
        before, after = base.images[split], head.images[split]
        pairs = {name: (before.get(name, 0), after.get(name, 0)) for name in {**before, **after}}
        if differing := {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}:
            images[split] = differing
    old, new = ({name for counts in data.images.values() for name in counts} for data in (base, head))
    return DataChanges(
        added=tuple(sorted(new - old)) if old else (),
        removed=tuple(sorted(old - new)) if new else (),
        images=images,
        totals={split: (sum(base.images[split].values()), sum(head.images[split].values())) for split in images},
        folders={
            path: _compare_folders(base.folders[path], folder)
            for path, folder in head.folders.items()
            if path in base.folders and base.folders[path].md5 != folder.md5
        },
    )


def _compare_folders(base: Folder, head: Folder) -> FolderChange:
    counts = (base.count, head.count)
    if base.files is None or head.files is None:
        return FolderChange(counts, None)
    before, after = base.files, head.files
    added, removed = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    old_paths: dict[str, list[str]] = {}
    for path in reversed(removed):
        old_paths.setdefault(before[path], []).append(path)
    moved = [(old_paths[after[path]].pop(), path) for path in added if old_paths.get(after[path])]
    sources, targets = ({pair[end] for pair in moved} for end in (0, 1))
    changes = {
        "added": tuple(path for path in added if path not in targets),
        "removed": tuple(path for path in removed if path not in sources),
        "altered": tuple(sorted(path for path in before if path in after and before[path] != after[path])),
    }
    return FolderChange(counts, {kind: paths for kind, paths in changes.items() if paths}, tuple(moved))
