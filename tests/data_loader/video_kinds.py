"""The video files that the readers are tested on: good ones with their frames, bad ones with the reason."""

from pathlib import Path

from tests.data_loader import video_files as files

REPEATS = Path(__file__).with_name("theora_repeats.ogv")

HEVC_OPEN = {"x265-params": "open-gop=1:keyint=8:bframes=3:scenecut=0:log-level=none"}
H264_OPEN = {"x264-params": "open-gop=1:keyint=8:bframes=3:scenecut=0"}
VP9 = {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
UNEVEN = [40 * i + 13 * (i % 3) + (400 if i > 20 else 0) for i in range(40)]
GOP = {"g": "12"}


def avi(path, count=None, **options):
    files.write_video(path, codec="mpeg4", options=GOP, **options)
    return path if count is None else files.set_avi_count(path, count)


def cut(path, first, b_frames, options=GOP):
    whole = path.with_name(f"whole_{path.stem}.mp4")
    source = files.write_video(whole, 60, options=options, b_frames=b_frames)
    return files.cut_by_copy(source, path, first)


def falsely_marked(path, **options):
    return files.mark_all_as_key_frames(files.write_video(path, options=GOP, **options))


def two_sizes(path, **options):
    """Two clips, of which the second goes on where the first ends, with frames of another size."""
    return [
        files.write_video(
            path.with_stem(f"{path.stem}_{k}"), 20, size=size, b_frames=0, first=20 * k, **options
        )
        for k, size in enumerate([(96, 64), (160, 128)])
    ]


def written(path, content):
    path.write_bytes(content)
    return path


# file name -> (how to make it, the numbers of its frames)
GOOD = {
    "h264.mp4": (lambda p: files.write_video(p, options=GOP, b_frames=0), range(40)),
    "h264_b_frames.mp4": (lambda p: files.write_video(p, options=GOP, b_frames=3), range(40)),
    "key_frames.mp4": (lambda p: files.write_video(p, options={"g": "1"}), range(40)),
    "key_frames_uneven.mp4": (
        lambda p: files.write_video(p, times=UNEVEN, options={"g": "1"}),
        range(40),
    ),
    "key_frames_cut.mp4": (lambda p: cut(p, 10, None, {"g": "1"}), range(10, 60)),
    "falsely_marked.mp4": (lambda p: falsely_marked(p, b_frames=0), range(40)),
    "falsely_marked_b_frames.mp4": (lambda p: falsely_marked(p, b_frames=3), range(40)),
    "falsely_marked_mpeg4.mp4": (lambda p: falsely_marked(p, codec="mpeg4", b_frames=2), range(40)),
    "falsely_marked.3gp": (lambda p: falsely_marked(p, codec="h263", size=(176, 144)), range(40)),
    "two_descriptions.mp4": (
        lambda p: files.append_with_its_description(p, *two_sizes(p, options=GOP)),
        range(40),
    ),
    "two_descriptions_key_frames.mp4": (
        lambda p: files.append_with_its_description(p, *two_sizes(p, options={"g": "1"})),
        range(40),
    ),
    "two_sizes.webm": (
        lambda p: files.append_packets(p, *two_sizes(p, codec="libvpx", options=GOP)),
        range(40),
    ),
    "open_gop.mp4": (lambda p: files.write_video(p, options=H264_OPEN), range(40)),
    "open_gop_hevc.mp4": (lambda p: files.write_video(p, codec="libx265", options=HEVC_OPEN), range(40)),
    "no_count.mkv": (lambda p: files.write_video(p, b_frames=3), range(40)),
    "mpeg4.avi": (lambda p: avi(p, b_frames=0), range(40)),
    "mpeg4_b_frames.avi": (lambda p: avi(p, b_frames=2), range(40)),
    "count_too_high.avi": (lambda p: avi(p, 400), range(40)),
    "count_too_low.avi": (lambda p: avi(p, 7), range(40)),
    "count_zero.avi": (lambda p: avi(p, 0), range(40)),
    "vp9.webm": (lambda p: files.write_video(p, **VP9), range(40)),
    "uneven_times.mp4": (lambda p: files.write_video(p, times=UNEVEN), range(40)),
    "uneven_times.mkv": (lambda p: files.write_video(p, times=UNEVEN), range(40)),
    "odd_size.webm": (lambda p: files.write_video(p, size=(97, 65), **VP9), range(40)),
    "odd_size.mkv": (lambda p: files.write_video(p, size=(97, 65), pix_fmt="yuv444p"), range(40)),
    "odd_size.avi": (lambda p: avi(p, size=(97, 65)), range(40)),
    "cut.mp4": (lambda p: cut(p, 10, b_frames=3), range(10, 60)),
    "cut_without_b_frames.mp4": (lambda p: cut(p, 30, b_frames=0), range(30, 60)),
    "cut.mkv": (lambda p: cut(p, 10, b_frames=3), range(60)),
    "one_frame.mp4": (lambda p: files.write_video(p, 1), range(1)),
    "one_frame.webm": (lambda p: files.write_video(p, 1, **VP9), range(1)),
    "five_frames.mp4": (lambda p: files.write_video(p, 5), range(5)),
    "grey.mp4": (lambda p: files.write_video(p, pix_fmt="gray"), range(40)),
    "argb.mov": (lambda p: files.write_video(p, codec="qtrle", pix_fmt="argb"), range(40)),
    "rgba.mov": (lambda p: files.write_video(p, codec="png", pix_fmt="rgba"), range(40)),
    "ten_bit.mp4": (lambda p: files.write_video(p, pix_fmt="yuv420p10le"), range(40)),
    "full_range.mp4": (lambda p: files.write_video(p, full_range=True), range(40)),
    "full_range.avi": (
        lambda p: files.write_video(p, codec="mjpeg", pix_fmt="yuvj420p", full_range=True),
        range(40),
    ),
    "program_stream.mpg": (lambda p: files.write_video(p, codec="mpeg2video", b_frames=2), range(40)),
    "transport_stream.ts": (lambda p: files.write_video(p, b_frames=2), range(40)),
    "palette.avi": (files.write_palette, range(40)),
    # 20 frames, written by libtheora; of packets 6, 7 and 15 nothing was left, which shows a frame once more
    "repeats.ogv": (
        lambda p: written(p, REPEATS.read_bytes()),
        [0, 1, 2, 3, 4, 5, 5, 5, 8, 9, 10, 11, 12, 13, 14, 14, 16, 17, 18, 19],
    ),
    "hidden_vp8.webm": (
        lambda p: files.hide(files.write_video(p, codec="libvpx"), 7, show_frame=0x10),
        [i for i in range(40) if i != 7],
    ),
    "hidden_vp9.webm": (
        lambda p: files.hide(files.write_video(p, **VP9), 0, show_frame=0x02),
        range(1, 40),
    ),
    "cut_short.mkv": (lambda p: files.truncate(files.write_video(p, b_frames=0), 0.7), None),
}

# file name -> (how to make it, a word of the reason)
BAD = {
    "missing.mp4": (lambda p: p, "no such file"),
    "folder.mp4": (lambda p: p.mkdir() or p, "not a file"),
    "empty.mp4": (lambda p: written(p, b""), "empty"),
    "not_a_video.mp4": (lambda p: written(p, b"<html>404 not found</html>" * 99), "Invalid data"),
    "sound_only.mp4": (files.write_sound, "no video stream (it holds audio)"),
    "no_index.mp4": (lambda p: files.truncate(files.write_video(p), 0.6), "cut off"),
    "no_frames.avi": (
        lambda p: written(p, avi(p).read_bytes().partition(b"movi")[0] + b"movi"),
        "no video frames",
    ),
}
