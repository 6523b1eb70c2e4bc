"""What goes wrong with a video file."""


class VideoReadError(RuntimeError):
    """A video that cannot be read. `path` names the file, `reason` says why, in words for a person."""

    def __init__(self, path: str, reason: str = ""):
        super().__init__(str(path), reason)

    @property
    def path(self) -> str:
        return self.args[0]

    @property
    def reason(self) -> str:
        return self.args[1]

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


class VideoReadTimeout(VideoReadError):
    """A video whose reader was given up after its time limit; another try would take as long."""
