"""Tasks that wait for a worker, in the order in which the workers shall have them."""
from collections import deque


class WaitingTasks:
    """Tasks by the worker that had their movie last, so that picking one costs the same however many there are.

    ``worked_at`` movie key -> address of the worker that had it last; read when a task begins to wait.
    """

    def __init__(self, tasks, worked_at):
        self._worked_at, self._queues, self._next, self._first = worked_at, {}, 0, 0        # owner -> (number, task), numbers rise
        for task in tasks:
            self._queue_of(task).append((self._next, task))
            self._next += 1

    def __len__(self):
        return sum(map(len, self._queues.values()))

    def take(self, address):
        """The task that a worker does next: of a movie whose decoded frames it may still have on its disk, if there is one.

        Else a movie that nobody had comes before those of other workers. Raises ValueError if no task waits.
        """
        owner = next((o for o in (address, None) if o in self._queues), self._longest_waiting())
        _, task = self._queues[owner].popleft()
        if not self._queues[owner]:
            del self._queues[owner]
        return task

    def put_back(self, task):
        """A task that was taken and could not be done waits again, before all others of its owner."""
        self._first -= 1
        self._queue_of(task).appendleft((self._first, task))

    def _queue_of(self, task):
        return self._queues.setdefault(self._worked_at.get(task.movie.key), deque())

    def _longest_waiting(self):
        return min(self._queues, key=lambda owner: self._queues[owner][0][0])
