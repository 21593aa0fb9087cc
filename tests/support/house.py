"""Measure the code: packages, import cycles, `Any` in signatures, longest function and module, modules without a test.

`python -m tests.support.house [CHECKOUT]` prints the figures of this checkout, or of another one.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import networkx as nx

HOME = Path(__file__).resolve().parents[2]
SOURCES = ("corgi", "pipelines")


@dataclass(frozen=True)
class Module:
    """One Python file of the sources, parsed once."""

    home: Path
    path: Path

    @property
    def name(self) -> str:
        """Return the dotted name, such as `corgi.tables.store`."""
        return ".".join(self.path.relative_to(self.home).with_suffix("").parts)

    @property
    def package(self) -> str:
        """Return the package below `corgi`, `pipelines`, or `corgi` for what is directly in it."""
        top, *folders, _ = self.path.relative_to(self.home).parts
        return folders[0] if top == "corgi" and folders else top

    @cached_property
    def text(self) -> str:
        """Return the file's text."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Return the syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def num_lines(self) -> int:
        """Return all lines, docstrings and blanks included."""
        return len(self.text.splitlines())

    @cached_property
    def num_code_lines(self) -> int:
        """Return the lines that hold code: no blank line, comment or docstring."""
        return len(_code_lines(self.text) - _docstring_lines(self.tree))

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Yield every function and method, nested ones too."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def imports(self, known: set[str]) -> set[str]:
        """Return the modules of `known` that this one imports at its top level or inside a function, but for type checkers."""
        found: set[str] = set()
        for node in _walk_without_type_checking(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                members = {f"{node.module}.{alias.name}" for alias in node.names} & known
                found |= members or {node.module}
        return (found & known) - {self.name}

    @property
    def mirror(self) -> Path:
        """Return where this module's test is expected."""
        inside = self.path.relative_to(self.home)
        parts = inside.parts[1:] if inside.parts[0] == "corgi" else inside.parts
        return self.home.joinpath("tests", *parts[:-1], f"test_{parts[-1]}")


def modules(home: Path = HOME) -> list[Module]:
    """Return the modules of `corgi` and `pipelines`, sorted by path; empty packages' `__init__.py` are none."""
    paths = sorted(path for root in SOURCES for path in (home / root).rglob("*.py"))
    return [Module(home, path) for path in paths if path.name != "__init__.py"]


def package_shares(found: list[Module]) -> dict[str, float]:
    """Return each package's share of all lines, largest first."""
    total = sum(module.num_lines for module in found)
    lines: dict[str, int] = {}
    for module in found:
        lines[module.package] = lines.get(module.package, 0) + module.num_lines
    return {name: count / total for name, count in sorted(lines.items(), key=lambda item: -item[1])}


def cycles(found: list[Module]) -> tuple[list[list[str]], list[list[str]]]:
    """Return the cycles of imports among modules, and among packages, each as the sorted names in it."""
    by_name = {module.name: module for module in found}
    files, packages = nx.DiGraph(), nx.DiGraph()
    for module in found:
        for other in module.imports(set(by_name)):
            files.add_edge(module.name, other)
            if by_name[other].package != module.package:
                packages.add_edge(module.package, by_name[other].package)
    return _strong(files), _strong(packages)


def any_signatures(found: list[Module]) -> list[str]:
    """Return the functions whose signature names `Any`, as `module:function`."""
    return [
        f"{module.name}:{function.name}"
        for module in found
        for function in module.functions()
        if any(isinstance(node, ast.Name) and node.id == "Any" for node in _annotations(function))
    ]


def longest_function(found: list[Module]) -> tuple[int, str]:
    """Return the lines and name of the longest function, docstring left out."""
    return max((_body_lines(f), f"{m.name}:{f.name}") for m in found for f in m.functions())


def longest_module(found: list[Module]) -> tuple[int, str]:
    """Return the lines and name of the longest module."""
    return max((module.num_lines, module.name) for module in found)


def without_mirror(found: list[Module]) -> list[str]:
    """Return the modules of `corgi` whose test file, by path, is not there."""
    return [m.name for m in found if m.name.startswith("corgi.") and not m.mirror.exists()]


def private_uses(home: Path = HOME) -> list[str]:
    """Return where tests read, import or patch a private name of the sources, as `file:line name`.

    A name that the sources do not define is another library's and not counted.
    """
    ours = _private_names(home, (*SOURCES, "benchmarks"))
    return [
        f"{path.relative_to(home)}:{line} {name}"
        for path in sorted((home / "tests").rglob("*.py"))
        for line, name in _private_uses(ast.parse(path.read_text(encoding="utf-8")))
        if name in ours
    ]


def report(home: Path = HOME) -> list[str]:
    """Return the figures of a checkout, a line each."""
    found = modules(home)
    shares = package_shares(found)
    files, packages = cycles(found)
    all_functions = sum(1 for module in found for _ in module.functions())
    name = next(iter(shares))
    unmirrored = without_mirror(found)
    return [
        *(f"package {package:<12} {share:6.1%}" for package, share in shares.items()),
        f"largest package: {name}, {shares[name]:.1%} of all lines (an eighth is 12.5%)",
        f"cycles of modules: {len(files)} {files or ''}".rstrip(),
        f"cycles of packages: {len(packages)} {packages or ''}".rstrip(),
        f"signatures with Any: {len(any_signatures(found))} of {all_functions}",
        "longest function: {} lines, {}".format(*longest_function(found)),
        "longest module: {} lines, {}".format(*longest_module(found)),
        f"modules without a test of their name: {len(unmirrored)} of {len(found)}: {', '.join(unmirrored)}",
        f"private names that tests read, import or patch: {len(private_uses(home))}",
        f"code lines (no blank, comment or docstring): {sum(module.num_code_lines for module in found)}",
    ]


def _code_lines(text: str) -> set[int]:
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped and token.type != tokenize.ENDMARKER:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


def _docstring_lines(tree: ast.Module) -> set[int]:
    """Return the lines of strings that stand as statements: docstrings of modules, classes, functions and fields."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and _is_text(node.value):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _walk_without_type_checking(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _walk_without_type_checking(node)


def _annotations(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    arguments = function.args
    every = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    for annotation in [function.returns, *(a.annotation for a in every if a is not None)]:
        if annotation is not None:
            yield from ast.walk(annotation)


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and _is_text(first.value):
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def _private_names(home: Path, roots: tuple[str, ...]) -> set[str]:
    """Return the private names that the files below some roots define, as functions, variables or attributes."""
    found: set[str] = set()
    for path in (path for root in roots for path in (home / root).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return {name for name in found if _is_private(name)}


def _private_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _is_own(node.value):
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, alias.name) for alias in node.names if _is_private(alias.name))
        elif isinstance(node, ast.Call) and "setattr" in ast.unparse(node.func):
            named = [part.value for part in node.args[:2] if isinstance(part, ast.Constant)]
            last = [value.rpartition(".")[2] for value in named if isinstance(value, str)]
            yield from ((node.lineno, name) for name in last if _is_private(name))


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _strong(graph: nx.DiGraph) -> list[list[str]]:
    return sorted(sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1)


if __name__ == "__main__":
    print("\n".join(report(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HOME)))
