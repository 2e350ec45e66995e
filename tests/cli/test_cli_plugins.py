from __future__ import annotations

from pathlib import Path

from pixels.vendor import install

from cli.helpers import environment, here, run, run_json
from mdevdisplay.hookspecs import VERSION

PLUGIN = ["name", "distribution", "version", "hookspec_version", "hooks"]


def broken(folder: Path, name: str, source: str) -> None:
    """Install a backend that cannot be loaded."""
    (folder / f"mdevdisplay_{name}.py").write_text(source, encoding="utf-8")
    metadata = folder / f"mdevdisplay_{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: mdevdisplay-{name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[mdevdisplay]\n{name} = mdevdisplay_{name}\n")


def test_the_installed_backends_are_listed() -> None:
    """Name, where it comes from, which version of the hooks it was written for, and which it has."""
    result = run("plugins")
    lines = result.stdout.decode().splitlines()
    assert result.returncode == 0
    assert lines[0].split() == ["NAME", "FROM", "SPEC", "HOOKS"]
    names = [line.split()[0] for line in lines[1:]]
    assert names == sorted(names)
    assert {"intel_gvt", "mbochs", "region_cap", "simulated"} <= set(names)
    assert "mdevdisplay 0.1.0" in lines[1]


def test_the_json_has_every_field() -> None:
    """Version 1 of the schema."""
    found = run_json("plugins")
    assert list(found) == ["version", "hookspec_version", "plugins", "failures"]
    assert found["hookspec_version"] == list(VERSION)
    assert found["failures"] == []
    for plugin in found["plugins"]:
        assert list(plugin) == PLUGIN
        assert plugin["hookspec_version"] == [1, 0]
        assert "probe" in plugin["hooks"]


def test_a_third_partys_backend_is_one_of_them(tmp_path: Path) -> None:
    """Installed beside ours, listed with its distribution, and used."""
    install(tmp_path)
    env = environment(PYTHONPATH=str(tmp_path))
    [acme] = [plugin for plugin in run_json("plugins", env=env)["plugins"] if plugin["name"] == "acme"]
    assert (acme["distribution"], acme["version"]) == ("mdevdisplay-acme", "4.2")
    assert acme["hooks"][0] == "probe"
    assert b"mdevdisplay-acme 4.2" in run("plugins", env=env).stdout
    assert run("screenshot", "acme:", "-o", tmp_path / "a.png", env=env).returncode == 0


def test_what_could_not_be_loaded_is_listed_with_the_reason(tmp_path: Path) -> None:
    """A broken backend hurts nobody, and its words are made harmless."""
    broken(tmp_path, "red", "raise RuntimeError('\\x1b[31mred\\nline')")
    broken(tmp_path, "future", "HOOKSPEC_VERSION = (99, 0)")
    env = environment(PYTHONPATH=str(tmp_path))
    result = run("plugins", env=env)
    text = result.stdout.decode()
    assert result.returncode == 0
    assert "not loaded: red of mdevdisplay-red: RuntimeError: \\x1b[31mred\\nline" in text
    assert "99" in text
    assert "\x1b" not in text
    failures = run_json("plugins", env=env)["failures"]
    assert [list(failure) for failure in failures] == [["name", "distribution", "reason"]] * 2
    assert failures[1]["reason"] == "RuntimeError: \x1b[31mred\nline"
    assert run_json("info", "sim:64x64", "--backend", "red", env=env, status=2)["error"]["cause"] == "unknown-backend"
    assert run("info", "sim:64x64", env=env).returncode == 0


def test_it_takes_no_locator() -> None:
    """Wrong usage."""
    assert here("plugins", "sim:").exit_code == 2
