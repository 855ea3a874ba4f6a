import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "unibrain"

# Each room may import the rooms below its own; docs/architecture.md shows the same picture.
FLOORS = (
    {"cli"},
    {"pipeline"},
    {"doctor"},
    {"report"},
    {"training"},
    {"audit"},
    {"evaluation"},
    {"reconstruction"},
    {"regression"},
    {"latents"},
    {"weights"},
    {"backbone", "simulation"},
    {"fetch", "stimuli"},
    {"scans"},
    {"workspace"},
    {"errors"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imported_rooms(path: Path) -> set[str]:
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
    return {module.split(".")[1] for module in modules if module.startswith("unibrain.")} & set(FLOOR)


def test_every_room_has_its_floor() -> None:
    rooms = {path.stem for path in SOURCE.iterdir() if path.name[0] not in "_." and path.name != "py.typed"}
    assert rooms == set(FLOOR)


@pytest.mark.parametrize("room", sorted(set(FLOOR) - {"errors"}))
def test_imports_point_downwards(room: str) -> None:
    files = list((SOURCE / room).rglob("*.py"))
    assert files
    for path in files:
        for other in imported_rooms(path) - {room}:
            assert FLOOR[other] > FLOOR[room], f"{path.relative_to(SOURCE)} imports {other}"
