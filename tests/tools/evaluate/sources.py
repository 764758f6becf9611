"""Reference pictures with their subject masks: read from files, or drawn by the toy world's generator."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..toy_world.pictures import COLOUR_NAMES, SCENE_NAMES, SUBJECT_NAMES, Kind, make_picture

LATENT_PIXEL = 8  # a latent pixel's side in pixels: other sizes are cropped on the way


@dataclass(frozen=True)
class Reference:
    """`image` uint8 [H,W,3], `mask` bool [H,W], true on the subject, or None; `digest` tells pictures apart."""

    image: np.ndarray = field(repr=False)
    mask: np.ndarray | None = field(repr=False)
    digest: str

    def png(self) -> bytes:
        """The picture as a PNG file."""
        buffer = io.BytesIO()
        Image.fromarray(self.image).save(buffer, format="PNG")
        return buffer.getvalue()


@dataclass(frozen=True)
class FileSource:
    """A picture file, scaled and cropped in the middle to `size` (width, height) if there is one, and its mask file."""

    path: Path
    mask_path: Path | None
    size: tuple[int, int] | None

    @property
    def name(self) -> str:
        """A name for files and tables."""
        return self.path.stem

    def load(self) -> Reference:
        """Read it; ValueError that names the file when it is broken or does not fit."""
        image = _fitted(_opened(self.path).convert("RGB"), self.size, Image.Resampling.LANCZOS)
        width, height = image.size
        if width % LATENT_PIXEL or height % LATENT_PIXEL:
            raise ValueError(
                f"{self.path} is {width}×{height}: sides must be multiples of {LATENT_PIXEL}, or the description must "
                "give a size to which pictures are scaled and cropped"
            )
        return _reference(np.asarray(image), self._mask() if self.mask_path else None)

    def _mask(self) -> np.ndarray:
        picture, mask = _opened(self.path), _opened(self.mask_path).convert("L")
        if mask.size != picture.size:
            raise ValueError(
                f"{self.mask_path} is {mask.width}×{mask.height}, its picture {self.path} is "
                f"{picture.width}×{picture.height}"
            )
        inside = np.asarray(_fitted(mask, self.size, Image.Resampling.NEAREST)) > 127
        if not inside.any() or inside.all():
            raise ValueError(
                f"{self.mask_path} is {'all white' if inside.all() else 'empty'} where the picture is used"
            )
        return inside


@dataclass(frozen=True)
class DrawnSource:
    """A picture of the toy world."""

    kind: Kind
    seed: int

    def __post_init__(self) -> None:
        for what, names in (("subject", SUBJECT_NAMES), ("scene", SCENE_NAMES), ("colour", COLOUR_NAMES)):
            if getattr(self.kind, what) not in names:
                raise ValueError(f"{what} {getattr(self.kind, what)!r} is not one of {', '.join(names)}")

    @property
    def name(self) -> str:
        """A name for files and tables."""
        return f"{self.kind.colour}-{self.kind.subject}-{self.seed}"

    def load(self) -> Reference:
        """Draw it."""
        picture = make_picture(self.kind, self.seed)
        return _reference(picture.image, picture.mask)


Source = FileSource | DrawnSource


def _reference(image: np.ndarray, mask: np.ndarray | None) -> Reference:
    digest = hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
    return Reference(image, mask, digest)


def _opened(path: Path) -> Image.Image:
    """A picture as cameras mean it; ValueError that names the file."""
    try:
        with Image.open(path) as file:
            file.load()
            return ImageOps.exif_transpose(file)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises
        raise ValueError(f"{path} cannot be read as a picture ({error})") from error


def _fitted(image: Image.Image, size: tuple[int, int] | None, how: Image.Resampling) -> Image.Image:
    return ImageOps.fit(image, size, how) if size else image
