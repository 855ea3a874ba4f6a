"""Draw two contact sheets of the scene world, for checking it by eye.

Usage: ``python tools/contact_sheet.py FOLDER`` writes ``objects.png`` (every object at 48 pixels with its
noun) and ``scenes.png`` (40 test scenes at 64 pixels with two of their captions) into ``FOLDER``.
"""

from __future__ import annotations

import argparse
import io
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from unibrain.demo import describe, load_catalogue, render, sample_scene
from unibrain.demo.scenes import read_sprite

COLUMNS, CELL_WIDTH = 10, 130


def _font() -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), 10)


def draw_objects(size: int = 48) -> Image.Image:
    """Lay out every object at ``size`` pixels with its noun beneath."""
    catalogue, height = load_catalogue(), size + 24
    rows = -(-len(catalogue) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL_WIDTH, rows * height), (150, 170, 150))
    draw = ImageDraw.Draw(sheet)
    for i, thing in enumerate(catalogue):
        left, top = i % COLUMNS * CELL_WIDTH, i // COLUMNS * height
        sprite = Image.open(io.BytesIO(read_sprite(thing.sprite))).convert("RGBA").resize((size, size))
        sheet.paste(sprite, (left + 4, top + 4), sprite)
        draw.text((left + 4, top + size + 7), thing.noun, font=_font(), fill="black")
    return sheet


def draw_scenes(seed: int, count: int = 40) -> Image.Image:
    """Lay out ``count`` test scenes, enlarged twice, with their first and last caption."""
    width, height, columns = 200, 210, 8
    sheet = Image.new("RGB", (columns * width, -(-count // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i in range(count):
        scene = sample_scene(seed, i, "test")
        left, top = i % columns * width, i // columns * height
        sheet.paste(Image.fromarray(render(scene)).resize((128, 128), Image.Resampling.NEAREST), (left, top))
        captions = describe(scene)
        lines = [line for caption in (captions[0], captions[-1]) for line in textwrap.wrap(caption, 33)]
        draw.multiline_text((left, top + 130), "\n".join(lines), font=_font(), fill="black", spacing=1)
    return sheet


def main() -> None:
    """Write both sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the scenes (default 0)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    draw_objects().save(arguments.folder / "objects.png")
    draw_scenes(arguments.seed).save(arguments.folder / "scenes.png")


if __name__ == "__main__":
    main()
