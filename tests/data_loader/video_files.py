"""Small videos of all kinds for the tests. Every frame carries its number in its pixels, as six black or
white blocks that survive compression: `frame_numbers` reads them back, so a test sees which frames a reader
has given."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ROWS, COLS = 2, 3
MAX_FRAMES = 2 ** (ROWS * COLS)
TICKS = 1000  # time base: milliseconds


def numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3] with the binary digits of `number` as blocks, the lowest at the top left."""
    rows = np.arange(height) * ROWS // height
    cols = np.arange(width) * COLS // width
    bits = (number >> (rows[:, None] * COLS + cols)) & 1
    return np.repeat((bits * 255).astype(np.uint8)[..., None], 3, axis=2)


def frame_numbers(frames) -> list[int]:
    """The numbers in frames uint8 [T, 3, H, W]. Fails where a block is neither black nor white."""
    pixels = np.asarray(frames)
    height, width = pixels.shape[2:]
    ys = ((np.arange(ROWS) + 0.5) * height / ROWS).astype(int)
    xs = ((np.arange(COLS) + 0.5) * width / COLS).astype(int)
    blocks = pixels[:, :, ys][:, :, :, xs].astype(int)  # [T, 3, ROWS, COLS]
    assert ((blocks < 40) | (blocks > 215)).all(), "a block is neither black nor white"
    bits = (blocks.mean(axis=1) > 128).reshape(len(pixels), -1)
    return (bits << np.arange(ROWS * COLS)).sum(axis=1).tolist()


def write_video(
    path: Path,
    num_frames: int = 40,
    codec: str = "libx264",
    size: tuple[int, int] = (96, 64),
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    b_frames: int | None = None,
    container_options: dict[str, str] | None = None,
    full_range: bool = False,
    first: int = 0,
) -> Path:
    """Frames from number `first` on. size: (width, height). times: in ms, else 25 frames a second."""
    assert first + num_frames <= MAX_FRAMES
    width, height = size
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.thread_count = 1
        if b_frames is not None:
            context.max_b_frames = b_frames
        if full_range:
            context.color_range = 2
        if times is not None:
            context.time_base = Fraction(1, TICKS)
        for i in range(num_frames):
            image = av.VideoFrame.from_ndarray(numbered_frame(first + i, width, height), format="rgb24")
            frame = image.reformat(format=pix_fmt, dst_color_range=2 if full_range else 1)
            if times is None:
                frame.pts, frame.time_base = i, Fraction(1, 25)
            else:
                frame.pts, frame.time_base = times[i], Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_by_copy(source: Path, path: Path, first: int, keep_start: bool = True) -> Path:
    """The packets of `source` copied with time 0 at frame `first`, as `ffmpeg -ss … -c copy` does.

    What comes before stays in the file, as frames that depend on one another must; in an MP4 an edit list
    hides it. With `keep_start` False it is dropped: `first` should be a key frame then, and the pictures of
    an open GOP that lean on the one before are lost.
    """
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        shift = round(first / 25 / stream.time_base)
        started = keep_start
        for packet in old.demux(stream):
            started |= packet.is_keyframe and packet.pts >= shift
            if packet.dts is None or not started:
                continue
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = copy
            new.mux(packet)
    return path


def write_sound(path: Path) -> Path:
    """One second of silence and no video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


ORIENTATIONS = {  # display matrix (a, b, c, d): the pixel (x, y) is shown at (ax + cy, bx + dy)
    "as stored": (1, 0, 0, 1),
    "turned clockwise": (0, 1, -1, 0),
    "upside down": (-1, 0, 0, -1),
    "turned counter-clockwise": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "mirrored, upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed along the other diagonal": (0, -1, -1, 0),
}


def orient(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes a display matrix (a, b, c, d) into the header of an MP4."""
    a, b, c, d = matrix
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # after version, times, id, duration, layer and volume
    for k, value in enumerate((a, b, 0, c, d)):
        content[start + 4 * k : start + 4 * k + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    return path


def shown(stored: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """What a display matrix makes of the pixels [H, W, ...], moved one by one."""
    a, b, c, d = matrix
    height, width = stored.shape[:2]
    ys, xs = np.indices((height, width))
    right, down = a * xs + c * ys, b * xs + d * ys
    right, down = right - right.min(), down - down.min()
    result = np.empty((down.max() + 1, right.max() + 1, *stored.shape[2:]), stored.dtype)
    result[down, right] = stored
    return result


def set_avi_count(path: Path, count: int) -> Path:
    """Writes a number of frames into the headers of an AVI, right or wrong."""
    content = bytearray(path.read_bytes())
    for chunk, offset in ((b"avih", 16), (b"strh", 32)):
        at = content.index(chunk) + 8 + offset
        content[at : at + 4] = count.to_bytes(4, "little")
    path.write_bytes(content)
    return path


def mark_all_as_key_frames(path: Path) -> Path:
    """Takes the list of key frames out of an MP4: without one, each frame passes for one."""
    content = path.read_bytes()
    assert content.count(b"stss") == 1
    path.write_bytes(content.replace(b"stss", b"free"))
    return path


def append_with_its_description(path: Path, first: Path, second: Path) -> Path:
    """Two MP4s of H.264 without B-frames as one track that describes its samples twice, as editors append."""
    one, two = (_boxes(file.read_bytes()) for file in (first, second))
    tables, others = (dict(_find(boxes, *STBL)) for boxes in (one, two))

    def table(entries: list[tuple[int, ...]]) -> bytes:
        rows = b"".join(struct.pack(f">{len(entry)}I", *entry) for entry in entries)
        return struct.pack(">II", 0, len(entries)) + rows

    def rows(stbl: dict[bytes, bytes], kind: bytes, width: int, start: int = 8) -> list[tuple[int, ...]]:
        return list(struct.iter_unpack(f">{width}I", stbl[kind][start:]))

    samples, chunks = (len(rows(tables, kind, 1, start)) for kind, start in ((b"stsz", 12), (b"stco", 8)))
    header = b"".join(_box(kind, content) for kind, content in one if kind == b"ftyp")
    media = [content for boxes in (one, two) for kind, content in boxes if kind == b"mdat"]
    offsets = []  # of the chunks, where the two files' media lie one behind the other
    for file, stbl, start in ((first, tables, 0), (second, others, len(media[0]))):
        was = file.read_bytes().index(b"mdat") + 4
        offsets += [(at - was + len(header) + 8 + start,) for (at,) in rows(stbl, b"stco", 1)]
    sizes = rows(tables, b"stsz", 1, 12) + rows(others, b"stsz", 1, 12)
    joined = {
        b"stsd": struct.pack(">II", 0, 2) + tables[b"stsd"][8:] + others[b"stsd"][8:],
        b"stts": table(rows(tables, b"stts", 2) + rows(others, b"stts", 2)),
        b"stsc": table(
            [(chunk, count, 1) for chunk, count, _ in rows(tables, b"stsc", 3)]
            + [(chunk + chunks, count, 2) for chunk, count, _ in rows(others, b"stsc", 3)]
        ),
        b"stsz": bytes(4) + table(sizes),
        b"stco": table(offsets),
    }
    if b"stss" in tables:  # missing where all are key frames
        keys = rows(tables, b"stss", 1) + [(n + samples,) for (n,) in rows(others, b"stss", 1)]
        joined[b"stss"] = table(keys)
    moov = _replace_tables(next(content for kind, content in one if kind == b"moov"), joined)
    path.write_bytes(header + _box(b"mdat", b"".join(media)) + _box(b"moov", moov))
    return path


def append_packets(path: Path, *parts: Path) -> Path:
    """The packets of some files one after the other, all under the header of the first."""
    with av.open(str(path), "w") as joined:
        stream, start = None, 0
        for part in parts:
            with av.open(str(part)) as source:
                stream = stream or joined.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(source.streams.video[0]):
                    if packet.size:
                        packet.pts = packet.dts = packet.pts + start
                        end = packet.pts + packet.duration
                        packet.stream = stream
                        joined.mux(packet)
                start = end
    return path


STBL = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
DURATIONS = {b"mvhd": 16, b"tkhd": 20, b"mdhd": 16}  # where a header says how long it all lasts


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def _boxes(content: bytes) -> list[tuple[bytes, bytes]]:
    """The boxes of an MP4, or of one of its boxes, one after the other."""
    found = []
    while content:
        (size,) = struct.unpack(">I", content[:4])
        found.append((content[4:8], content[8:size]))
        content = content[size:]
    return found


def _find(boxes: list[tuple[bytes, bytes]], *way: bytes) -> list[tuple[bytes, bytes]]:
    for step in way:
        boxes = _boxes(next(content for kind, content in boxes if kind == step))
    return boxes


def _replace_tables(content: bytes, tables: dict[bytes, bytes]) -> bytes:
    """A box with these tables in place of its own, twice the duration, and no edit list."""
    made = []
    for kind, inner in _boxes(content):
        if kind in STBL:
            inner = _replace_tables(inner, tables)
        elif kind in DURATIONS:
            at = DURATIONS[kind]
            (duration,) = struct.unpack(">I", inner[at : at + 4])
            inner = inner[:at] + struct.pack(">I", 2 * duration) + inner[at + 4 :]
        if kind != b"edts":
            made.append(_box(kind, tables.get(kind, inner)))
    return b"".join(made)


def truncate(path: Path, share: float) -> Path:
    """Cuts a file off after a share of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def packet_places(path: Path) -> list[tuple[int, int]]:
    """First byte and size of the packets of a video, found by what they hold: formats wrap them up."""
    content = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    places, end = [], 0
    for packet in packets:
        start = content.index(packet, end)
        end = start + len(packet)
        places.append((start, len(packet)))
    return places


def spoil(path: Path, numbers: Sequence[int]) -> Path:
    """Overwrites what some packets of an H.264 file hold, so that the decoder refuses them."""
    content = bytearray(path.read_bytes())
    places = packet_places(path)
    for number in numbers:
        start, size = places[number]
        content[start : start + size] = b"\xff" * size
    path.write_bytes(content)
    return path


def hide(path: Path, number: int, show_frame: int) -> Path:
    """Makes one packet of a VP8 or VP9 file a picture that is never shown, by this bit of its first byte."""
    content = bytearray(path.read_bytes())
    content[packet_places(path)[number][0]] &= ~show_frame
    path.write_bytes(content)
    return path


def write_palette(path: Path, num_frames: int = 40) -> Path:
    """Raw pictures of palette indices; the palette itself comes with the first."""
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0], palette[7] = 255, 255  # alpha; white
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "pal8"
        for i in range(num_frames):
            white = numbered_frame(i, 96, 64)[..., 0] == 255
            frame = av.VideoFrame.from_ndarray(((white * 7).astype(np.uint8), palette), format="pal8")
            frame.pts = i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_late_video(path: Path, start_ms: int, num_frames: int, sound_s: int) -> Path:
    """Silence from 0 on, and pictures from later on."""
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("libx264", rate=25), container.add_stream("aac", rate=16000)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        video.codec_context.time_base = Fraction(1, TICKS)
        for i in range(sound_s):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
            samples.sample_rate, samples.pts = 16000, i * 16000
            container.mux(sound.encode(samples))
        for i in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(i, 96, 64), format="rgb24")
            frame.pts, frame.time_base = start_ms + 40 * i, Fraction(1, TICKS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        container.mux(sound.encode())
    return path


def write_two_sizes(path: Path, *parts: tuple[tuple[int, int], int]) -> Path:
    """An H.264 stream that changes its size: ((width, height), number of frames), one after the other."""
    packets, number = [], 0
    for (width, height), count in parts:
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base = Fraction(1, 25)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number + i, width, height), format="rgb24")
            frame.pts = number + i
            packets += encoder.encode(frame)
        packets += encoder.encode()
        number += count
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        (stream.width, stream.height), stream.pix_fmt = parts[0][0], "yuv420p"
        for packet in packets:
            packet.stream = stream
            container.mux(packet)
    return path
