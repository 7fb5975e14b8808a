"""What asks for the compiled build, and what it is made of. Its own tests: `make test-compiled`."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import pytest

import deploy.compiled as script
from fastserve import compiled
from fastserve.compiled import is_compiled, mypyc_attr

ROOT = Path(__file__).resolve().parents[2]


def hook() -> Any:
    nothing: Any = None
    return script.CompiledHook(str(ROOT), {}, nothing, nothing, "", "wheel")


def test_every_listed_file_is_there_and_none_is_listed_twice() -> None:
    listed = (*script.MODULES, *script.NATIVE, *script.NATIVE_HEADERS)
    assert len(set(listed)) == len(listed)
    assert [file for file in listed if not (ROOT / "fastserve" / file).exists()] == []


def test_every_loop_in_c_is_listed_also_where_make_and_the_version_look() -> None:
    package = ROOT / "fastserve"
    variables = dict(re.findall(r"^(\w+) := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for listed, variable, suffix in (
        (script.NATIVE, "NATIVE", "c"),
        (script.NATIVE_HEADERS, "NATIVE_HEADERS", "h"),
    ):
        found = {str(path.relative_to(package)) for path in package.rglob(f"*.{suffix}")}
        assert found == set(listed)
        assert variables[variable].split() == [f"fastserve/{name}" for name in listed]
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "perf").rglob("*.c")} == set(script.NATIVE_PERF)
    assert variables["NATIVE_PERF"].split() == list(script.NATIVE_PERF)
    names = [f"fastserve/{name}".removesuffix(".c").replace("/", ".") for name in script.NATIVE]
    assert list(compiled._LOOPS) == names


def test_the_module_that_tells_of_the_build_is_one_of_them() -> None:
    assert "serving/coalescer.py" in script.MODULES
    assert "compiled.py" not in script.MODULES


def test_a_wheel_that_nobody_wants_compiled_is_pure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTSERVE_COMPILED", raising=False)
    data: dict[str, Any] = {"force_include": {}, "pure_python": True}
    hook().initialize("standard", data)
    assert data == {"force_include": {}, "pure_python": True}


def test_an_editable_installation_has_its_loops_compiled_and_no_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FASTSERVE_COMPILED", "1")
    compiled: list[Path] = []
    monkeypatch.setattr(script, "compile_native", compiled.extend)
    data: dict[str, Any] = {"force_include": {}, "pure_python": True}
    hook().initialize("editable", data)
    loops = [f"fastserve/{name}" for name in script.NATIVE]
    assert compiled == [ROOT / name for name in (*loops, *script.NATIVE_PERF)]
    assert data == {"force_include": {}, "pure_python": True}


@pytest.mark.parametrize("compiler", ["fastserve-has-no-such-compiler", "false"])
def test_an_editable_installation_without_a_compiler_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], compiler: str
) -> None:
    variables = {**sysconfig.get_config_vars(), "LDSHARED": compiler}
    monkeypatch.setattr(sysconfig, "get_config_var", variables.get)
    hook().initialize("editable", {})
    assert "the inner loops aren't compiled" in capsys.readouterr().err


def test_the_loops_are_compiled_beside_their_sources(tmp_path: Path) -> None:
    sources = (*script.NATIVE, *script.NATIVE_HEADERS)
    for name in sources:
        source = tmp_path / "fastserve" / name
        source.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "fastserve" / name, source)
    script.compile_native([tmp_path / "fastserve" / name for name in script.NATIVE])
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    found = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    libraries = {Path(name).stem + suffix for name in script.NATIVE}
    assert found == libraries | {Path(name).name for name in sources}


def test_a_compiler_that_refuses_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(folder: Path, opt_level: str) -> list[Path]:
        assert (folder / "fastserve").is_dir()
        raise OSError("no compiler")

    monkeypatch.setenv("FASTSERVE_COMPILED", "1")
    monkeypatch.setattr(script, "compile_in", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(OSError, match="no compiler"):
        hook().initialize("standard", {"force_include": {}})
    assert list(tmp_path.iterdir()) == []


def test_a_compiled_wheel_holds_the_libraries_and_isn_t_pure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTSERVE_COMPILED", "1")
    library = Path("fastserve/serving/coalescer.so")
    monkeypatch.setattr(script, "compile_in", lambda folder, opt_level: [library])
    data: dict[str, Any] = {"force_include": {}, "pure_python": True}
    building = hook()
    building.initialize("standard", data)
    ((source, target),) = data["force_include"].items()
    assert target == str(library)
    assert (Path(source).parents[1] / "server" / "protocol.py").exists()
    assert (data["pure_python"], data["infer_tag"]) == (False, True)
    building.finalize("standard", data, "")
    assert not Path(source).parents[2].exists()


def test_what_mypyc_is_told_changes_nothing_where_it_isn_t_asked() -> None:
    class Plain:
        pass

    assert mypyc_attr("acyclic", allow_interpreted_subclasses=True)(Plain) is Plain


def test_is_compiled_tells_by_the_file() -> None:
    coalescer = sys.modules.get("fastserve.serving.coalescer") or importlib.import_module(
        "fastserve.serving.coalescer"
    )
    assert is_compiled() is not str(coalescer.__file__).endswith(".py")
