"""Draw the README's picture from a finished run: a fair sample of what was seen and what was decoded.

Example: python tools/readme_picture.py unibrain-demo docs/images/decoded.png
"""

import argparse
import textwrap
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from unibrain import load_decoded, load_subject, read_nsd_stimuli

SIDE, GAP, TEXT, COLUMNS = 160, 12, 86, 6


def main() -> None:
    """Take every n-th decoded image, so that nobody chooses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run with a simulated subject")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--count", type=int, default=12, help="how many images")
    options = parser.parse_args()

    decoded = load_decoded(options.run / "decoded")
    subject = load_subject(options.run / "subject.npz")
    stimuli = read_nsd_stimuli(options.run / "nsd", subject.test.stimulus_ids)
    rows = range(0, len(decoded.captions), max(1, len(decoded.captions) // options.count))[: options.count]
    seen = stimuli.pictures(decoded.stimulus_ids)
    captions = stimuli.captions(decoded.stimulus_ids)

    lines = -(-len(rows) // COLUMNS)
    height = 2 * SIDE + 2 * TEXT + GAP
    sheet = Image.new("RGB", (COLUMNS * (SIDE + GAP) + GAP, lines * (height + GAP) + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / "DejaVuSans.ttf"), 13)
    for place, row in enumerate(rows):
        left = GAP + (place % COLUMNS) * (SIDE + GAP)
        top = GAP + (place // COLUMNS) * (height + GAP)
        pairs = ((seen[row], captions[row][0], "#555555"), (decoded.pictures[row], decoded.captions[row], "#000000"))
        for picture, caption, colour in pairs:
            enlarged = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            sheet.paste(enlarged, (left, top))
            draw.text((left, top + SIDE + 2), textwrap.fill(caption, 22), fill=colour, font=font, spacing=2)
            top += SIDE + TEXT
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.picture)


if __name__ == "__main__":
    main()
