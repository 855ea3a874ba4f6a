import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "unibrain"

# Each package may import those below its own; docs/architecture.md shows the same picture.
LAYERS = (
    {"cli"},
    {"explorer", "engines"},
    {"experiments"},
    {"pipeline"},
    {"doctor"},
    {"report"},
    {"plot"},
    {"audit"},
    {"evaluation"},
    {"reconstruction"},
    {"regression"},
    {"latents"},
    {"weights"},
    {"backbone", "demo"},
    {"nsd_download", "stimuli"},
    {"scans"},
    {"workspace"},
    {"errors"},
)
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}


def imported_packages(path: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            modules.update(f"unibrain.{alias.name}" for alias in node.names) if module == "unibrain" else modules.add(
                module
            )
    return {module.split(".")[1] for module in modules if module.startswith("unibrain.")} & set(LAYER)


def test_every_package_has_its_layer() -> None:
    packages = {path.stem for path in SOURCE.iterdir() if path.name[0] not in "_." and path.name != "py.typed"}
    assert packages == set(LAYER)


@pytest.mark.parametrize("package", sorted(set(LAYER) - {"errors"}))
def test_imports_point_downwards(package: str) -> None:
    files = list((SOURCE / package).rglob("*.py"))
    assert files
    for path in files:
        for other in imported_packages(path) - {package}:
            assert LAYER[other] > LAYER[package], f"{path.relative_to(SOURCE)} imports {other}"
