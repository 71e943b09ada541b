"""A QR code as the path of an inline SVG: no image to load or to cache, and no data: address to allow."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

_QUIET = 4  # modules of margin: ISO/IEC 18004, 5.3.8


@dataclass(frozen=True, slots=True)
class QrCode:
    """`path`: the dark modules, as `d` of a `<path>` in a square of `size` units."""

    path: str
    size: int


def qr_code(text: str) -> QrCode:
    """`text` as a QR code that survives some dirt (error correction M). About ten milliseconds of work."""
    import qrcode  # noqa: PLC0415 - needed once in the life of a phone

    code = qrcode.QRCode(border=_QUIET, error_correction=qrcode.constants.ERROR_CORRECT_M)
    code.add_data(text)
    code.make()
    rows = code.get_matrix()
    runs: list[str] = []
    for y, row in enumerate(rows):
        x = 0
        for dark, modules in groupby(row):
            width = len(list(modules))
            if dark:
                runs.append(f"M{x} {y}h{width}v1h-{width}z")
            x += width
    return QrCode("".join(runs), len(rows))
