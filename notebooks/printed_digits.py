"""Print digits in ten typefaces, and put them into a bucket or a folder: new data for the notebook's second round.

In the form of UCI's handwritten ones, and made as those were: a bitmap of 32×32 pixels, of which each 4×4 that are set
are counted.

    python notebooks/printed_digits.py s3://BUCKET/digits/printed
"""

import io
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from holdfast.cli.naming import open_objects
from holdfast.errors import HoldfastError

TYPEFACES = {
    "train": (
        "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Italic",
        "STIXGeneral", "STIXGeneralBol",
    ),
    "val": ("DejaVuSerif-Bold", "STIXGeneralItalic"),
}  # fmt: skip
EACH = 6  # of a digit in a typeface
SIDE, BLOCK = 8, 4  # of an image, and of what is counted into one of its pixels
TILT_DEGREES, SHIFT = 12, 2
SEED = 11


def main() -> None:
    """Write ``SPLIT/TYPEFACE.npy``: uint8 of shape (n, 65), in a row 64 pixels from 0 to 16 and the digit."""
    if len(sys.argv) != 2:
        sys.exit("usage: python notebooks/printed_digits.py URL|FOLDER")
    store = open_objects(sys.argv[1])
    generator = np.random.default_rng(SEED)
    digits = np.tile(np.arange(10, dtype=np.uint8), EACH)
    for split, typefaces in TYPEFACES.items():
        for typeface in typefaces:
            images = np.stack([printed(str(digit), typeface, generator) for digit in digits])
            stream = io.BytesIO()
            np.save(stream, np.column_stack([images.reshape(len(digits), -1), digits]))
            store.put(f"{split}/{typeface}.npy", stream.getvalue())
        print(f"{len(typefaces)} files of {len(digits)} digits each are at {store.url}/{split}/")


def printed(digit: str, typeface: str, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One image: uint8 of shape (8, 8), from 0 to 16; a little tilted, and not quite in the middle."""
    full = SIDE * BLOCK
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts/ttf" / f"{typeface}.ttf", 4 * full)
    page = Image.new("L", (8 * full, 8 * full))
    ImageDraw.Draw(page).text((4 * full, 4 * full), digit, fill=255, font=font, anchor="mm")
    page = page.rotate(generator.uniform(-TILT_DEGREES, TILT_DEGREES), Image.Resampling.BICUBIC)
    glyph = page.crop(page.getbbox())
    scale = full / max(glyph.size)
    glyph = glyph.resize((max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale))))
    bitmap = Image.new("L", (full, full))
    right, down = generator.integers(-SHIFT, SHIFT, 2, endpoint=True)
    bitmap.paste(glyph, ((full - glyph.width) // 2 + int(right), (full - glyph.height) // 2 + int(down)))
    blocks = (np.asarray(bitmap) > 127).reshape(SIDE, BLOCK, SIDE, BLOCK)
    return blocks.sum(axis=(1, 3)).astype(np.uint8)


if __name__ == "__main__":
    try:
        main()
    except HoldfastError as error:
        sys.exit(f"printed_digits.py: {error}")
