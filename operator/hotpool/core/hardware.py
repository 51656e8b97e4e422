"""Hardware of a node, and the minimums that a pool requires of it (requirement D2). Pure.

A value that the agent does not report meets no requirement: it is unknown, not zero.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from hotpool.api.pool import GpuRequirement, HardwareRequirement
from hotpool.core.lists_of_words import listed

_WORD: Final = re.compile(r"[a-z0-9]+")
_MAX_LISTED: Final = 3


class Gpu(NamedTuple):
    """One GPU as its agent reports it."""

    model: str | None = None
    memory_mib: int | None = None
    words: str = ""
    """The model's words, as of `words_of`."""


class Hardware(NamedTuple):
    """Hardware of a node as its agent reports it; None: unknown."""

    cpus: int | None = None
    memory_mib: int | None = None
    gpus: tuple[Gpu, ...] = ()


_UNKNOWN: Final = Hardware()


@dataclass(frozen=True, slots=True)
class Minimum:
    """One minimum of a pool. The functions take None for a node that reports no hardware."""

    required: str
    met: Callable[[Hardware | None], bool]
    observed: Callable[[Hardware | None], str]


def words_of(model: str | None) -> str:
    """Return the words of a model's name in lower case, a space around each: ` nvidia l4 `. Empty without a word.

    A name contains the words of another one if it contains this text of it: NVIDIA L4 those of L4, NVIDIA L40S not.
    """
    found = _WORD.findall((model or "").lower())
    return f" {' '.join(found)} " if found else ""


def minimums(required: HardwareRequirement) -> Iterator[Minimum]:
    """Yield the minimums that a requirement states: CPUs, memory, GPUs."""
    if required.cpus is not None:
        yield _minimum(f"{required.cpus} CPUs", required.cpus, lambda hardware: hardware.cpus, "CPUs")
    if required.memory_mib is not None:
        text = f"{required.memory_mib} MiB of memory"
        yield _minimum(text, required.memory_mib, lambda hardware: hardware.memory_mib, "MiB of memory")
    if required.gpu is not None:
        yield _gpu_minimum(required.gpu)


def _minimum(text: str, least: int, value: Callable[[Hardware], int | None], unit: str) -> Minimum:
    def met(hardware: Hardware | None) -> bool:
        found = value(hardware or _UNKNOWN)
        return found is not None and found >= least

    def observed(hardware: Hardware | None) -> str:
        found = value(hardware or _UNKNOWN)
        return f"{unit} unknown: not in the agent's report" if found is None else f"{found} {unit}"

    return Minimum(f"at least {text}", met, observed)


def _gpu_minimum(required: GpuRequirement) -> Minimum:
    wanted = tuple(filter(None, map(words_of, required.models)))
    memory, count = required.memory_mib, required.count

    def counts(gpu: Gpu) -> bool:
        fits = memory is None or (gpu.memory_mib is not None and gpu.memory_mib >= memory)
        return fits and (not required.models or any(words in gpu.words for words in wanted))

    def met(hardware: Hardware | None) -> bool:
        return hardware is not None and sum(map(counts, hardware.gpus)) >= count

    model = f" of model {' or '.join(required.models)}" if required.models else ""
    text = f"at least {count} GPU{'s' if count > 1 else ''}{model}"
    return Minimum(f"{text} with {memory} MiB" if memory is not None else text, met, _describe_gpus)


def _describe_gpus(hardware: Hardware | None) -> str:
    if hardware is None:
        return "GPUs unknown: no hardware in the agent's report"
    return listed(map(_describe_gpu, hardware.gpus), _MAX_LISTED) or "no GPU reported"


def _describe_gpu(gpu: Gpu) -> str:
    memory = "memory unknown" if gpu.memory_mib is None else f"{gpu.memory_mib} MiB"
    return f"{gpu.model or 'model unknown'} ({memory})"
