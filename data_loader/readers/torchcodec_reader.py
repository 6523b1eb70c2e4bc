"""torchcodec, where installed: fast, exact on files that store when each frame is shown (AVI does not)."""

from . import pyav_reader
from .errors import VideoReadError
from .frames import Chooser, Clip
from .packets import scan_packets


def read(path: str, choose: Chooser) -> Clip:
    """Frames in torchcodec's exact seek mode. Raises ImportError with what to install."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        raise _not_installed(error) from error
    packets = scan_packets(path)
    if not packets.are_timed():
        return pyav_reader.read(path, choose, packets)  # it is off by some frames without time stamps
    try:
        video = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        vlen = len(video)
        if vlen == 0:
            raise VideoReadError(path, "has no video frames")
        indices = list(choose(vlen))
        return Clip(video.get_frames_at(indices).data.numpy(), indices, vlen)
    except VideoReadError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        if "libtorchcodec" in str(error):  # looked for at the first use only
            raise _not_installed(error) from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise VideoReadError(path, f"{lines[0]} (torchcodec)") from error


def _not_installed(error: Exception) -> ImportError:
    return ImportError(
        "reader 'torchcodec' needs the package torchcodec and FFmpeg's shared libraries "
        f"(pip install torchcodec; or take reader 'pyav'): {error}"
    )
