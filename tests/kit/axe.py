"""axe-core, which finds what of a page shuts people out: from npm, pinned, kept in the cache."""

from __future__ import annotations

import base64
import hashlib
import sys
import tarfile
import tempfile
from pathlib import Path

from hubgate.errors import OperatorFault
from hubgate.ops.demo import cache, command
from tests.kit.missing import missing

VERSION = "4.14.1"
_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
_SCRIPT = "package/axe.min.js"


def script() -> str:
    """The source of axe, to be run in a page. A failure of the test where it can't be had."""
    kept = cache.root() / "axe" / f"axe-{VERSION}.js"
    with cache.making("axe"):
        if not kept.is_file():
            try:
                fetched = _fetched()
            except OperatorFault as fault:
                missing("axe", fault.message)
            kept.parent.mkdir(exist_ok=True)
            kept.write_bytes(fetched)
    return kept.read_text()


def _fetched() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        npm = Path(sys.executable).parent / "npm"
        command.run("axe npm", [str(npm), "pack", f"axe-core@{VERSION}", "--silent", "--pack-destination", folder])
        package = Path(folder) / f"axe-core-{VERSION}.tgz"
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if digest != _SHA512:
            raise OperatorFault("axe_changed", f"axe-core {VERSION} is not what it was: sha512-{digest}")
        with tarfile.open(package) as archive:
            member = archive.extractfile(_SCRIPT)
            if member is None:
                raise OperatorFault("axe_changed", f"axe-core {VERSION} has no {_SCRIPT}")
            return member.read()
