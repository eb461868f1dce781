"""Kipoi lists and runs kipoi_deepmr, however it was installed, and never fails because of it."""

import json
import os
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import tomllib
import types
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import kipoi_deepmr

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("kipoi", "kipoiseq", "matplotlib", "numpy", "pandas", "pydantic", "scipy", "torch", "xarray", "yaml", "zarr")

SWITCH = "KIPOI_DEEPMR_NO_PLUGIN"
KIPOI = "import sys; sys.argv[0] = 'kipoi'; from kipoi.__main__ import main; main()"
PYTHON_M_KIPOI = "import runpy; runpy.run_module('kipoi', run_name='__main__', alter_sys=True)"
ENTRIES = "print([entry['plugin'] for entry in kipoi.plugin.PLUGINS])"


@dataclass(frozen=True)
class Interpreter:
    """The running interpreter with this checkout's registration files in a site folder of their own."""

    site: Path
    home: Path

    def __call__(
        self, code: str, *arguments: str, switch: str | None = None, first_on_path: Sequence[Path] = ()
    ) -> subprocess.CompletedProcess[str]:
        # An installed registration is switched off while Python starts, so that only the site folder counts.
        setting = "" if switch is None else f"os.environ[{SWITCH!r}] = {switch!r}; "
        prelude = f"import os, site; del os.environ[{SWITCH!r}]; {setting}site.addsitedir({str(self.site)!r})"
        path = os.pathsep.join(str(folder) for folder in (*first_on_path, self.site, ROOT))
        environment = os.environ | {SWITCH: "1", "HOME": str(self.home), "PYTHONPATH": path}
        return run([sys.executable, "-c", f"{prelude}\n{textwrap.dedent(code)}", *arguments], environment)


def run(command: Sequence[str | Path], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command, env=environment, cwd=environment["HOME"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def is_listed_as_installed(listing: str) -> bool:
    return any(line.split()[:3] == ["kipoi_deepmr", "True", "True"] for line in listing.splitlines())


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Interpreter:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    site = tmp_path_factory.mktemp("site")
    for source, name in configuration["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items():
        shutil.copy(ROOT / source, site / name)
    return Interpreter(site, tmp_path_factory.mktemp("home"))


def test_kipoi_lists_the_plugin_as_installed_with_a_command_line(python: Interpreter) -> None:
    assert is_listed_as_installed(python(KIPOI, "list_plugins").stdout)


def test_help_of_kipoi_shows_the_plugin(python: Interpreter) -> None:
    assert "    deepmr           Causal effects that a model has learned" in python(KIPOI, "--help").stdout


@pytest.mark.parametrize("start", [KIPOI, PYTHON_M_KIPOI], ids=["kipoi", "python -m kipoi"])
def test_kipoi_deepmr_runs(python: Interpreter, start: str) -> None:
    assert python(start, "deepmr", "--help").stdout.startswith("usage: kipoi deepmr")


def test_the_older_spelling_reaches_the_same_command(python: Interpreter) -> None:
    assert "\nusage: kipoi deepmr" in python(KIPOI, "postproc", "deepmr", "--help").stdout


def test_json_through_kipoi_is_all_that_stands_on_standard_output(python: Interpreter) -> None:
    model = ROOT / "examples" / "simulated_tf_accessibility" / "model"
    result = python(KIPOI, "deepmr", "tasks", str(model), "--source", "dir", "--json")
    assert [row["label"] for row in json.loads(result.stdout)][-1] == "accessibility"


def test_python_m_kipoi_deepmr_runs(python: Interpreter) -> None:
    start = "import runpy; runpy.run_module('kipoi_deepmr', run_name='__main__', alter_sys=True)"
    assert python(start, "--help").stdout.startswith("usage: python -m kipoi_deepmr")


@pytest.mark.parametrize("arguments", [["deepmr", "tasks", "M"], ["tasks", "M"]], ids=["postproc", "plain"])
def test_cli_main_hands_over_the_arguments_and_exits_with_the_status(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    seen: list[tuple[list[str], str]] = []

    def main(argv: list[str], *, prog: str) -> int:
        seen.append((argv, prog))
        return 3

    monkeypatch.setitem(sys.modules, "kipoi_deepmr.cli", types.SimpleNamespace(main=main))
    with pytest.raises(SystemExit) as leaving:
        kipoi_deepmr.cli_main("deepmr", arguments)
    assert leaving.value.code == 3
    assert seen == [(["tasks", "M"], "kipoi deepmr")]


def test_the_switch_keeps_kipoi_as_it_is(python: Interpreter) -> None:
    code = f"import sys, kipoi.plugin, kipoi_deepmr; {ENTRIES}; print([type(f).__name__ for f in sys.meta_path])"
    entries, finders = python(code, switch="1").stdout.splitlines()
    assert entries == "['kipoi_interpret']"
    assert "PluginFinder" not in finders


def test_a_switch_of_zero_leaves_the_registration_on(python: Interpreter) -> None:
    assert "kipoi_deepmr" in python(f"import kipoi.plugin; {ENTRIES}", switch="0").stdout


def test_the_entry_survives_a_reload_and_stays_single(python: Interpreter) -> None:
    code = f"""
        import importlib, sys, kipoi.plugin, kipoi_deepmr, kipoi_deepmr_plugin
        kipoi_deepmr_plugin.install()
        importlib.reload(kipoi_deepmr)
        assert [type(finder).__name__ for finder in sys.meta_path].count("PluginFinder") == 1
        {ENTRIES}
        for _ in range(2):
            importlib.reload(kipoi.plugin)
            {ENTRIES}
    """
    assert python(code).stdout.splitlines() == ["['kipoi_interpret', 'kipoi_deepmr']"] * 3


def test_kipoi_keeps_its_own_loader(python: Interpreter) -> None:
    code = "import kipoi.plugin as p; print(type(p.__loader__).__name__, type(p.__spec__.loader).__name__)"
    assert python(code).stdout.split() == ["SourceFileLoader", "SourceFileLoader"]


@pytest.mark.parametrize("place", [0, 1], ids=["in front", "behind"])
def test_another_hook_on_kipoi_may_stand_beside_ours(python: Interpreter, place: int) -> None:
    code = f"""
        import sys

        class Other:
            def find_spec(self, name, path=None, target=None):
                if name != "kipoi.plugin":
                    return None
                for finder in sys.meta_path:  # those in front, too: ours must not call back and forth with it
                    spec = None if finder is self else finder.find_spec(name, path, target)
                    if spec is not None:
                        run = spec.loader.exec_module
                        spec.loader.exec_module = lambda module: (run(module), module.PLUGINS.append(entry))
                        return spec

        entry = {{"plugin": "kipoi_other", "url": "", "cli": False, "description": ""}}
        assert type(sys.meta_path[0]).__name__ == "PluginFinder"
        sys.meta_path.insert({place}, Other())
        import importlib, kipoi.plugin
        print(sorted(e["plugin"] for e in kipoi.plugin.PLUGINS))
        importlib.reload(kipoi.plugin)
        print(sorted(e["plugin"] for e in kipoi.plugin.PLUGINS))
    """
    assert python(code).stdout.splitlines() == ["['kipoi_deepmr', 'kipoi_interpret', 'kipoi_other']"] * 2


@pytest.mark.parametrize("body", ["raise ImportError('half an update')", "1 / 0", "def"])
def test_kipoi_goes_on_when_the_plugin_cannot_be_imported(python: Interpreter, tmp_path: Path, body: str) -> None:
    (tmp_path / "kipoi_deepmr.py").write_text(body)
    result = python(KIPOI, "list_plugins", first_on_path=[tmp_path])
    assert "kipoi_interpret" in result.stdout
    assert "kipoi_deepmr" not in result.stdout
    assert "kipoi goes on without kipoi_deepmr: " in result.stderr


def test_kipoi_goes_on_when_the_plugin_is_gone(python: Interpreter) -> None:
    result = python(f"import sys; sys.modules['kipoi_deepmr'] = None; {KIPOI}", "list_plugins")
    assert "kipoi_interpret" in result.stdout
    assert "kipoi goes on without kipoi_deepmr: " in result.stderr


@pytest.mark.parametrize("order", ["kipoi_deepmr, kipoi.plugin", "kipoi.plugin, kipoi_deepmr"])
def test_importing_the_package_registers_it_where_no_pth_file_is_read(python: Interpreter, order: str) -> None:
    folders = [str(python.site), str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    code = f"import sys; sys.path += {folders}; import {order}; {ENTRIES}"
    result = run([sys.executable, "-S", "-c", code], os.environ | {"HOME": str(python.home)})
    assert result.stdout.strip() == "['kipoi_interpret', 'kipoi_deepmr']"


def test_the_start_of_python_loads_nothing_but_the_finder(python: Interpreter) -> None:
    code = f"""
        import sys
        sys.path.insert(0, {str(python.site)!r})
        before = set(sys.modules)
        import kipoi_deepmr_plugin
        kipoi_deepmr_plugin.install()
        print(set(sys.modules) - before)
    """
    environment = os.environ | {SWITCH: "0", "HOME": str(python.home)}
    result = run([sys.executable, "-I", "-S", "-c", "import os" + textwrap.dedent(code)], environment)
    assert result.stdout.strip() == "{'kipoi_deepmr_plugin'}"


def test_the_start_file_names_the_same_call_as_the_pth_file(
    python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(python.site)
    (line,) = (python.site / "kipoi_deepmr_plugin.start").read_text().splitlines()
    assert callable(pkgutil.resolve_name(line))
    module, function = line.split(":")
    (pth,) = (python.site / "kipoi_deepmr_plugin.pth").read_text().splitlines()
    assert pth == f"import {module}; {module}.{function}()"


@pytest.mark.parametrize("module", ["kipoi_deepmr", "kipoi_deepmr.cli"])
def test_importing_the_package_or_its_command_line_is_light(python: Interpreter, module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    assert python(code).stdout.strip() == "[]"


def test_the_parsers_that_kipoi_asks_for_exist() -> None:
    assert kipoi_deepmr.ModelParser is None
    assert kipoi_deepmr.DataloaderParser is None


@pytest.mark.parametrize("name", kipoi_deepmr.__all__)
def test_public_names_are_there_and_documented(name: str) -> None:
    assert name in dir(kipoi_deepmr)
    assert getattr(kipoi_deepmr, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'kipoi_deepmr' has no attribute 'rnu'"):
        kipoi_deepmr.rnu  # noqa: B018


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees what the running interpreter has installed, but not kipoi_deepmr."""

    folder: Path
    home: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site(self) -> Path:
        (site,) = self.folder.glob("lib/python*/site-packages")
        return site

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return run(command, kept | {"HOME": str(self.home), SWITCH: ""})

    def pip(self, *arguments: str | Path) -> None:
        self.run(sys.executable, "-m", "pip", "--python", self.python, *arguments)

    def kipoi(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.python, "-c", KIPOI, *arguments)

    def traces(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if "deepmr" in path.name]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    folder, home = tmp_path / "venv", tmp_path / "home"
    home.mkdir()
    venv.create(folder, symlinks=True)
    created = Environment(folder, home)
    for library in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for installed in Path(library).iterdir():
            if "deepmr" not in installed.name and installed.suffix != ".pth" and installed.name != "__pycache__":
                (created.site / installed.name).symlink_to(installed)
    return created


def install_wheel(environment: Environment, folder: Path) -> None:
    environment.run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT)
    environment.pip("install", "--no-deps", *folder.glob("*.whl"))


def install_sdist(environment: Environment, folder: Path) -> None:
    shutil.copytree(ROOT, folder / "tree", ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache"))
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder],
        cwd=folder / "tree",
        check=True,
        capture_output=True,
    )
    environment.pip("install", "--no-deps", "--no-build-isolation", *folder.glob("*.tar.gz"))


def install_editable(environment: Environment, folder: Path) -> None:
    environment.pip("install", "--no-deps", "--no-build-isolation", "-e", ROOT)


@pytest.mark.install
@pytest.mark.parametrize("install", [install_wheel, install_sdist, install_editable])
def test_an_installation_registers_and_its_removal_leaves_nothing(
    environment: Environment, tmp_path: Path, install: Callable[[Environment, Path], None]
) -> None:
    assert environment.traces() == []

    (tmp_path / "built").mkdir()
    install(environment, tmp_path / "built")
    at_the_top = {path.name for path in environment.site.glob("kipoi_deepmr_plugin*")}
    assert at_the_top == {"kipoi_deepmr_plugin.pth", "kipoi_deepmr_plugin.py", "kipoi_deepmr_plugin.start"}
    assert is_listed_as_installed(environment.kipoi("list_plugins").stdout)
    assert is_listed_as_installed(environment.run(environment.python, "-I", "-m", "kipoi", "list_plugins").stdout)
    loaded = "import sys; print('kipoi_deepmr_plugin' in sys.modules, 'kipoi_deepmr' in sys.modules)"
    assert environment.run(environment.python, "-c", loaded).stdout.split() == ["True", "False"]
    assert environment.kipoi("deepmr", "--help").stdout.startswith("usage: kipoi deepmr")
    script = environment.folder / "bin" / "kipoi-deepmr"
    assert environment.run(script, "--help").stdout.startswith("usage: kipoi-deepmr")

    environment.pip("uninstall", "-y", "kipoi_deepmr")
    assert environment.traces() == []
    after = environment.kipoi("list_plugins")
    assert "kipoi_interpret" in after.stdout
    assert "deepmr" not in after.stdout + after.stderr
