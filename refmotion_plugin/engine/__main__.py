"""``python -m refmotion_plugin.engine`` is the command ``refmotion``."""
import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
