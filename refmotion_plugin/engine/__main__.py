"""``python -m refmotion_plugin.engine`` is the command ``refmotion``."""
from .lifetime import keep_blas_single, leave, share_one_heap, tell_where_on_request

keep_blas_single()      # the next import loads numpy

from .cli import main  # noqa: E402


def command():
    """Run the command given to this process, and end the process."""
    share_one_heap()
    tell_where_on_request()
    leave(main())


if __name__ == "__main__":
    command()
