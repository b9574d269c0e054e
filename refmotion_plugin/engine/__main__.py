"""``python -m refmotion_plugin.engine`` is the command ``refmotion``."""
from .cli import main
from .lifetime import leave, share_one_heap


def command():
    """Run the command given to this process, and end the process."""
    share_one_heap()
    leave(main())


if __name__ == "__main__":
    command()
