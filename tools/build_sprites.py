"""Build the scene world's sprites and catalogue from the two npm packages and the curated table.

Usage::

    npm pack @lobehub/fluent-emoji-3d@1.1.0 emojibase-data@17.0.0     # then unpack both
    python tools/build_sprites.py FLUENT_FOLDER EMOJIBASE_FOLDER

``FLUENT_FOLDER`` and ``EMOJIBASE_FOLDER`` are the unpacked ``package`` folders. The table
``tools/scene_objects.csv`` names every object, its noun, its synonym, its category, its source (the
hexcode of an emoji, or ``text:WORD:SHAPE:PLATE COLOUR:TEXT COLOUR``) and its keywords; all of it was
curated by eye at 32 pixels, starting from emojibase's labels and tags.

What happens to a picture: crop to what is visible, pad to a square, resize to 128 x 128, and write as PNG,
whose decoding is exact everywhere (WebP decoders differ).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

TABLE = Path(__file__).with_name("scene_objects.csv")
DATA = Path(__file__).parents[1] / "src" / "unibrain" / "demo" / "data"
SPRITE_SIZE = 128
DRAW_SIZE = 512
VISIBLE_ALPHA = 24
"""Alpha from which a pixel counts as visible when a cut-out is cropped (0 to 255)."""


def fit_square(picture: Image.Image, size: int = SPRITE_SIZE) -> Image.Image:
    """Crop an RGBA cut-out to its visible part, pad it to a square, and resize it to ``size``."""
    alpha = picture.getchannel("A").point(lambda value: 255 if value >= VISIBLE_ALPHA else 0)
    box = alpha.getbbox()
    if box is None:
        raise ValueError("the picture is fully transparent")
    cut = picture.crop(box)
    side = max(cut.size)
    square = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    square.paste(cut, ((side - cut.width) // 2, (side - cut.height) // 2))
    return square.resize((size, size), Image.Resampling.LANCZOS)


def _polygon(sides: int, radii: tuple[float, ...], turn: float) -> list[tuple[float, float]]:
    centre = DRAW_SIZE / 2
    points = []
    for i in range(sides):
        angle = 2 * math.pi * (i + turn) / sides
        radius = radii[i % len(radii)] * DRAW_SIZE / 2
        points.append((centre + radius * math.cos(angle), centre + radius * math.sin(angle)))
    return points


def _font() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"


def _fitted_font(text: str, width: float, height: float) -> ImageFont.FreeTypeFont:
    size = 40
    while True:
        left, top, right, bottom = ImageFont.truetype(str(_font()), size + 4).getbbox(text)
        if right - left > width or bottom - top > height:
            return ImageFont.truetype(str(_font()), size)
        size += 4


def _shade(picture: Image.Image) -> Image.Image:
    """Light from above: brighter at the top, darker at the bottom, as the other cut-outs are lit."""
    pixels = np.asarray(picture).astype(np.float32)
    light = np.linspace(1.12, 0.86, pixels.shape[0], dtype=np.float32)[:, None, None]
    pixels[..., :3] = np.clip(pixels[..., :3] * light, 0, 255)
    return Image.fromarray(pixels.round().astype(np.uint8))


def draw_text(text: str, shape: str, plate: str, ink: str) -> Image.Image:
    """Draw a short word on a sign, or (shape ``glyph``) one large outlined letter."""
    size = DRAW_SIZE
    picture = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    middle = (size / 2, size / 2)
    if shape == "glyph":
        font = _fitted_font(text, size * 0.86, size * 0.86)
        draw.text(middle, text, font=font, fill=plate, anchor="mm", stroke_width=26, stroke_fill=ink)
        return _shade(picture)
    rim = 18
    width, height = 0.84, 0.5
    if shape == "octagon":
        draw.polygon(_polygon(8, (1.0,), 0.5), fill="#ffffff")
        draw.polygon(_polygon(8, (0.93,), 0.5), fill=plate)
    elif shape == "circle":
        draw.ellipse((0, 0, size - 1, size - 1), fill="#ffffff")
        draw.ellipse((rim, rim, size - 1 - rim, size - 1 - rim), fill=plate)
        width, height = 0.74, 0.5
    elif shape == "square":
        draw.rounded_rectangle((0, 0, size - 1, size - 1), radius=90, fill=ink)
        draw.rounded_rectangle((rim, rim, size - 1 - rim, size - 1 - rim), radius=76, fill=plate)
    elif shape == "bubble":
        draw.rounded_rectangle((0, 20, size - 1, 380), radius=150, fill=plate)
        draw.polygon([(90, 330), (70, 500), (250, 360)], fill=plate)
        middle, width, height = (size / 2, 200), 0.7, 0.5
    elif shape == "plate":
        draw.rounded_rectangle((0, 110, size - 1, 402), radius=60, fill=ink)
        draw.rounded_rectangle((rim, 110 + rim, size - 1 - rim, 402 - rim), radius=46, fill=plate)
    elif shape == "burst":
        draw.polygon(_polygon(28, (1.0, 0.84), 0.5), fill=plate)
        width = 0.76
    elif shape == "post":
        draw.rectangle((226, 300, 286, size - 1), fill="#5b3413")
        draw.rounded_rectangle((0, 30, size - 1, 330), radius=40, fill="#4a2a10")
        draw.rounded_rectangle((rim, 30 + rim, size - 1 - rim, 330 - rim), radius=28, fill=plate)
        middle = (size / 2, 180)
    else:
        raise ValueError(f"unknown sign shape {shape!r}")
    font = _fitted_font(text, size * width, size * height)
    draw.text(middle, text, font=font, fill=ink, anchor="mm", stroke_width=4, stroke_fill=ink)
    return _shade(picture)


def read_source(source: str, fluent: Path) -> Image.Image:
    """Open (or draw) the large picture that a row of the table names."""
    if source.startswith("text:"):
        _, text, shape, plate, ink = source.split(":")
        return draw_text(text, shape, plate, ink)
    return Image.open(fluent / "assets" / f"{source}.webp").convert("RGBA")


def emojibase_labels(emojibase: Path) -> dict[str, str]:
    """Map every hexcode of emojibase (skin tones too, lower case, without variation selector) to its label."""
    labels: dict[str, str] = {}
    for emoji in json.loads((emojibase / "en" / "data.json").read_text(encoding="utf-8")):
        for form in (emoji, *emoji.get("skins", ())):
            labels[form["hexcode"].lower().replace("-fe0f", "")] = form["label"]
    return labels


def main() -> None:
    """Write ``objects.json`` and one PNG per object into the package's data folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fluent", type=Path, help="unpacked @lobehub/fluent-emoji-3d 1.1.0")
    parser.add_argument("emojibase", type=Path, help="unpacked emojibase-data 17.0.0")
    parser.add_argument("--out", type=Path, default=DATA, help="where to write (default: the package's data folder)")
    arguments = parser.parse_args()
    labels = emojibase_labels(arguments.emojibase)
    sprites = arguments.out / "sprites"
    sprites.mkdir(parents=True, exist_ok=True)
    for old in sorted(sprites.glob("*.png")):
        old.unlink()
    objects = []
    with TABLE.open(encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            sprite = f"{row['name']}.png"
            fit_square(read_source(row["source"], arguments.fluent)).save(sprites / sprite, optimize=True)
            drawn = row["source"].startswith("text:")
            objects.append(
                {
                    "name": row["name"],
                    "noun": row["noun"],
                    "synonyms": [row["synonym"]] if row["synonym"] else [],
                    "category": row["category"],
                    "keywords": row["keywords"].split(),
                    "sprite": sprite,
                    "source": row["source"],
                    "label": "drawn" if drawn else labels[row["source"].replace("-fe0f", "")],
                }
            )
    (arguments.out / "objects.json").write_text(json.dumps(objects, indent=1) + "\n", encoding="utf-8")
    total = sum(path.stat().st_size for path in sprites.glob("*.png"))
    print(f"{len(objects)} objects, {total / 1e6:.2f} MB of sprites in {sprites}")


if __name__ == "__main__":
    main()
