"""Parse kind's command line, as far as this cluster can follow it.

Each command calls one function of ``commands``; errors become a message and an exit code. Must not do the work.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn, TypeAlias

from localkube import commands
from localkube.console import Console
from localkube.duration import parse_duration
from localkube.errors import KindError


class _Parser(argparse.ArgumentParser):
    """Ends with kind's exit code instead of argparse's."""

    def error(self, message: str) -> NoReturn:
        raise KindError(f'{message}\nSee "{self.prog} --help"')


Verbs: TypeAlias = "argparse._SubParsersAction[_Parser]"  # noqa: SLF001 - argparse gives it no public name.


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP.
            signal.signal(number, _terminated)
    try:
        arguments = parser().parse_args(words)
        if sys.platform != "linux":
            raise KindError("this local cluster needs Linux: it finds its processes in /proc")  # noqa: TRY301
        arguments.run(arguments, Console(quiet=getattr(arguments, "quiet", False)))
    except (KindError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ERROR: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def parser() -> _Parser:
    """The whole command line."""
    common = _common()
    root = _Parser(prog="kind", description=__doc__.partition("\n")[0], parents=[common], allow_abbrev=False)
    verbs = root.add_subparsers(required=True, metavar="COMMAND")
    _add_create(_group(verbs, "create", "create a cluster"), common)
    _add_delete(_group(verbs, "delete", "delete clusters"), common)
    _add_get(_group(verbs, "get", "list clusters, their nodes or a kubeconfig"), common)
    image = _leaf(_group(verbs, "build", "build the programs"), "node-image", commands.build_node_image, common)
    image.add_argument("--worker", action="store_true", help="also those of a worker node")
    _add_load(_group(verbs, "load", "load images onto a worker"), common)
    logs = _leaf(_group(verbs, "export", "export logs"), "logs", commands.export_logs, common)
    logs.add_argument("folder", nargs="?", metavar="DIR", help="instead of a new temporary folder")
    _add_name(logs)
    _leaf(verbs, "version", commands.version, common)
    _refuse(verbs, "completion", "completion", "it has no shell completion")
    return root


def _common() -> _Parser:
    """The flags that every command takes, before or after its verb."""
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("-q", "--quiet", action="store_true", help="silence messages; errors are still printed")
    common.add_argument("-v", "--verbosity", type=int, help="accepted for kind's sake")
    return common


def _group(verbs: Verbs, name: str, text: str) -> Verbs:
    group = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    return group.add_subparsers(required=True, metavar="WHAT")


def _leaf(verbs: Verbs, name: str, run: Callable[[argparse.Namespace, Console], None], common: _Parser) -> _Parser:
    text = run.__doc__
    leaf = verbs.add_parser(name, help=text, description=text, parents=[common], allow_abbrev=False)
    leaf.set_defaults(run=run)
    return leaf


def _add_create(verbs: Verbs, common: _Parser) -> None:
    leaf = _leaf(verbs, "cluster", commands.create_cluster, common)
    _add_name(leaf)
    _add_kubeconfig(leaf)
    leaf.add_argument("--image", help="accepted if it names the Kubernetes version that is built here")
    leaf.add_argument("--config", metavar="FILE", help="a Cluster of kind's v1alpha4; - reads standard input")
    leaf.add_argument(
        "--wait", type=_duration, default=0.0, metavar="DURATION", help="wait longer than 60s for readiness, if need be"
    )


def _add_delete(verbs: Verbs, common: _Parser) -> None:
    one = _leaf(verbs, "cluster", commands.delete_cluster, common)
    _add_name(one)
    _add_kubeconfig(one)
    many = _leaf(verbs, "clusters", commands.delete_clusters, common)
    many.add_argument("names", nargs="*", metavar="NAME")
    many.add_argument("-A", "--all", action="store_true", help="delete every cluster")
    _add_kubeconfig(many)


def _add_get(verbs: Verbs, common: _Parser) -> None:
    _leaf(verbs, "clusters", commands.get_clusters, common)
    _add_name(_leaf(verbs, "kubeconfig", commands.get_kubeconfig, common))
    nodes = _leaf(verbs, "nodes", commands.get_nodes, common)
    _add_name(nodes)
    nodes.add_argument("-A", "--all-clusters", action="store_true", help="of every cluster")


def _add_load(verbs: Verbs, common: _Parser) -> None:
    archive = _leaf(verbs, "image-archive", commands.load_image_archive, common)
    archive.add_argument("archive", metavar="FILE", help="an OCI archive, or what docker save writes")
    _add_name(archive)
    _refuse(verbs, "docker-image", "load docker-image", "it has no Docker engine; load an image archive instead")


def _refuse(verbs: Verbs, name: str, words: str, reason: str) -> None:
    refused = verbs.add_parser(name, help="not supported", add_help=False, prefix_chars="\0")
    refused.add_argument("rest", nargs="*")
    refused.set_defaults(run=commands.refuse, verb=words, reason=reason)


def _add_name(leaf: _Parser) -> None:
    leaf.add_argument("-n", "--name", help="the cluster's name (else $KIND_CLUSTER_NAME, else kind)")


def _add_kubeconfig(leaf: _Parser) -> None:
    leaf.add_argument("--kubeconfig", metavar="FILE", help="instead of $KUBECONFIG or ~/.kube/config")


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    """End as after Ctrl-C, so that a half-made cluster is cleaned up."""
    raise KeyboardInterrupt
