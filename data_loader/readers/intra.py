"""Videos of key frames alone, as scripts/prepare_videos.sh writes them: only what is wanted is read.

The header of an MP4 says where each frame lies and when it is decoded; where every frame is a key frame, that
is also when it is shown. So nothing but the wanted frames need be read, which counts on a network drive.
"""

import os

import av
from av.video.frame import PictureType

from .frames import Chooser, Clip
from .packets import video_packets
from .rgb import RGB, stacked


def read_key_frames(
    container: av.container.InputContainer, stream: av.VideoStream, times: list[int], choose: Chooser
) -> Clip | None:
    """The clip; None where anything is not as the header promises, the container being anywhere then."""
    indices, frames, to_rgb = list(choose(len(times))), {}, RGB()
    for i in sorted(set(indices)):
        container.seek(times[i], stream=stream)
        packet = next(video_packets(container, stream), None)
        if packet is None or packet.pts != times[i] or not packet.is_keyframe:
            return None
        decoded = packet.decode() + stream.codec_context.decode(None)
        if [(f.pts, f.pict_type) for f in decoded] != [(times[i], PictureType.I)]:
            return None
        frames[i] = to_rgb(decoded[0])
    return Clip(stacked(frames, indices), indices, len(times))


def key_frame_times(path: str, stream: av.VideoStream) -> list[int] | None:
    """When each frame is shown, in the stream's time base; None where some frame leans on another.

    None, too, where the header need not be right: parts of the file are missing, an edit list cuts frames
    off, or the index is one that grows while the file is read.
    """
    entries = list(stream.index_entries)
    if not entries or len(entries) != stream.frames or stream.codec_context.has_b_frames:
        return None
    if not all(entry.is_keyframe and not entry.is_discard and entry.size for entry in entries):
        return None
    if max(entry.pos + entry.size for entry in entries) > os.path.getsize(path):
        return None
    times = [entry.timestamp for entry in entries]
    return times if times == sorted(set(times)) else None
