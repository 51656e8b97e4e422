"""Parser of untrusted YAML, which returns plain values and the line of each (requirement A1).

Values are mappings with string keys, lists, strings, numbers, booleans and null; a date stays a string. Depth, size and
the expansion of aliases are bounded, so the time is, too. Must not know catalogues.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from hotpool_agent.untrusted_text import MAX_DIGITS, readable, representable

MAX_CHARACTERS: Final = 1024 * 1024
_MAX_DEPTH: Final = 40
_MAX_VALUES: Final = 100_000
_STANDARD: Final = "tag:yaml.org,2002:"
_WORDS: Final = {"int": "a whole number", "float": "a number", "bool": "true or false"}

Path = tuple[str | int, ...]


class YamlError(Exception):
    """The text cannot be parsed, or exceeds a limit."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """Parsed document. `problems`: line, path and message of each item that was dropped or not understood."""

    value: Any
    lines: dict[Path, int]
    problems: list[tuple[int, Path, str]]


def load(text: str) -> YamlDocument:
    """Parse the text, which must be one document. Raises YamlError."""
    if len(text) > MAX_CHARACTERS:
        raise YamlError(1, f"must have at most {MAX_CHARACTERS} characters")
    reader = _Reader()
    return YamlDocument(reader.to_plain(_compose(text), ()), reader.lines, reader.problems)


class _ShallowComposer(Composer):
    """ruamel's composer with a limit of depth, to avoid its RecursionError."""

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False
        self.depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise YamlError(self.parser.peek_event().start_mark.line + 1, "nested too deeply")
        try:
            node: Node | None = super().compose_node(parent, index)
        finally:
            self.depth -= 1
        return node


def _compose(text: str) -> Node | None:
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.Composer = _ShallowComposer
    try:
        node: Node | None = yaml.compose(StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "cannot be parsed"
        raise YamlError(mark.line + 1 if mark else 1, f"not valid YAML: {_first_line(problem)}") from error
    except YAMLError as error:
        raise YamlError(1, f"not valid YAML: {_first_line(str(error))}") from error
    except YamlError:
        raise
    except Exception as error:  # ruamel.yaml raises anything for some texts, such as an escape above U+10FFFF
        raise YamlError(1, f"not valid YAML: {type(error).__name__}: {_first_line(str(error))}") from error
    return node


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "cannot be parsed")


@dataclass
class _Reader:
    """Converter of nodes to plain values. An aliased node is counted and converted at each use."""

    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[tuple[int, Path, str]] = field(default_factory=list)
    count: int = 0

    def to_plain(self, node: Node | None, path: Path) -> Any:
        if node is None:
            return None
        self.count += 1
        if self.count > _MAX_VALUES or len(path) > _MAX_DEPTH:
            raise YamlError(_line(node), "too many values, or aliases that expand to too many")
        self.lines.setdefault(path, _line(node))
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if node.tag not in {_STANDARD + "map", _STANDARD + "seq"}:
            self._add_problem(node, path, f"tag {node.tag!r} is not supported")
        if isinstance(node, MappingNode):
            return {key: self.to_plain(value, (*path, key)) for key, value in self._items(node, path)}
        return [self.to_plain(item, (*path, index)) for index, item in enumerate(node.value)]

    def _items(self, node: MappingNode, path: Path) -> Iterator[tuple[str, Node]]:
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or key.tag not in {_STANDARD + "str", _STANDARD + "merge"}:
                self._add_problem(key, path, "a field's name must be a string; put it in quotes")
                continue
            name = self._text(key, path)
            if name in seen:
                self._add_problem(key, (*path, name), "is there twice")
            else:
                seen.add(name)
                self.lines[(*path, name)] = _line(key)
                yield name, value

    def _text(self, node: ScalarNode, path: Path) -> str:
        text = representable(node.value)
        if text is not None:
            return text
        self._add_problem(node, path, "has a character that no report can hold: NUL, or half of a surrogate pair")
        return readable(node.value, len(node.value))

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        text = self._text(node, path)
        kind = (node.tag or "").removeprefix(_STANDARD)
        if kind in {"str", "timestamp", "merge", "value"}:
            return text
        if kind == "null":
            return None
        if kind not in _WORDS:
            self._add_problem(node, path, f"tag {node.tag!r} is not supported")
            return text
        try:
            return _number(kind, text)
        except (ValueError, KeyError):
            self._add_problem(node, path, f"cannot be read as {_WORDS[kind]}")
        return text

    def _add_problem(self, node: Node, path: Path, message: str) -> None:
        self.problems.append((_line(node), path, message))


def _line(node: Node) -> int:
    return int(node.start_mark.line) + 1


def _number(kind: str, text: str) -> bool | int | float:
    """Parse a boolean or a number of YAML 1.2. Raises ValueError or KeyError."""
    if len(text) > MAX_DIGITS:
        raise ValueError(text)
    word = text.lower()
    if kind == "bool":
        return {"true": True, "false": False}[word]
    digits = word.replace("_", "")
    if kind == "int":
        return int(digits, 0) if digits.lstrip("+-").startswith(("0x", "0o", "0b")) else int(digits)
    return float(digits.replace(".inf", "inf").replace(".nan", "nan"))
