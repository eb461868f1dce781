"""Read the YAML file, validate it, and explain what is wrong: key, line, what is allowed, nearest match."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from kipoi_deepmr.config.sections import Config, NamedMember, Task
from kipoi_deepmr.config.values import FaultAt, describe, expanded
from kipoi_deepmr.errors import ConfigError, suggestion

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_LONGEST_NUMBER = 30
_MOST_VALUES = 100_000
_LARGEST_FILE = 2**24
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_EXPONENT = re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
_INT, _FLOAT, _MERGE, _TEXT = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "merge", "str"))
_EXPECTED = {
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "finite_number": "expected a finite number",
    "bool_type": "expected true or false",
    "list_type": "expected a list such as [a, b]",
    "dict_type": "expected keys",
}


class _Loader(yaml.SafeLoader):
    """Reads YAML, refuses a key that stands twice, and takes 1e-3 for a number as YAML 1.2 does.

    What only YAML 1.1 takes for a number is refused: 010 (octal), 1:30 (base 60), 0x1F, 0b1.
    """

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        written = str(self.construct_scalar(node))
        if len(written) > _LONGEST_NUMBER:
            raise _at(node, f"the number {written[:12]}... has {len(written)} digits, which no setting needs")
        if not _DECIMAL.fullmatch(written):
            raise _at(node, _not_decimal(written, super().construct_yaml_int(node)))
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        written = str(self.construct_scalar(node))
        if _SEXAGESIMAL.fullmatch(written):
            raise _at(node, _not_decimal(written, super().construct_yaml_float(node)))
        return super().construct_yaml_float(node)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line = key.start_mark.line + 1
            if key.value in seen:
                raise ConfigError(f"line {line}: key '{key.value}' stands already on line {seen[key.value]}; keep one")
            seen[key.value] = line
        return node


def _at(node: yaml.Node, fault: str) -> ConfigError:
    return ConfigError(f"line {node.start_mark.line + 1}: {fault}")


def _not_decimal(written: str, value: float) -> str:
    return (
        f"{written} without quotes is the number {value:g} to YAML: write '{written}' in quotes if it is a name, or {value:g} if it is"
        " the number"
    )


_Loader.add_constructor(_INT, _Loader.construct_yaml_int)
_Loader.add_constructor(_FLOAT, _Loader.construct_yaml_float)
_Loader.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+.0123456789"))


def load_config(path: str | Path) -> Config:
    """Read and validate a configuration.

    Parameters
    ----------
    path
        YAML file. Relative paths in it are counted from its folder.

    Returns
    -------
    Config
        The settings with every default filled in.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not YAML, or holds something that is not allowed. All faults are listed, each
        with its line and key, what is allowed, and the nearest match for a misspelt word.
    """
    path = expanded(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ConfigError(f"{path}: is larger than {_LARGEST_FILE >> 20} MiB, so it is no configuration")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not a text file in UTF-8: {error.reason} at byte {error.start}") from error
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        _check_nodes(root)
        _take_names_as_text(root)
        data = loader.construct_document(root) if root is not None else None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: brackets or keys are nested too deeply") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {_explain_syntax(error, text)}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys such as model, exposures and outcomes, found {describe(data)}")
    return parse_config(data, path.parent.resolve(), str(path), root)


def _check_nodes(root: yaml.Node | None) -> None:
    """Refuse aliases that lead to themselves or to very many values, and characters that no file can hold."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in open_:
            raise _at(node, "an alias stands inside of what it stands for")
        if id(node) in sizes:
            return sizes[id(node)]
        open_.add(id(node))
        total = 1
        if isinstance(node, yaml.ScalarNode):
            found = _NOT_TEXT.search(node.value)
            if found:
                raise _at(node, f"the character {found[0]!r} is not allowed in a text")
        else:
            for part in node.value:
                total += sum(map(size, part if isinstance(part, tuple) else (part,)))
                if total > _MOST_VALUES:
                    raise _at(node, f"its aliases stand for more than {_MOST_VALUES:,} values: write out what is meant")
        open_.remove(id(node))
        sizes[id(node)] = total
        return total

    if root is not None:
        size(root)


def _take_names_as_text(root: yaml.Node | None) -> None:
    """Let an exposure or outcome be called NO or 1, which YAML reads as false and a number."""
    for section, tasks in root.value if isinstance(root, yaml.MappingNode) else ():
        if section.value in ("exposures", "outcomes") and isinstance(tasks, yaml.MappingNode):
            for name, _ in tasks.value:
                if isinstance(name, yaml.ScalarNode) and name.tag != _MERGE:
                    name.tag = _TEXT


def parse_config(
    data: Mapping[str, Any], directory: Path, origin: str = "config", root: yaml.Node | None = None
) -> Config:
    """Validate settings that are already a mapping.

    Parameters
    ----------
    data
        The settings, as YAML gives them.
    directory
        Folder from which relative paths are counted.
    origin
        What to call the settings in an error.
    root
        YAML node of `data`, for line numbers in errors.

    Raises
    ------
    ConfigError
        As `load_config`.
    """
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        lines = [_explain(fault, root) for fault in error.errors()]
        raise ConfigError("\n  ".join([f"{origin} is not a valid configuration:", *lines])) from None
    config._directory = directory
    return config


def _explain(fault: ErrorDetails, root: yaml.Node | None) -> str:
    location = fault["loc"]
    if fault["type"] == "value_error" and isinstance(fault["ctx"]["error"], FaultAt):
        location = fault["ctx"]["error"].location
    is_name = location[-1:] == ("[key]",)
    key = ".".join(str(part) for part in (location[:-2] if is_name else location))
    line = _line(root, location[:-1] if is_name else location)
    return f"{f'line {line}: ' if line else ''}{f'{key}: ' if key else ''}{_reason(fault, _written(root, location))}"


def _written(node: yaml.Node | None, location: tuple[int | str, ...]) -> str | None:
    """Return the text that stands in the file at a location; None where it is not a plain value."""
    for part in location:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in reversed(node.value) if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
        else:
            return None
    return node.value if isinstance(node, yaml.ScalarNode) else None


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int | None:
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            # A key that is merged in (<<) stands before the mapping's own, which overrides it.
            found = [(key, value) for key, value in node.value if key.value == str(part)]
            if not found:
                break
            line, node = found[-1][0].start_mark.line + 1, found[-1][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _reason(fault: ErrorDetails, written: str | None) -> str:
    location, kind, given = fault["loc"], fault["type"], fault["input"]
    if kind == "extra_forbidden":
        allowed = list(_section(location[:-1]).model_fields)
        return f"unknown key '{location[-1]}'.{suggestion(location[-1], allowed)} Allowed: {', '.join(allowed)}"
    if kind == "missing":
        return "this key is required"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", fault["ctx"]["expected"])
        return f"{describe(given)} is not allowed.{suggestion(given, allowed)} Allowed: {', '.join(allowed)}"
    if kind == "value_error":
        return str(fault["ctx"]["error"])
    if kind == "model_type":
        section = _section(location)
        short = "a label, an index or " if issubclass(section, Task) else "a name or " if section is NamedMember else ""
        return f"expected {short}the keys {', '.join(section.model_fields)}; found {describe(given)}"
    if kind == "too_short":
        return "expected at least one entry"
    if kind == "greater_than_equal" and location == ("uncertainty", "draws"):
        return f"{given} draw{'s' * (given != 1)} cannot give a standard error; use at least 2 (the default is 50)"
    if kind == "string_type":
        quotes = f"; write it in quotes: '{written or given}'" if isinstance(given, int | float) else ""
        return f"expected text, found {describe(given)}{quotes}"
    expected = _EXPECTED.get(kind) or fault["msg"].replace("Input should", "has to", 1)
    return f"{expected}, found {describe(given)}"


def _section(location: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the section that stands at a location; exposures and outcomes hold one a name, members are a list."""
    section: type[BaseModel] = Config
    for part in location:
        field = section.model_fields.get(str(part))
        section = (field and _model_in(field.annotation)) or section
    return section


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section of which values of a type are made."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _explain_syntax(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        line = text[: error.position].count("\n") + 1
        return f"line {line}: the character {text[error.position]!r} is not allowed in YAML"
    mark, begin = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = getattr(error, "problem", None) or str(error)
    context = getattr(error, "context", None) or ""
    if "\\t" in problem:
        return f"{where}a tab stands where YAML wants spaces; indent with spaces"
    if "undefined alias" in problem or "scanning an alias" in context:
        return f"{where}not valid YAML: a text that begins with * has to stand in quotes, such as '*_None'"
    since = f" ({context} that begins on line {begin.line + 1})" if begin and context else ""
    return f"{where}not valid YAML: {problem}{since}"
