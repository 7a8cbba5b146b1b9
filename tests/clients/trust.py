"""Lets a browser trust a certificate authority of the tests' own, as an administrator does: in its NSS store."""

import subprocess
from pathlib import Path

CHROMIUM_STORE = Path(".pki/nssdb")
"""Chromium's store, below the home of its user. Firefox has one in each profile."""


def trust(store: Path, authority: Path) -> None:
    """Put an authority, in PEM, into the store of a folder, which is made if it is not there.

    Raises:
        subprocess.CalledProcessError: certutil refuses it.
    """
    store.mkdir(parents=True, exist_ok=True)
    database = f"sql:{store}"
    run = subprocess.run
    if not (store / "cert9.db").exists():
        run(["certutil", "-N", "-d", database, "--empty-password"], check=True, capture_output=True)
    add = ["certutil", "-A", "-d", database, "-n", "authority of a test", "-t", "C,,", "-i", str(authority)]
    run(add, check=True, capture_output=True)
