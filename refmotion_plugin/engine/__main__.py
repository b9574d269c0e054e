"""``python -m refmotion_plugin.engine`` is the command ``refmotion``."""
from .cli import main
from .lifetime import leave


def command():
    """Run the command given to this process, and end the process."""
    leave(main())


if __name__ == "__main__":
    command()
