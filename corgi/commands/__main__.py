"""`python -m corgi.commands` is the command `corgi`."""

import sys

from corgi.commands.console import main

sys.exit(main())
