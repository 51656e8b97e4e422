"""Create the namespaces of a worker node (mounts, network, processes) and its link to the host, and remove them.

Must not change a setting of the host, or mount anything that the host sees.
"""

import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from localkube import cgroups
from localkube.errors import KindError
from localkube.paths import make_private
from localkube.process import Launch, Process, environment, wait_until
from localkube.worker import Worker, cgroup_name, link_name
from localkube.worker_programs import NODE, node_folder, sysctls

NAMESPACES = ("--mount", "--net", "--pid", "--ipc", "--uts")
_LINK = "eth0"
_STARTED_WITHIN = 10.0
_REMOVED_WITHIN = 10.0
_LINKS = Path("/sys/class/net")
# Arguments: the node's folder, its address with prefix, the services' network, the host's address, the node's name.
_SET_UP = f"""
mount --make-rshared /
mount -t tmpfs -o mode=755 node /run
mount --bind "$1/var" /var
hostname=/proc/sys/kernel/hostname
echo "$5" > $hostname
cd "$1/sysctl"
for file in $(find . -type f); do mount --bind "$file" "/proc/sys/$file"; done
ip link set lo up
ip address add "$2" dev {_LINK}
ip link set {_LINK} up
ip route add "$3" via "$4"
"""


class Node:
    """The node of the cluster in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = Process(folder, NODE)

    @property
    def pid(self) -> int:
        """Its first process, as the host counts."""
        pid = self._process.pid
        if not pid:
            raise KindError(f"the node has ended; the end of its log:\n{self._process.log_tail()}")
        return pid

    def create(self, worker: Worker, pause: Path) -> None:
        """Make the namespaces, the link and the control group; nothing runs in them but the first process."""
        cgroups.create(cgroup_name(self._folder))
        _make_files(node_folder(self._folder))
        options = (*NAMESPACES, "--fork", "--mount-proc", "--propagation=private")
        self._process.define(Launch(["unshare", *options, "--", str(pause)], forks=True))
        self._process.start()
        if not wait_until(lambda: Path(f"/proc/{self.pid}/exe").resolve() == pause.resolve(), _STARTED_WITHIN):
            raise KindError("the node's namespaces were not made in time")
        self._connect(worker)
        address = f"{worker.address}/30"
        words = (str(node_folder(self._folder)), address, str(worker.services), str(worker.host), worker.name)
        self.run(["sh", "-euc", _SET_UP, "sh", *words])

    def launch(self, argv: Sequence[str]) -> Launch:
        """Return the launch of a program in the node; files that it creates must be readable by users in pods."""
        return Launch(self._enter(argv), forks=True, umask=0o022)

    def run(self, argv: Sequence[str], stdin: Path | None = None) -> str:
        """Run a command inside to success; return what it prints."""
        with (stdin or Path("/dev/null")).open("rb") as file:
            return _run(self._enter(argv), self._folder, file.fileno())

    def _enter(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--target={self.pid}", *NAMESPACES, "--", *argv]

    def _connect(self, worker: Worker) -> None:
        """A pair of links between host and node, and the host's routes to pods and services."""
        link = link_name(self._folder)
        peer = ("type", "veth", "peer", "name", _LINK, "netns", str(self.pid))
        _run(["ip", "link", "add", link, *peer], self._folder)
        _run(["ip", "address", "add", f"{worker.host}/30", "dev", link], self._folder)
        _run(["ip", "link", "set", link, "up"], self._folder)
        for network in (worker.pods, worker.services):
            _run(["ip", "route", "add", str(network), "via", str(worker.address)], self._folder)


def end(folder: Path) -> None:
    """Kill the node's first process: the kernel ends all others in its namespaces, and with them the namespaces."""
    Process(folder, NODE).stop(grace=0)


def remove_traces(folder: Path) -> None:
    """Remove what outlives the namespaces, or would for a moment: the link (with its routes) and the control group."""
    if not wait_until(lambda: _link_removed(folder), _REMOVED_WITHIN):
        raise KindError(f"the link {link_name(folder)} could not be deleted")
    cgroups.remove(cgroup_name(folder))


def _link_removed(folder: Path) -> bool:
    """Delete the link, unless the kernel was quicker: it ends with the node's network namespace."""
    link = link_name(folder)
    if (_LINKS / link).exists():
        with suppress(KindError):
            _run(["ip", "link", "delete", link], folder)
    return not (_LINKS / link).exists()


def _make_files(folder: Path) -> None:
    make_private(folder)
    for name in ("var/lib", "var/log", "var/tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "var" / "run").symlink_to("/run")
    for name, value in sysctls().items():
        file = folder / "sysctl" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")


def _run(argv: Sequence[str], folder: Path, stdin: int = subprocess.DEVNULL) -> str:
    program = shutil.which(argv[0], path=environment(folder)["PATH"]) or argv[0]
    done = subprocess.run(
        [program, *argv[1:]], stdin=stdin, capture_output=True, text=True, env=environment(folder), check=False
    )
    if done.returncode:
        raise KindError(f"{' '.join(argv)} failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
