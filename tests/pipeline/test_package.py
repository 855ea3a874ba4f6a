import re
import tomllib
from pathlib import Path

import pytest

import unibrain
import unibrain.scans

ROOT = Path(__file__).parents[2]


def test_public_names_are_those_of_the_packages() -> None:
    assert unibrain.Subject is unibrain.scans.Subject
    assert set(unibrain._HOMES) == set(unibrain.__all__) - {"__version__"} < set(dir(unibrain))
    assert all(getattr(unibrain, name) is not None for name in unibrain.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'encode'"):
        _ = unibrain.encode


def test_one_version_everywhere() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert content["project"]["dynamic"] == ["version"]
    assert content["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "unibrain.__version__"}
    assert f"version: {unibrain.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changes = re.findall(r"(?m)^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert changes[0] == unibrain.__version__


def test_figures_are_reached_without_another_import() -> None:
    assert unibrain.plot is unibrain.__getattr__("plot")
    assert set(unibrain.plot.__all__) >= {"pictures", "scores", "slices"}


def test_what_is_installed_is_pinned_within_the_ranges() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    for requirement in map(requirements.Requirement, wanted):
        pin = pins.get(requirement.name.lower().replace("_", "-"))
        assert pin is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(pin), f"{requirement} does not allow the pin {pin}"
    assert pins["torch"] == "2.13.0"
    assert "torchvision" not in pins
