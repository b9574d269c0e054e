"""What tests of the stages put in the place of decoded movies."""


class Changed:
    """A decoded movie with each frame changed on its way."""

    def __init__(self, stack, change):
        self.stack, self.change = stack, change

    def corrected(self, frame, device, **options):
        """The corrected frame, changed."""
        return self.change(self.stack.corrected(frame, device))

    def to_cut(self, frame, device, **options):
        """The same: patches are cut from it."""
        return self.corrected(frame, device)

    def keep_on(self, device, most_bytes):
        """Nothing is kept."""

    def expect(self, frame, device):
        """Nothing is fetched ahead."""
