"""Fetch, decode and filter the pictures of the plan: `python pipelines/download.py RECIPE [key.path=value ...]`.

img2dataset's option names are accepted where they mean the same: `--image_size=256`, `--thread_count 64`.
"""

import sys

import full

from corgi.settings.aliases import with_our_names
from corgi.settings.errors import SettingsError


def main() -> int:
    """Run the command line with img2dataset's options replaced by our settings."""
    try:
        sys.argv[1:] = with_our_names(sys.argv[1:])
    except SettingsError as error:
        print(f"SettingsError: {error}", file=sys.stderr)
        return error.exit_code
    return full.main(only="download")


if __name__ == "__main__":
    sys.exit(main())
