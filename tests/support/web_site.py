"""The demo's web site on a host of tests/support/hosts.py: `python -m tests.support.web_site FOLDER ADDRESS PORT`.

It prints its address once it serves, and serves until its standard input is closed.
"""

import sys
from pathlib import Path

from corgi.demo.site import Site


def main(folder: str, address: str, port: str) -> None:
    """Serve a folder of pictures."""
    with Site(Path(folder), int(port), address) as site:
        print(site.address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
