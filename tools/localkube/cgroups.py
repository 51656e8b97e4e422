"""Manage the control group that holds the pods of one worker, in every hierarchy of cgroup v1, or in v2.

Removal includes the groups that kubelet and runc created below it. Must not touch another group.
"""

from pathlib import Path

from localkube.errors import KindError
from localkube.process import wait_until

_EMPTY_WITHIN = 10.0
# Those of v2 without which a kubelet refuses its group (getSupportedUnifiedControllers), where the machine has them.
_NEEDED = {"cpu", "cpuset", "memory", "hugetlb", "pids"}
_MOUNTS = Path("/proc/self/mountinfo")


def hierarchies(mountinfo: str) -> dict[Path, str]:
    """Return the mount points of control groups with their kind: ``cgroup`` (v1) or ``cgroup2``."""
    found = {}
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind = right.split()[0] if right else ""
        if kind in {"cgroup", "cgroup2"}:
            found[Path(left.split()[4])] = kind
    return found


def create(name: str) -> None:
    """Make the group in every hierarchy that limits something."""
    mounted = hierarchies(_MOUNTS.read_text())
    if not mounted:
        raise KindError("control groups are not mounted on this machine: mount them below /sys/fs/cgroup")
    unified = set(mounted.values()) == {"cgroup2"}
    for path, kind in mounted.items():
        if unified:
            _enable(path)
            (path / name).mkdir(exist_ok=True)
        elif kind == "cgroup":
            (path / name).mkdir(exist_ok=True)
            _inherit_cpus(path, path / name)


def remove(name: str) -> None:
    """Remove the group everywhere; its processes are dead, but the kernel may still be busy with them."""
    for group in leftovers(name):
        if not wait_until(lambda group=group: _removed(group), _EMPTY_WITHIN):  # type: ignore[misc]
            raise KindError(f"the control group {group} still has processes")


def leftovers(name: str) -> list[Path]:
    """The group's folders, one per hierarchy in which it exists."""
    return [group for path in hierarchies(_MOUNTS.read_text()) if (group := path / name).is_dir()]


def _enable(root: Path) -> None:
    """In v2 a group has the controllers that the group above grants to all below it."""
    offered = set((root / "cgroup.controllers").read_text().split())
    for controller in sorted(_NEEDED & offered):
        (root / "cgroup.subtree_control").write_text(f"+{controller}")


def _inherit_cpus(parent: Path, group: Path) -> None:
    """In v1 a new group of the cpuset hierarchy has no processor and no memory node."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        if (parent / file).exists():
            (group / file).write_text((parent / file).read_text())


def _removed(group: Path) -> bool:
    for folder in sorted(group.rglob("*/"), key=lambda path: len(path.parts), reverse=True):
        _remove(folder)
    _remove(group)
    return not group.exists()


def _remove(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:  # Busy: asked again; or gone by itself.
        return
